package proxy_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

func receive[V any](t *testing.T, what string, from <-chan V) V {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("not reached")
	}
}

// Lines that Envoy writes into the pipe reach the sinks that they name; what cannot
// be read is counted; and what is there when Envoy ends still goes out.
func TestAccessLogs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	lines := make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					lines <- in.Text()
				}
			}()
		}
	}()
	at := l.Addr().String()
	cp := newControlPlane(t, 0, onSocket)
	c, log := config(t, cp, fakeEnvoy(t, fmt.Sprintf(`
put() { printf '%%s\n' "$1" >$2; }
trap 'put "%[1]s;at the end" access-logs; exit 0' TERM
put '{"address":"%[1]s","message":"a text\n"}' access-logs
put '{"address":"%[1]s","message":{"an":"object"}}' access-logs
put '{"message":"to nobody"}' access-logs
put '{broken' access-logs
put 'neither' access-logs
put '%[1]s;older; form' %[2]s
while :; do sleep 0.05; done
`, at, "kuma-al-api-default.sock")))
	p := run(t, c, log)
	for _, want := range []string{"a text", `{"an":"object"}`, "older; form"} {
		if got := receive(t, want, lines); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for _, want := range []string{`atoll_dp_lost_total{to="",what="access logs"} 3`, `atoll_dp_delivered_total{to="` + at + `",what="access logs"} 3`} {
		p.await(want, func() (string, bool) {
			_, metrics := get(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, strings.TrimSuffix(p.ready, "ready")+"metrics")
			return metrics, strings.Contains(metrics, want)
		})
	}
	p.cancel()
	if got := receive(t, "the last line", lines); got != "at the end" {
		t.Errorf("%q at the end", got)
	}
	<-p.done
}

// A sink that is away when Envoy writes gets the lines when it is there, and one
// that closes its connection gets the next lines over a new one.
func TestAccessLogsWait(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	dir := shortDir(t)
	c, log := config(t, newControlPlane(t, 0, onSocket), fakeEnvoy(t, "exec sleep 1000"))
	c.WorkDir = dir
	p := run(t, c, log)
	put := func(text string) {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, bootstrap.AccessLogPipe), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := fmt.Fprintf(f, "%s;%s\n", at, text); err != nil {
			t.Fatal(err)
		}
	}
	p.await("the pipe", func() (string, bool) {
		_, err := os.Stat(filepath.Join(dir, bootstrap.AccessLogPipe))
		return fmt.Sprint(err), err == nil
	})
	put("early")
	p.await("a warning", func() (string, bool) { return log.String(), strings.Contains(log.String(), "not delivered") })
	if l, err = net.Listen("tcp", at); err != nil {
		t.Skip("the port is another's by now: ", err)
	}
	defer l.Close()
	read := func(conn net.Conn, want string) {
		t.Helper()
		defer conn.Close()
		conn.SetReadDeadline(time.Now().Add(patience))
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != want+"\n" {
			t.Fatalf("%q, want %s: %v", line, want, err)
		}
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	read(conn, "early")
	p.await("a new connection", func() (string, bool) {
		put("late") // what is written before the end of the old one is noticed is lost
		l.(*net.TCPListener).SetDeadline(time.Now().Add(100 * time.Millisecond))
		conn, err := l.Accept()
		if err == nil {
			read(conn, "late")
		}
		return fmt.Sprint(err), err == nil
	})
}

// raw is the codec of a collector that looks at bytes.
type raw struct{}

func (raw) Name() string                       { return "proto" }
func (raw) Marshal(v any) ([]byte, error)      { return []byte(*v.(*string)), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*string) = string(data); return nil }

// received is what a collector got.
type received struct{ method, body, header string }

// newGRPCCollector answers with the codes first, one per message, then takes all.
func newGRPCCollector(t *testing.T, first ...codes.Code) (address string, got chan received) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got = make(chan received, 100)
	s := grpc.NewServer(grpc.ForceServerCodec(raw{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		var body string
		if err := stream.RecvMsg(&body); err != nil {
			return err
		}
		if len(first) > 0 {
			code := first[0]
			first = first[1:]
			return status.Error(code, "not now")
		}
		method, _ := grpc.MethodFromServerStream(stream)
		md, _ := metadata.FromIncomingContext(stream.Context())
		got <- received{method, body, strings.Join(md.Get("x-key"), ",")}
		return stream.SendMsg(new(string))
	}))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String(), got
}

