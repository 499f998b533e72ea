package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/xds/wire"
	"github.com/atoll-mesh/atoll/zone"
)

// quiet reads what must not move while nothing changes: work of the engine,
// messages to proxies, revisions of the store and of the peers.
func quiet(t testing.TB, p *plane) map[string]string {
	t.Helper()
	r, err := http.Get("http://" + p.value(t, "diagnostics") + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "atoll_") {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
			if value == "" {
				name, value, _ = strings.Cut(strings.TrimSpace(line), " ")
			}
			out[name] = value
		}
	}
	// Rounds without work follow rows that nobody reads, such as the counters of
	// insights and the heartbeats of peers.
	delete(out, "atoll_engine_rounds_total")
	return out
}

// While nothing changes nothing is computed, sent or stored, in the zone and at
// global: what zones report must not become writes that they hear of again.
func TestNothingHappensWhileNothingChanges(t *testing.T) {
	g := startGlobal(t)
	east := startZone(t, "east", g, func(c *zone.Config) { c.DPServer.Auth = "none" })
	meshIn(t, east)
	chain, err := os.ReadFile(filepath.Join(east.dir, "server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	conn, err := grpc.NewClient(east.value(t, "dp-server"), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	const proxies = 50
	for i := range proxies {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("p-%d", i)
		body := fmt.Sprintf("type: Dataplane\nmesh: default\nname: %s\nlabels: {kuma.io/workload: w-%d}\nnetworking: {address: 10.0.0.%d, inbound: [{port: 80, protocol: http}]}", name, i%5, i+1)
		node := &corev3.Node{Id: "default." + name, Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"dataplane.resource": structpb.NewStringValue(body)}}}
		for _, typ := range []wire.Type{wire.Cluster, wire.Listener} {
			if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: node, TypeUrl: string(typ)}); err != nil {
				t.Fatal(err)
			}
		}
		go func() {
			for {
				r, err := stream.Recv()
				if err != nil {
					return
				}
				_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
			}
		}()
	}
	a := apply(t, g, `{"type":"MeshTimeout","mesh":"default","name":"idle","spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"30m"}}]}}`)
	reached(t, g, a.Revision, proxies)

	// What followed the connections has come to rest: two looks that are apart are equal.
	apart := func(d time.Duration) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
	}
	var zone, global map[string]string
	eventually(t, "the planes come to rest", func() error {
		zone, global = quiet(t, east), quiet(t, g)
		apart(700 * time.Millisecond)
		if now := quiet(t, east); !maps.Equal(now, zone) || !maps.Equal(quiet(t, g), global) {
			return fmt.Errorf("%v", now)
		}
		return nil
	})
	apart(3 * time.Second)
	for name, was := range map[string]struct {
		p      *plane
		before map[string]string
	}{"zone": {east, zone}, "global": {g, global}} {
		now := quiet(t, was.p)
		for metric, v := range was.before {
			if now[metric] != v {
				t.Errorf("%s: %s was %s and is %s after three seconds in which nothing changed", name, metric, v, now[metric])
			}
		}
	}
	if zone["atoll_proxies_connected"] != fmt.Sprint(proxies) || zone["atoll_proxies_behind"] != "0" || zone["atoll_peer_connected{peer=\"global\""] != "1" {
		t.Errorf("the zone is not whole: %v", zone)
	}
}
