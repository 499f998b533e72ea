package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// signals of OpenTelemetry and the gRPC methods by which they are exported.
// https://opentelemetry.io/docs/specs/otlp/#otlpgrpc
var signals = [...]struct{ name, method string }{
	{"traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"},
	{"logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export"},
	{"metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"},
}

// recordRoom is how many bytes may wait for one signal of one collector.
const recordRoom = 16 << 20

// collectors take OTLP from Envoy and pass it on, for each collector that the
// control plane names:
//
//	Envoy ─gRPC─▶ kuma-otel-NAME.sock ─▶ an outbox per signal ─gRPC or HTTP─▶ collector
//
// What comes is not looked into: the bytes go on as they are.
//
// Envoy may know a collector before this program is told of it, for as long as the
// pause between two looks: what it sends then it drops, and counts itself.
type collectors struct {
	dir     string
	env     Environment
	log     *slog.Logger
	counted counters

	open map[string]*collectorServer // by name
}

// apply opens and closes sockets so that those are open which are named.
func (c *collectors) apply(body []byte) error {
	var config bootstrap.CollectorConfig
	if body != nil {
		if err := json.Unmarshal(body, &config); err != nil {
			return err
		}
	}
	for name, s := range c.open {
		if !slices.ContainsFunc(config.Backends, func(b bootstrap.CollectorBackend) bool { return reflect.DeepEqual(b, s.config) }) {
			s.close()
			delete(c.open, name)
		}
	}
	var errs []error
	for _, b := range config.Backends {
		if c.open[b.Name] != nil {
			continue
		}
		s, err := c.serve(b)
		if err != nil {
			errs = append(errs, fmt.Errorf("collector %s: %w", b.Name, err))
			continue
		}
		c.open[b.Name] = s
	}
	return errors.Join(errs...)
}

func (c *collectors) close() { _ = c.apply(nil) }

// collectorServer is an open socket.
type collectorServer struct {
	config bootstrap.CollectorBackend
	server *grpc.Server
	to     map[string]*Outbox // by method
	stop   context.CancelFunc
	runs   sync.WaitGroup
}

func (c *collectors) serve(b bootstrap.CollectorBackend) (*collectorServer, error) {
	path := b.SocketPath
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.dir, path)
	}
	l, err := listenSocket(path)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &collectorServer{config: b, to: map[string]*Outbox{}, stop: stop}
	for _, signal := range signals {
		to, err := c.env.exporter(b, signal.name)
		log := c.log.With("what", signal.name, "to", b.Name)
		if err != nil {
			log.Error("OpenTelemetry of this signal is lost", "error", err)
		}
		out := &Outbox{
			Room: recordRoom, Log: log, Delivered: c.counted.delivered.WithLabelValues(signal.name, b.Name), Lost: c.counted.lost.WithLabelValues(signal.name, b.Name),
			Deliver: func(ctx context.Context, items [][]byte) (int, error) {
				if err != nil {
					return 0, fmt.Errorf("%w: %w", ErrUndeliverable, err)
				}
				return to.deliver(ctx, signal.method, items)
			},
		}
		s.to[signal.method] = out
		s.runs.Go(func() {
			out.Run(ctx)
			to.close()
		})
	}
	s.server = grpc.NewServer(grpc.ForceServerCodec(asIs{}), grpc.UnknownServiceHandler(s.take), grpc.MaxRecvMsgSize(recordRoom))
	s.runs.Go(func() { _ = s.server.Serve(l) }) // always without an error after Stop
	return s, nil
}

func (s *collectorServer) close() {
	s.server.Stop() // no handler waits for anything
	s.stop()
	s.runs.Wait()
}

// take is every method of a server: the answer to what is exported is empty, which
// means that all was taken.
func (s *collectorServer) take(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	to := s.to[method]
	if to == nil {
		return status.Errorf(codes.Unimplemented, "%s is no method of OTLP", method)
	}
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	if !to.Put(message) {
		return status.Error(codes.ResourceExhausted, "too much waits for the collector: it is away, or too slow")
	}
	return stream.SendMsg(new([]byte))
}

// asIs is the codec of messages that are not looked into.
type asIs struct{}

func (asIs) Name() string { return "proto" }

func (asIs) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (asIs) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}
