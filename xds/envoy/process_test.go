package envoy_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// findEnvoy skips the test where there is no Envoy; everywhere else the real one has the last word.
func findEnvoy(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("ATOLL_ENVOY"); path != "" {
		return path
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path
	}
	if path, err := filepath.Abs("../../.tools/envoy/envoy"); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Skip("no Envoy in $ATOLL_ENVOY, on PATH or in .tools/envoy (`make envoy` fetches it): real validation left out")
	return ""
}

// bootstrap is a configuration that names a control plane which does not answer, so that sources via ADS can be named.
func bootstrap(t *testing.T, static *bootstrapv3.Bootstrap_StaticResources) *bootstrapv3.Bootstrap {
	t.Helper()
	ads, err := envoy.Cluster(ir.Cluster{
		Name:           "system_ads",
		Protocol:       ir.HTTP2,
		ConnectTimeout: ir.Span(time.Second),
		Static:         []ir.Locality{{Endpoints: []ir.Endpoint{{Address: ir.Address{Host: "127.0.0.1", Port: 9}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	static.Clusters = append(static.Clusters, ads)
	return &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: "test", Cluster: "test"},
		StaticResources: static,
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				envoy.DelayRouteSelection: structpb.NewBoolValue(true),
			}}},
		}}},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{
			ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "system_ads"},
			}}},
		}},
	}
}

func writeBootstrap(t *testing.T, b *bootstrapv3.Bootstrap) string {
	t.Helper()
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// batch gathers everything that the cases expect, for one run of Envoy.
type batch struct {
	static bootstrapv3.Bootstrap_StaticResources
	port   uint32
}

// add takes a copy of m under a name and a port of its own. What cannot stand alone in a static configuration stands
// inside something that can.
func (b *batch) add(name string, m proto.Message) {
	b.port++
	switch m := proto.Clone(m).(type) {
	case *listenerv3.Listener:
		m.Name = name
		if s := m.GetAddress().GetSocketAddress(); s != nil {
			s.PortSpecifier = &corev3.SocketAddress_PortValue{PortValue: 10_000 + b.port}
		}
		b.static.Listeners = append(b.static.Listeners, m)
	case *clusterv3.Cluster:
		m.Name = name
		if m.EdsClusterConfig != nil {
			m.EdsClusterConfig.ServiceName = name
		}
		b.static.Clusters = append(b.static.Clusters, m)
	case *endpointv3.ClusterLoadAssignment:
		b.static.Clusters = append(b.static.Clusters, &clusterv3.Cluster{
			Name:                 name,
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			ConnectTimeout:       durationpb.New(time.Second),
			LoadAssignment:       m,
		})
	case *routev3.RouteConfiguration:
		b.static.Listeners = append(b.static.Listeners, b.listener(name, "envoy.filters.network.http_connection_manager",
			&hcmv3.HttpConnectionManager{
				StatPrefix:     "routes",
				RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: m},
				HttpFilters: []*hcmv3.HttpFilter{{
					Name:       "envoy.filters.http.router",
					ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustAny(&routerv3.Router{})},
				}},
			}))
	case *tlsv3.Secret:
		m.Name = name
		b.static.Secrets = append(b.static.Secrets, m)
		common := new(tlsv3.CommonTlsContext)
		if m.GetTlsCertificate() != nil {
			common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: name}}
		} else {
			common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: name},
			}
		}
		b.static.Clusters = append(b.static.Clusters, &clusterv3.Cluster{
			Name:                 name,
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			ConnectTimeout:       durationpb.New(time.Second),
			TransportSocket: &corev3.TransportSocket{
				Name:       "envoy.transport_sockets.tls",
				ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: mustAny(&tlsv3.UpstreamTlsContext{CommonTlsContext: common})},
			},
		})
	}
}

func (b *batch) listener(name, filter string, config proto.Message) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name: name,
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 10_000 + b.port},
		}}},
		FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{Name: filter, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustAny(config)}}},
		}},
	}
}

func mustAny(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return out
}

// validate asks the real Envoy whether it would take it all.
func (b *batch) validate(t *testing.T) {
	binary := findEnvoy(t)
	if b.port == 0 {
		t.Skip("no case ran that expects a configuration")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, binary, "--mode", "validate", "-l", "warning", "-c", writeBootstrap(t, bootstrap(t, &b.static)))
	output, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for line := range bytes.Lines(output) {
		if strings.Contains(string(line), "deprecated") {
			t.Errorf("%s", line)
		}
	}
}
