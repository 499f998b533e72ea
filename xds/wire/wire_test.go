package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/kds/delta"
	"github.com/atoll-mesh/atoll/xds/wire"
)

var _ delta.Item = (*wire.Resource)(nil)

func cluster(name string, labels map[string]any) *clusterv3.Cluster {
	s, err := structpb.NewStruct(labels)
	if err != nil {
		panic(err)
	}
	return &clusterv3.Cluster{Name: name, Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"atoll": s, "b": s, "c": s}}}
}

// ordinary is the message that a splicing response must be equal to.
func ordinary(r *wire.Response) *discovery.DeltaDiscoveryResponse {
	m := &discovery.DeltaDiscoveryResponse{TypeUrl: r.TypeURL, Nonce: r.Nonce, SystemVersionInfo: r.SystemVersion, RemovedResources: r.Removed}
	if r.ControlPlane != "" {
		m.ControlPlane = &corev3.ControlPlane{Identifier: r.ControlPlane}
	}
	for _, x := range r.Resources {
		m.Resources = append(m.Resources, &discovery.Resource{Name: x.Name, Version: x.Version,
			Resource: &anypb.Any{TypeUrl: string(x.Type), Value: x.Body()}})
	}
	return m
}

func marshal(t testing.TB, r *wire.Response) mem.BufferSlice {
	b, err := wire.Codec().Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSpliceEqualsProto(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.String()
		r := &wire.Response{TypeURL: text.Draw(rt, "type"), Nonce: text.Draw(rt, "nonce"), SystemVersion: text.Draw(rt, "system"),
			ControlPlane: text.Draw(rt, "control plane"), Removed: rapid.SliceOf(text).Draw(rt, "removed")}
		size := 0
		for range rapid.IntRange(0, 4).Draw(rt, "resources") {
			x := wire.EncodeAny(text.Draw(rt, "any"), text.Draw(rt, "name"), text.Draw(rt, "version"), rapid.SliceOf(rapid.Byte()).Draw(rt, "body"))
			r.Resources = append(r.Resources, x)
			size += x.Size()
		}
		b := marshal(t, r)
		got := &discovery.DeltaDiscoveryResponse{}
		if err := proto.Unmarshal(b.Materialize(), got); err != nil {
			rt.Fatal(err)
		}
		want := ordinary(r)
		if !proto.Equal(got, want) {
			rt.Fatalf("\n got %v\nwant %v", got, want)
		}
		want.Resources = nil
		if b.Len() != size+proto.Size(want) {
			rt.Fatalf("sizes of resources sum up to %d of %d bytes", size, b.Len())
		}
	})
}

func TestEncode(t *testing.T) {
	m := cluster("a", map[string]any{"x": "y"})
	r, err := wire.Encode(wire.Cluster, "a", m)
	if err != nil {
		t.Fatal(err)
	}
	back, err := r.Message()
	if err != nil || !proto.Equal(back, m) {
		t.Fatalf("%v, %v", back, err)
	}
	if r.ItemName() != "a" || len(r.ItemVersion()) != 16 || r.ItemVersion() != r.Version {
		t.Fatalf("%q %q", r.ItemName(), r.ItemVersion())
	}
	got := &discovery.DeltaDiscoveryResponse{}
	resp := &wire.Response{TypeURL: string(wire.Cluster), Nonce: "1", Resources: []*wire.Resource{r}}
	if err := proto.Unmarshal(marshal(t, resp).Materialize(), got); err != nil || !proto.Equal(got, ordinary(resp)) {
		t.Fatalf("%v, %v", got, err)
	}
	empty, err := wire.Encode(wire.Cluster, "", &clusterv3.Cluster{})
	if err != nil || len(empty.Body()) != 0 || empty.Version != "ef46db3751d8e999" { // xxhash64 of nothing, seed 0
		t.Fatalf("%+v, %v", empty, err)
	}
}

