// Package server is what a global and a zone control plane have in common: the
// configuration, the store and the database it feeds, the REST API, the
// diagnostics, the server certificate, and what a new control plane begins with.
//
// It owns the life of these parts between [Open] and [Server.Close]. Packages
// global and zone add what makes them different; the goroutines are all
// listed in their Run, which hands them to [Server.Serve]. It never knows
// KDS or xDS.
//
//	Config ─▶ Open ─▶ store ─▶ Feeder ─▶ db
//	                    │                 │
//	                    └── Bootstrap ◀───┘ first start: keys, administrator, default mesh
//
// # Why
//
// Two programs that share half of their assembly would share it by copying;
// one program with a mode would ask for its mode everywhere. A struct of parts
// that both put together is neither.
package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/xds/plan"
)

// TokenFile is the name of the first administrator's token in the data directory.
const TokenFile = "admin.token"

// Server is the common parts of a control plane.
type Server struct {
	Config    Config
	Site      api.Site
	Instance  string
	Version   string
	DB        *db.DB
	Store     store.Store
	Feeder    *store.Feeder
	Validator *auth.Validator
	Cert      *Certificate
	Metrics   *prometheus.Registry
	Log       *slog.Logger
	Now       func() time.Time

	levels    *levels
	ready     atomic.Bool
	out       io.Writer
	outMu     sync.Mutex
	listeners []net.Listener
}

// Open opens the store and makes the parts. Messages for people (addresses,
// where the token is) go to out, logs to stderr.
func Open(c Config, site api.Site, version string, out io.Writer) (*Server, error) {
	var r api.Report
	c.Validate(&r)
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &Server{Config: c, Site: site, Version: version, Instance: c.Instance, Now: time.Now, out: out, Metrics: prometheus.NewRegistry()}
	s.Log, s.levels = logger(c.Log, os.Stderr)
	if s.Instance == "" {
		host, _ := os.Hostname() // a name for people
		var b [3]byte
		rand.Read(b[:]) // never fails (crypto/rand)
		s.Instance = host + "-" + hex.EncodeToString(b[:])
	}
	s.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var err error
	if s.Validator, err = c.Tokens.validator(); err != nil {
		return nil, err
	}
	if s.Cert, err = certificate(c.TLS, c.DataDir, s.Now()); err != nil {
		return nil, err
	}
	if s.Store, err = openStore(c, s.Log); err != nil {
		return nil, err
	}
	s.DB = db.New(api.Schema)
	s.Feeder = store.NewFeeder(s.Store, s.DB, site, s.Component("store"))
	return s, nil
}

// Close closes the store, and the listeners whose servers never ran.
func (s *Server) Close() error {
	for _, l := range s.listeners {
		_ = l.Close() // those that were served are closed already
	}
	return s.Store.Close()
}

