package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"sigs.k8s.io/yaml"
)

// admin is Envoy's administration interface. Nil: Envoy has none.
// https://www.envoyproxy.io/docs/envoy/latest/operations/admin
type admin struct {
	http  *http.Client
	where string
}

// adminOf finds the interface in a bootstrap, whose fields may be written in
// either of the two spellings of protobuf JSON.
func adminOf(text []byte) (*admin, error) {
	type socket struct {
		Address string `json:"address"`
		Value   uint32 `json:"portValue"`
		Snake   uint32 `json:"port_value"`
	}
	var b struct {
		Admin struct {
			Address struct {
				Pipe struct {
					Path string `json:"path"`
				} `json:"pipe"`
				Socket socket `json:"socketAddress"`
				Snake  socket `json:"socket_address"`
			} `json:"address"`
		} `json:"admin"`
	}
	if err := yaml.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("bootstrap of the control plane: %w", err)
	}
	network, where := "unix", b.Admin.Address.Pipe.Path
	for _, s := range []socket{b.Admin.Address.Socket, b.Admin.Address.Snake} {
		if s.Address != "" {
			network, where = "tcp", net.JoinHostPort(s.Address, strconv.FormatUint(uint64(max(s.Value, s.Snake)), 10))
		}
	}
	if where == "" {
		return nil, nil
	}
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	return &admin{where: where, http: &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, where)
		},
		// Few requests, seconds apart; an idle connection would only be one more
		// that drains.
		DisableKeepAlives: true,
	}}}, nil
}

func (a *admin) close() {
	if a != nil {
		a.http.CloseIdleConnections()
	}
}

func (a *admin) do(ctx context.Context, method, path string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return 0, nil, err
	}
	res, err := a.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	return res.StatusCode, body, err
}

func (a *admin) post(ctx context.Context, path string) error {
	if a == nil {
		return nil
	}
	status, body, err := a.do(ctx, http.MethodPost, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %.200s", status, body)
	}
	return err
}

// readiness answers GET /ready: 503 NOT_READY until Envoy runs, then what Envoy
// says, 503 TERMINATING once the end has begun; and GET /metrics, for Prometheus, with
// what this program counts itself. Other paths are not found.
type readiness struct {
	server *http.Server
	served chan error
	// state: nil before Envoy runs.
	state atomic.Pointer[state]
}

type state struct {
	admin *admin
	ends  bool
}

// listen opens the endpoint; its port is part of the request for a bootstrap.
func (r *runner) listen() (*readiness, error) {
	host := r.ReadinessAddress
	if host == "" && r.PodName == "" {
		host = "127.0.0.1"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(uint64(r.ReadinessPort), 10)))
	if err != nil {
		return nil, fmt.Errorf("%w: readiness endpoint: %w (another proxy on this host? choose by --readiness-port, 0 picks a free one)", ErrConfig, err)
	}
	if tcp, ok := l.Addr().(*net.TCPAddr); ok {
		r.port = uint32(tcp.Port)
	}
	e := &readiness{served: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", e.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{}))
	e.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelDebug),
	}
	go func() { e.served <- e.server.Serve(l) }()
	if r.Listening != nil {
		r.Listening(l.Addr())
	}
	return e, nil
}

func (e *readiness) started(a *admin) { e.state.CompareAndSwap(nil, &state{admin: a}) }
func (e *readiness) terminating()     { e.state.Store(&state{ends: true}) }

func (e *readiness) close() error {
	err := e.server.Close()
	<-e.served // always http.ErrServerClosed after Close
	return err
}

func (e *readiness) ready(w http.ResponseWriter, r *http.Request) {
	status, body := http.StatusServiceUnavailable, []byte("NOT_READY")
	switch s := e.state.Load(); {
	case s == nil:
	case s.ends:
		body = []byte("TERMINATING")
	case s.admin == nil: // Envoy runs; nobody can say more
		status, body = http.StatusOK, []byte("READY")
	default:
		if said, text, err := s.admin.do(r.Context(), http.MethodGet, "/ready"); err == nil {
			status, body = said, text
		}
	}
	w.Header().Set("content-type", "text/plain; charset=utf-8")
	w.Header().Set("x-powered-by", "atoll-dp")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}