// The version follows the content, and the content alone.
func TestVersions(t *testing.T) {
	labels := map[string]any{}
	for i := range 50 {
		labels[fmt.Sprint("k", i)] = i
	}
	first, err := wire.Encode(wire.Cluster, "a", cluster("a", labels))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // maps of protobuf are encoded in random order if one does not ask
		again, err := wire.Encode(wire.Cluster, "a", cluster("a", labels))
		if err != nil || again.Version != first.Version || string(again.Body()) != string(first.Body()) {
			t.Fatal("equal content, other bytes")
		}
	}
	other, err := wire.Encode(wire.Cluster, "a", cluster("b", labels))
	if err != nil || other.Version == first.Version {
		t.Fatal("other content, equal version")
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, try := range map[string]func() (*wire.Resource, error){
		"type": func() (*wire.Resource, error) { return wire.Encode(wire.Listener, "a", &clusterv3.Cluster{}) },
		"name": func() (*wire.Resource, error) { return wire.Encode(wire.Cluster, "\xff", &clusterv3.Cluster{}) },
		"contents": func() (*wire.Resource, error) {
			return wire.Encode(wire.Cluster, "a", &clusterv3.Cluster{Name: "\xff"})
		},
	} {
		if _, err := try(); !errors.Is(err, wire.ErrEncode) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := wire.EncodeAny("type.googleapis.com/no.Such", "a", "1", nil).Message(); err == nil {
		t.Error("decoded an unknown type")
	}
}

func TestTypes(t *testing.T) {
	for typ, c := range map[wire.Type]struct {
		m     proto.Message
		short string
	}{
		wire.Cluster:   {&clusterv3.Cluster{}, "CDS"},
		wire.Endpoints: {&endpointv3.ClusterLoadAssignment{}, "EDS"},
		wire.Listener:  {&listenerv3.Listener{}, "LDS"},
		wire.Route:     {&routev3.RouteConfiguration{}, "RDS"},
		wire.Secret:    {&tlsv3.Secret{}, "SDS"},
	} {
		if _, err := wire.Encode(typ, "x", c.m); err != nil || typ.Short() != c.short {
			t.Errorf("%s: %s, %v", typ, typ.Short(), err)
		}
	}
	if got := wire.Type("Mesh").Short() + wire.Type("a/b.C").Short(); got != "MeshC" {
		t.Error(got)
	}
	if n := len(wire.Types()); n != 5 {
		t.Error(n)
	}
}

// Over real gRPC, with and without compression, to an ordinary client.
func TestOverGRPC(t *testing.T) {
	resp := &wire.Response{TypeURL: string(wire.Cluster), Nonce: "7", ControlPlane: "cp", SystemVersion: "e/9", Removed: []string{"gone"}}
	for i := range 5 {
		r, err := wire.Encode(wire.Cluster, fmt.Sprint(i), cluster(fmt.Sprint(i), map[string]any{"i": i}))
		if err != nil {
			t.Fatal(err)
		}
		resp.Resources = append(resp.Resources, r)
	}
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()))
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "envoy.service.discovery.v3.AggregatedDiscoveryService", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true, Handler: func(_ any, st grpc.ServerStream) error {
			for {
				var q discovery.DeltaDiscoveryRequest
				if err := st.RecvMsg(&q); err != nil {
					return err
				}
				if q.GetTypeUrl() != string(wire.Cluster) {
					return errors.New("request not decoded")
				}
				if err := st.SendMsg(resp); err != nil {
					return err
				}
			}
		}}}}, nil)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() { s.Stop(); <-served }()
	for _, opts := range [][]grpc.CallOption{nil, {grpc.UseCompressor("gzip")}} {
		c, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		st, err := discovery.NewAggregatedDiscoveryServiceClient(c).DeltaAggregatedResources(t.Context(), opts...)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 { // the same frames again: nothing may have been freed or changed
			if err := st.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: string(wire.Cluster)}); err != nil {
				t.Fatal(err)
			}
			got, err := st.Recv()
			if err != nil || !proto.Equal(got, ordinary(resp)) {
				t.Fatalf("%v, %v", got, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// One response costs its head and a slice of pointers, whatever the resources hold.
func TestSpliceCopiesNothing(t *testing.T) {
	c := wire.Codec()
	resp := sample(200, 2000)
	n := testing.AllocsPerRun(100, func() {
		if _, err := c.Marshal(resp); err != nil {
			t.Fatal(err)
		}
	})
	if n > 3 {
		t.Fatalf("%v allocations per response", n)
	}
	r := resp.Resources[0]
	if over := r.Size() - len(r.Body()); over > 200 {
		t.Fatalf("a resource holds %d bytes beyond its body", over)
	}
}

func sample(n, size int) *wire.Response {
	resp := &wire.Response{TypeURL: string(wire.Cluster), Nonce: "1"}
	for i := range n {
		resp.Resources = append(resp.Resources, wire.EncodeAny(string(wire.Cluster), fmt.Sprint("r", i), "1", make([]byte, size)))
	}
	return resp
}

// BenchmarkResponse reports how many times longer protobuf takes for the same response as times/splice.
func BenchmarkResponse(b *testing.B) {
	c, resp := wire.Codec(), sample(200, 2000)
	full := ordinary(resp)
	marshal := func(v any) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				x, err := c.Marshal(v)
				if err != nil {
					b.Fatal(err)
				}
				x.Free()
			}
		}
	}
	b.Run("proto", marshal(full))
	b.Run("splice", marshal(resp))
	b.Run("ratio", func(b *testing.B) {
		var proto, splice time.Duration
		for b.Loop() {
			t0 := time.Now()
			x, err := c.Marshal(full)
			t1 := time.Now()
			y, err2 := c.Marshal(resp)
			t2 := time.Now()
			if err != nil || err2 != nil {
				b.Fatal(err, err2)
			}
			proto, splice = proto+t1.Sub(t0), splice+t2.Sub(t1)
			x.Free()
			y.Free()
		}
		b.ReportMetric(float64(proto)/float64(max(1, splice)), "times/splice")
	})
}