func newHTTPCollector(t *testing.T) (address string, got chan received) {
	got = make(chan received, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := io.Reader(r.Body)
		if r.Header.Get("content-encoding") == "gzip" {
			in, _ = gzip.NewReader(r.Body)
		}
		body, _ := io.ReadAll(in)
		got <- received{r.URL.Path, string(body), r.Header.Get("x-key")}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://"), got
}

const (
	traces = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	logs   = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
)

// What Envoy sends to the socket of a collector reaches it, over gRPC or HTTP, in
// the way on which the resource and the environment agree.
func TestCollectors(t *testing.T) {
	policy := bootstrap.CollectorPolicy{Mode: "Optional", Precedence: "EnvFirst", AllowSignalOverrides: true}
	grpcAt, byGRPC := newGRPCCollector(t, codes.Unavailable)
	httpAt, byHTTP := newHTTPCollector(t)
	_, port, _ := net.SplitHostPort(grpcAt)
	for _, c := range []struct {
		name    string
		backend bootstrap.CollectorBackend
		env     []string
		method  string
		from    chan received
		want    received // but for the body
	}{
		{"gRPC, tried again", bootstrap.CollectorBackend{Endpoint: grpcAt, Env: policy}, nil, traces, byGRPC, received{traces, "", ""}},
		{"on the node", bootstrap.CollectorBackend{Endpoint: ":" + port, Env: policy}, []string{"HOST_IP=127.0.0.1"}, logs, byGRPC, received{logs, "", ""}},
		{"HTTP", bootstrap.CollectorBackend{Endpoint: httpAt, UseHTTP: true, Path: "/otlp", Env: policy}, nil, traces, byHTTP, received{"/otlp/v1/traces", "", ""}},
		{
			"the environment first", bootstrap.CollectorBackend{Endpoint: grpcAt, Env: policy},
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + httpAt + "/env", "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS=x-key=a%20b,x-other=c", "OTEL_EXPORTER_OTLP_COMPRESSION=gzip"},
			logs, byHTTP, received{"/env/v1/logs", "", "a b"},
		},
		{
			"a signal of its own", bootstrap.CollectorBackend{Endpoint: grpcAt, UseHTTP: true, Env: policy},
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://" + httpAt + "/as/is"},
			traces, byHTTP, received{"/as/is", "", ""},
		},
		{
			"signals have none of their own", bootstrap.CollectorBackend{Endpoint: grpcAt, UseHTTP: true, Env: bootstrap.CollectorPolicy{Mode: "Optional", Precedence: "EnvFirst"}},
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + httpAt, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:1"},
			traces, byHTTP, received{"/v1/traces", "", ""},
		},
		{
			"the resource first, headers from the environment", bootstrap.CollectorBackend{Endpoint: grpcAt, Env: bootstrap.CollectorPolicy{Mode: "Optional", Precedence: "ExplicitFirst"}},
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + httpAt, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf", "OTEL_EXPORTER_OTLP_HEADERS=x-key=k"},
			traces, byGRPC, received{traces, "", "k"},
		},
		{
			"no environment", bootstrap.CollectorBackend{Endpoint: grpcAt, Env: bootstrap.CollectorPolicy{Mode: "Disabled", Precedence: "EnvFirst"}},
			[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + httpAt, "OTEL_EXPORTER_OTLP_HEADERS=x-key=k"},
			traces, byGRPC, received{traces, "", ""},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, client := withCollector(t, c.backend, c.env)
			if err := client.Invoke(t.Context(), c.method, &c.name, new(string)); err != nil {
				t.Fatalf("%v\n%s", err, p.log)
			}
			c.want.body = c.name
			got := receive(t, "the message", c.from)
			for got.body != c.name { // of a proxy that ended before it had the answer, and so sent it again
				got = receive(t, "the message", c.from)
			}
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if err := client.Invoke(t.Context(), "/other.Service/Export", ptr("hello"), new(string)); status.Code(err) != codes.Unimplemented {
				t.Errorf("of another service: %v", err)
			}
		})
	}
	t.Run("an environment that is needed", func(t *testing.T) {
		p, client := withCollector(t, bootstrap.CollectorBackend{Endpoint: grpcAt, Env: bootstrap.CollectorPolicy{Mode: "Required"}}, nil)
		_ = client.Invoke(t.Context(), traces, ptr("hello"), new(string))
		p.cancel()
		<-p.done
		if text := p.log.String(); !strings.Contains(text, "OTEL_EXPORTER_OTLP_ENDPOINT") || !strings.Contains(text, "lost=") {
			t.Errorf("the log does not say what is missing:\n%s", text)
		}
	})
}

func ptr[V any](v V) *V { return &v }

// tell is Envoy, passing on what is told at a path.
func tell(t *testing.T, workdir, path string, body []byte) {
	t.Helper()
	l, err := net.Listen("unix", bootstrap.DynamicSocket(workdir))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("etag", "1")
		w.Write(body)
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
}

// withCollector runs a proxy that is told of the collector, and a client of the
// socket for it.
func withCollector(t *testing.T, b bootstrap.CollectorBackend, env []string) (*running, *grpc.ClientConn) {
	t.Helper()
	c, log := config(t, newControlPlane(t, 0, onSocket), fakeEnvoy(t, "exec sleep 1000"))
	c.WorkDir = shortDir(t)
	if err := c.Environment(env); err != nil {
		t.Fatal(err)
	}
	b.Name, b.SocketPath = "one", "kuma-otel-one.sock"
	body, err := json.Marshal(bootstrap.CollectorConfig{Backends: []bootstrap.CollectorBackend{b}})
	if err != nil {
		t.Fatal(err)
	}
	c.DynamicInterval = 10 * time.Millisecond
	tell(t, c.WorkDir, bootstrap.CollectorPath, body)
	p := run(t, c, log)
	p.await("the socket", func() (string, bool) {
		_, err := os.Stat(filepath.Join(c.WorkDir, b.SocketPath))
		return fmt.Sprint(err), err == nil
	})
	client, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.WaitForReady(true)),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(c.WorkDir, b.SocketPath))
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return p, client
}
