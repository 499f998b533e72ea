package zone_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/xds/wire"
	"github.com/atoll-mesh/atoll/zone"
)

// plane is a zone control plane in the test's process.
type plane struct {
	dir    string
	said   *server.Said
	client *client.Client
	conn   *grpc.ClientConn
}

// value waits until the control plane has said the value of a label.
func (p *plane) value(t testing.TB, label string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	value, err := p.said.Value(ctx, label)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func config(t testing.TB) zone.Config {
	c := zone.Default()
	c.DataDir, c.Store.Type, c.Log.Level, c.Name = t.TempDir(), "memory", "error", "east"
	if level := os.Getenv("ATOLL_TEST_LOG"); level != "" {
		c.Log.Level = level
	}
	c.API.Address, c.Diagnostics.Address, c.DPServer.Address = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	c.DPServer.DeregistrationDelay, c.DPServer.StatusFlush = server.Duration(200*time.Millisecond), server.Duration(100*time.Millisecond)
	return c
}

// start runs a standalone zone until the test ends, and returns when its mesh
// can serve.
func start(t testing.TB, change ...func(*zone.Config)) *plane {
	t.Helper()
	c := config(t)
	for _, f := range change {
		f(&c)
	}
	p := &plane{dir: c.DataDir, said: &server.Said{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := zone.Run(ctx, c, "test", p.said)
		p.said.End(fmt.Errorf("it ended: %v", err))
		done <- err
	}()
	t.Cleanup(func() {
		if p.conn != nil {
			_ = p.conn.Close()
		}
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("zone: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the zone does not end")
		}
	})
	token, err := os.ReadFile(p.value(t, "administrator's token"))
	if err != nil {
		t.Fatal(err)
	}
	p.client, err = client.New(client.Options{URL: "http://" + p.value(t, "API"), Token: strings.TrimSpace(string(token))})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := os.ReadFile(filepath.Join(p.dir, "server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	p.conn, err = grpc.NewClient(p.value(t, "dp-server"), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mesh can serve", func() error {
		_, err := p.client.Get(t.Context(), api.MeshTrusts, "default", "default")
		return err
	})
	return p
}

// eventually polls until f returns nil; each wait is bounded and says what was missing.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline, tick := time.NewTimer(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func (p *plane) apply(t testing.TB, text string) client.Applied {
	t.Helper()
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.client.Apply(t.Context(), body)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// token is a dataplane token of the mesh default.
func (p *plane) token(t testing.TB, name, workload string) string {
	t.Helper()
	token, err := p.client.DataplaneToken(t.Context(), client.DataplaneTokenRequest{Mesh: "default", Name: name, Workload: workload, ValidFor: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// gone reports whether the API does not know the resource.
func (p *plane) gone(t testing.TB, k api.AnyKind, name string) bool {
	t.Helper()
	_, err := p.client.Get(t.Context(), k, "default", name)
	if errors.Is(err, client.ErrNotFound) {
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// metrics reads the samples at /metrics, by name with labels.
func (p *plane) metrics(t testing.TB) map[string]float64 {
	t.Helper()
	r, err := http.Get("http://" + p.value(t, "diagnostics") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("metrics: %d %v\n%s", r.StatusCode, err, body)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		var v float64
		if _, err := fmt.Sscan(line[at+1:], &v); err != nil {
			t.Fatalf("metrics: %q: %v", line, err)
		}
		out[line[:at]] = v
	}
	return out
}

// cart is a Dataplane as its proxy brings it.
func cart(name, labels string) string {
	return fmt.Sprintf("type: Dataplane\nmesh: default\nname: %s\nlabels: {%s}\nnetworking: {address: 10.0.0.1, inbound: [{port: 8080, name: http, protocol: http}]}\n", name, labels)
}

// node is what a proxy says of itself; an empty resource is not sent.
func node(id, resource string) *corev3.Node {
	meta := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	if resource != "" {
		meta.Fields["dataplane.resource"] = structpb.NewStringValue(resource)
	}
	return &corev3.Node{Id: id, Metadata: meta}
}

// proxy is a delta stream of a raw client that takes everything.
type proxy struct {
	cancel context.CancelFunc
	ended  chan error
	first  chan struct{} // closed with the first message

	mu      sync.Mutex
	taken   map[wire.Type]int
	names   map[wire.Type][]string
	refuses string // listeners, with this reason
	deaf    bool   // answers nothing
}

// connect opens a stream as the node, with these values of the header authorization.
func (p *plane) connect(t testing.TB, n *corev3.Node, set func(*proxy), credentials ...string) *proxy {
	t.Helper()
	md := metadata.MD{}
	md.Append("authorization", credentials...)
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), md))
	x := &proxy{cancel: cancel, ended: make(chan error, 1), first: make(chan struct{}), taken: map[wire.Type]int{}, names: map[wire.Type][]string{}}
	if set != nil {
		set(x)
	}
	t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(p.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i, typ := range []wire.Type{wire.Cluster, wire.Listener} {
		q := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(typ)}
		if i == 0 {
			q.Node = n
		}
		if err := stream.Send(q); err != nil {
			break // Recv says why
		}
	}
	go x.serve(stream)
	return x
}

func (x *proxy) serve(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) {
	asked := map[string]bool{}
	for begun := false; ; begun = true {
		r, err := stream.Recv()
		if err != nil {
			x.ended <- err
			return
		}
		x.mu.Lock()
		typ := wire.Type(r.GetTypeUrl())
		x.taken[typ] += len(r.GetResources())
		for _, res := range r.GetResources() {
			x.names[typ] = append(x.names[typ], res.GetName())
		}
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
		if typ == wire.Listener && x.refuses != "" && len(r.GetResources()) > 0 {
			answer.ErrorDetail = &rpcstatus.Status{Code: 13, Message: x.refuses}
		}
		deaf := x.deaf
		x.mu.Unlock()
		if !begun {
			close(x.first)
		}
		if deaf {
			continue
		}
		endpoints := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(wire.Endpoints)}
		for _, res := range r.GetResources() {
			var c clusterv3.Cluster
			if typ == wire.Cluster && res.GetResource().UnmarshalTo(&c) == nil && c.GetType() == clusterv3.Cluster_EDS && !asked[c.GetName()] {
				asked[c.GetName()] = true
				endpoints.ResourceNamesSubscribe = append(endpoints.ResourceNamesSubscribe, c.GetName())
			}
		}
		if len(endpoints.ResourceNamesSubscribe) > 0 {
			_ = stream.Send(endpoints)
		}
		_ = stream.Send(answer)
	}
}

// refused waits for the end of a stream and returns what it says.
func (x *proxy) refused(t testing.TB) error {
	t.Helper()
	select {
	case err := <-x.ended:
		return err
	case <-x.first:
		t.Fatal("it was served")
	case <-time.After(20 * time.Second):
		t.Fatal("neither served nor refused")
	}
	return nil
}

// served waits for the first message.
func (x *proxy) served(t testing.TB) *proxy {
	t.Helper()
	select {
	case <-x.first:
	case err := <-x.ended:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("neither served nor refused")
	}
	return x
}