// Say writes a line for people.
func (s *Server) Say(format string, args ...any) {
	s.outMu.Lock()
	defer s.outMu.Unlock()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// Listen opens a listener and says where it is; Close closes it.
func (s *Server) Listen(what, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	s.listeners = append(s.listeners, l)
	s.Say("%s: %s", what, l.Addr())
	return l, nil
}

// ListenAPI opens the listeners of the API: HTTP, and HTTPS if it is configured.
func (s *Server) ListenAPI() ([]net.Listener, error) {
	c := s.Config.API
	plain, err := s.Listen("API", c.Address)
	if err != nil {
		return nil, err
	}
	address := c.HTTPS.Address
	if address == "auto" {
		host, port, err := net.SplitHostPort(c.Address)
		if err != nil || port != "5681" {
			return []net.Listener{plain}, nil
		}
		address = net.JoinHostPort(host, "5682")
	}
	if address == "" {
		return []net.Listener{plain}, nil
	}
	settings, err := c.HTTPS.settings(s.Cert)
	if err != nil {
		return nil, err
	}
	secure, err := s.Listen("API over TLS", address)
	if err != nil {
		return nil, err
	}
	return []net.Listener{plain, tls.NewListener(secure, settings)}, nil
}

// ListenDiagnostics opens the listener of the diagnostics.
func (s *Server) ListenDiagnostics() (net.Listener, error) {
	l, err := s.Listen("diagnostics", s.Config.Diagnostics.Address)
	if err == nil && s.Config.Diagnostics.TLS {
		l = tls.NewListener(l, s.Cert.Server("h2", "http/1.1"))
	}
	return l, err
}

// Serve runs the control plane until the context ends or a part fails: its
// diagnostics and its feeder; then, when all that is stored is known and
// [Server.Bootstrap] is done, its API and the parts.
func (s *Server) Serve(ctx context.Context, handler http.Handler, parts ...func(context.Context) error) error {
	apis, err := s.ListenAPI()
	if err != nil {
		return err
	}
	diagnostics, err := s.ListenDiagnostics()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	start := func(part func(context.Context) error) {
		g.Go(func() error {
			if err := part(ctx); ctx.Err() == nil {
				return err
			}
			return nil // it says at most that the context has ended
		})
	}
	start(func(ctx context.Context) error { return s.ServeHTTP(ctx, diagnostics, s.Diagnostics()) })
	start(s.Feeder.Run)
	start(func(ctx context.Context) error {
		select {
		case <-s.Feeder.Ready(): // nothing is served before all that is stored is known
		case <-ctx.Done():
			return nil
		}
		if err := s.Bootstrap(ctx, handler); err != nil {
			return err
		}
		for _, l := range apis {
			start(func(ctx context.Context) error { return s.ServeHTTP(ctx, l, handler) })
		}
		s.ready.Store(true) // what comes next finds its listeners open
		for _, part := range parts {
			start(part)
		}
		return nil
	})
	return g.Wait()
}

// ServeHTTP serves a handler until the context ends, then lets requests finish
// for a short time.
func (s *Server) ServeHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := rest.NewServer(h, s.Log)
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l)
	if !stop() {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Diagnostics is the handler of health, readiness, metrics, log levels and profiles.
func (s *Server) Diagnostics() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthy", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "healthy\n") })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "not ready: the store has not been read, or the servers are not up", http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ready\n")
	})
	s.logging(mux)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{}))
	if s.Config.Diagnostics.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// REST is the handler of the API, with endpoints and statuses of the caller's.
// Config is shown at /config, with secrets masked.
func (s *Server) REST(config any, status func(db.Reader, api.Row) any, extra ...rest.Endpoint) (http.Handler, error) {
	config, err := shown(config)
	if err != nil {
		return nil, err
	}
	c := s.Config.API
	origins, err := rest.ParseOrigins(c.CORSAllowedDomains)
	if err != nil {
		return nil, fmt.Errorf("configuration: api.corsAllowedDomains: %w", err)
	}
	return rest.New(rest.Options{
		DB: s.DB, Feeder: s.Feeder, Site: s.Site, Access: s.Config.Access.Static, Validator: s.Validator,
		LocalhostIsAdmin: c.LocalhostIsAdmin, ReadOnly: c.ReadOnly,
		BasePath: c.BasePath, RootURL: c.RootURL, Origins: origins, NoIssuing: s.Config.Tokens.notIssued(),
		Instance: s.Instance, Version: s.Version, ClusterID: s.clusterID, Config: config,
		Status: status, Judge: plan.Judge, Extra: extra, Now: s.Now, Log: s.Component("rest"),
	}), nil
}

const clusterConfig = "kuma-cluster-id"

func (s *Server) clusterID() string {
	if c, ok := api.Configs.Named(s.DB.Snapshot(), "", clusterConfig); ok {
		return c.Spec.Config
	}
	return ""
}

// Bootstrap makes what a control plane cannot begin without: signing keys, the
// administrator and the token file; and, where no global is above it, the
// cluster's ID and the mesh `default`. What is there already stays. The API
// must be complete, since the mesh comes through it.
func (s *Server) Bootstrap(ctx context.Context, h http.Handler) error {
	now := s.Now()
	var records []store.Record
	missing := func(k api.AnyKind, name string) bool {
		_, ok := k.RowNamed(s.DB.Snapshot(), "", name)
		return !ok
	}
	tokens := s.Config.Tokens
	if tokens.User.EnableIssuer && missing(api.GlobalSecrets, "user-token-signing-key-1") {
		r, err := auth.SigningKeyRecord(auth.UserToken, "", 1, s.Site, now)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	if !s.Site.Federated {
		if tokens.Zone.EnableIssuer && missing(api.GlobalSecrets, "zone-token-signing-key-1") {
			r, err := auth.SigningKeyRecord(auth.ZoneToken, "", 1, s.Site, now)
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		if missing(api.Configs, clusterConfig) {
			records = append(records, s.record(api.Configs, clusterConfig, api.Config{Config: s.Instance}))
		}
	}
	if !s.Site.IsGlobal() && missing(api.Zones, s.Site.Zone) {
		records = append(records, s.record(api.Zones, s.Site.Zone, api.Zone{}))
	}
	if err := s.create(ctx, records); err != nil {
		return err
	}
	if tokens.User.EnableIssuer && tokens.BootstrapAdminToken {
		if err := s.admin(ctx, missing); err != nil {
			return err
		}
	}
	if s.Site.Federated {
		return s.hostnames(ctx)
	}
	if !s.Config.Defaults.SkipMeshCreation && missing(api.Meshes, "default") && !s.anyMesh() {
		if err := put(ctx, h, strings.TrimSuffix(s.Config.API.BasePath, "/")+"/meshes/default", `{"type":"Mesh","name":"default"}`); err != nil {
			return fmt.Errorf("creating the mesh default: %w", err)
		}
	}
	return s.hostnames(ctx)
}

func (s *Server) anyMesh() bool {
	for range api.Meshes.All(s.DB.Snapshot()) {
		return true
	}
	return false
}

// admin issues the administrator's token at the first start, and puts it where
// the command line of this machine finds it.
func (s *Server) admin(ctx context.Context, missing func(api.AnyKind, string) bool) error {
	if missing(api.GlobalSecrets, auth.AdminSecret) {
		token, err := auth.IssueUser(s.DB.Snapshot(), s.Now(), auth.User{Name: auth.AdminName, Groups: []string{auth.GroupAdmin}}, 10*365*24*time.Hour)
		if err != nil {
			return fmt.Errorf("issuing the administrator's token: %w", err)
		}
		if err := s.create(ctx, []store.Record{auth.AdminSecretRecord(token, s.Site, s.Now())}); err != nil {
			return err
		}
	}
	row, ok := api.GlobalSecrets.Named(s.DB.Snapshot(), "", auth.AdminSecret)
	if !ok {
		return fmt.Errorf("GlobalSecret %s is gone again", auth.AdminSecret)
	}
	token := string(bytes.TrimSpace(row.Spec.Data))
	path := filepath.Join(s.Config.DataDir, TokenFile)
	if have, err := os.ReadFile(path); err != nil || strings.TrimSpace(string(have)) != token {
		if err := writeFile(path, []byte(token+"\n"), 0o600); err != nil {
			return fmt.Errorf("administrator's token: %w", err)
		}
	}
	s.Say("administrator's token: %s", path)
	return nil
}

// hostnames makes the HostnameGenerators of a new control plane.
func (s *Server) hostnames(ctx context.Context) error {
	if s.Config.Defaults.SkipHostnameGenerators {
		return nil
	}
	var records []store.Record
	for _, row := range api.DefaultHostnameGenerators(s.Site) {
		m := row.Head()
		if _, ok := api.HostnameGenerators.Get(s.DB.Snapshot(), m.ID); ok {
			continue
		}
		r := store.RecordOf(row)
		r.Labels = api.ComputeLabels(api.HostnameGenerators, m.ID, m.Labels, s.Site)
		r.Created, r.Modified = s.Now(), s.Now()
		records = append(records, r)
	}
	return s.create(ctx, records)
}

func (s *Server) record(k api.AnyKind, name string, spec any) store.Record {
	id := api.LocalID(k, "", "", name, s.Site)
	r := store.RecordFor(k, id, spec)
	r.Labels = api.ComputeLabels(k, id, nil, s.Site)
	r.Created, r.Modified = s.Now(), s.Now()
	return r
}

// create stores records that are new; another instance may have been faster.
func (s *Server) create(ctx context.Context, records []store.Record) error {
	for _, r := range records {
		_, err := s.Feeder.Apply(ctx, []store.Op{{Record: r, Expect: store.Absent}})
		var taken *store.Conflict
		if errors.As(err, &taken) {
			err = s.Feeder.Wait(ctx, taken.Found) // what comes next builds on it
		}
		if err != nil {
			return fmt.Errorf("creating %s: %w", r.ID, err)
		}
	}
	return nil
}

// put writes a document through the API, with all its rules.
func put(ctx context.Context, h http.Handler, path, body string) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodPut, path, strings.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	w := &answer{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(w, rest.Inside(q))
	if w.status >= 300 {
		var problem struct{ Title, Detail string }
		_ = json.Unmarshal(w.body.Bytes(), &problem) // the status says that it failed
		return fmt.Errorf("%s: %s %s", http.StatusText(w.status), problem.Title, problem.Detail)
	}
	return nil
}

// answer is a response that stays in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
