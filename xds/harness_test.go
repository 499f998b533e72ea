package xds_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/wire"
)

var east = api.Site{Zone: "east", Federated: true, Env: "universal"}

// rows is a database of zone east, filled with documents.
type rows struct {
	*db.DB
	sequence int
}

func newRows() *rows {
	r := &rows{DB: db.New(api.Schema)}
	r.write(func(tx *db.Tx) { api.SettingsTable.Put(tx, &api.Settings{Site: east}) })
	return r
}

func (r *rows) write(f func(*db.Tx)) {
	if _, err := r.DB.Write(func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		panic(err)
	}
}

// parse makes the row of a document that was written at a site.
func (r *rows) parse(at, text string) api.Row {
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		panic(err)
	}
	var report api.Report
	doc, kind := api.ParseDocument(body, &report)
	if err := report.Err(); err != nil {
		panic(fmt.Sprintf("%v in %s", err, text))
	}
	site, source := east, ""
	switch at {
	case "east":
	case "global":
		site, source = api.Site{}, api.Global
	default:
		site, source = api.Site{Zone: at, Federated: true, Env: "universal"}, api.Global
	}
	r.sequence++
	m := api.Meta{ID: api.LocalID(kind, doc.Mesh, "", doc.Name, site), Source: source, Created: time.Unix(int64(r.sequence), 0).UTC()}
	m.Labels = api.ComputeLabels(kind, m.ID, doc.Labels, site)
	if source != "" {
		m.Labels[api.LabelOrigin] = api.OriginGlobal
	}
	m.Core = api.CoreName(kind, &m)
	row := kind.Decode(m, doc.Spec, true, &report)
	if err := report.Err(); err != nil {
		panic(fmt.Sprintf("%v in %s", err, text))
	}
	return row
}

// put enters documents in one transaction.
func (r *rows) put(at string, texts ...string) {
	var list []api.Row
	for _, text := range texts {
		list = append(list, r.parse(at, text))
	}
	r.write(func(tx *db.Tx) {
		for _, row := range list {
			kind, _ := api.ByName(row.Head().Kind)
			kind.Put(tx, row)
		}
	})
}

func (r *rows) drop(kind api.AnyKind, at, name string) {
	site := east
	if at == "global" {
		site = api.Site{}
	} else {
		site.Zone = at
	}
	r.write(func(tx *db.Tx) { kind.Delete(tx, api.LocalID(kind, "default", "", name, site)) })
}

func proxyID(name string) api.ID { return api.LocalID(api.Dataplanes, "default", "", name, east) }

func dataplane(name, app, address string, ready bool, outbounds ...string) string {
	state := "Ready"
	if !ready {
		state = "NotReady"
	}
	text := fmt.Sprintf("type: Dataplane\nmesh: default\nname: %s\nlabels: {app: %s, kuma.io/workload: %s}\nnetworking:\n  address: %s\n  inbound: [{port: 8080, name: http, protocol: http, state: %s}]\n",
		name, app, app, address, state)
	for i, to := range outbounds {
		if i == 0 {
			text += "  outbound:\n"
		}
		text += fmt.Sprintf("    - {port: %d, backendRef: {kind: MeshService, name: %s, port: 80}}\n", 10_000+i, to)
	}
	return text
}

func service(name string) string {
	return fmt.Sprintf("type: MeshService\nmesh: default\nname: %s\nspec:\n  selector: {dataplaneLabels: {matchLabels: {app: %s}}}\n  ports: [{port: 80, name: http, targetPort: 8080, appProtocol: http}]\n", name, name)
}

func timeout(name, target, span string) string {
	return fmt.Sprintf("type: MeshTimeout\nmesh: default\nname: %s\nspec:\n  to:\n    - targetRef: {%s}\n      default: {connectionTimeout: %s, http: {requestTimeout: %s}}\n", name, target, span, span)
}

func to(name string) string { return "kind: MeshService, labels: {kuma.io/display-name: " + name + "}" }

func cluster(service string) string { return "kri_msvc_default_east__" + service + "_http" }

// plane is a server of discovery and all that feeds it, in one bubble of fake time.
type plane struct {
	*rows
	t      *testing.T
	engine *incr.Engine
	server *xds.Server
	conn   *grpc.ClientConn

	mu      sync.Mutex
	reports map[api.ID]xds.Status // newest of each proxy

	named sync.Map // what resources name, see names
}

const drain = 10 * time.Second

// newPlane must be called in a bubble.
func newPlane(t *testing.T, r *rows) *plane {
	at := bufconn.Listen(1 << 20)
	p := serve(t, r, at, drain)
	var err error
	p.conn, err = grpc.NewClient("passthrough:///zone", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return at.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

// serve serves discovery at a listener until the test ends.
func serve(t *testing.T, r *rows, at net.Listener, drain time.Duration) *plane {
	p := &plane{rows: r, t: t, reports: map[api.ID]xds.Status{}}
	p.engine = incr.New(r.Snapshot(), incr.WithGrace(2))
	p.server = xds.New(xds.Options{
		Engine: p.engine, Instance: "one", Drain: drain, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Admit: func(_ context.Context, h *xds.Hello) (api.ID, error) {
			id := proxyID(h.Name)
			if h.Name == "stranger" {
				return id, errors.New("who are you")
			}
			r.write(func(tx *db.Tx) {
				api.Connections.Put(tx, &api.Connection{Proxy: id, Stream: h.Stream, InWorkDir: true, OTLP: true})
			})
			return id, nil
		},
		Report: func(s xds.Status) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if old, ok := p.reports[s.Proxy]; !ok || old.Stream <= s.Stream {
				p.reports[s.Proxy] = s
			}
		},
	})
	g := grpc.NewServer(grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxConcurrentStreams(1<<20))
	p.server.Register(g)
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = g.Serve(at) })
	all.Go(func() { _ = p.engine.Loop(ctx, r.DB, incr.WithAfter(p.server.Publish)) })
	t.Cleanup(func() {
		cancel()
		g.Stop()
		all.Wait()
	})
	return p
}

// status is the newest report about a proxy.
func (p *plane) status(name string) xds.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reports[proxyID(name)]
}

// model behaves as Envoy does on a delta stream: it subscribes to what the
// configuration names, acknowledges, refuses what it does not like, and keeps
// what it has over reconnects.
type model struct {
	p      *plane
	name   string
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	held   map[wire.Type]map[string]*discoveryv3.Resource
	wants  map[wire.Type]map[string]bool
	log    []*discoveryv3.DeltaDiscoveryResponse
	refuse func(*discoveryv3.DeltaDiscoveryResponse) string
	stall  chan struct{} // while it is open nothing is answered
	faults []string
	err    error
}

func (p *plane) model(name string) *model {
	return &model{p: p, name: name, held: map[wire.Type]map[string]*discoveryv3.Resource{}, wants: map[wire.Type]map[string]bool{}}
}

// connect opens a stream, naming what it holds.
func (m *model) connect() *model {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(m.p.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		m.p.t.Fatal(err)
	}
	m.cancel, m.done, m.err = cancel, make(chan struct{}), nil
	m.p.t.Cleanup(m.disconnect)
	for _, t := range wire.Types() {
		q := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(t), InitialResourceVersions: map[string]string{}}
		if t == wire.Cluster {
			q.Node = &corev3.Node{Id: "default." + m.name}
		}
		for name, res := range m.held[t] {
			q.InitialResourceVersions[name] = res.GetVersion()
		}
		if t != wire.Cluster && t != wire.Listener {
			if len(m.wants[t]) == 0 {
				continue
			}
			q.ResourceNamesSubscribe = slices.Sorted(maps.Keys(m.wants[t]))
		}
		if err := stream.Send(q); err != nil && !errors.Is(err, io.EOF) { // its end is Recv's to tell
			m.p.t.Fatal(err)
		}
	}
	go m.serve(stream, m.done)
	return m
}

func (m *model) disconnect() {
	m.cancel()
	<-m.done
}

func (m *model) serve(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, done chan struct{}) {
	defer close(done)
	for {
		r, err := stream.Recv()
		if err != nil {
			m.mu.Lock()
			m.err = err
			m.mu.Unlock()
			return
		}
		m.mu.Lock()
		stall := m.stall
		m.log = append(m.log, r)
		m.mu.Unlock()
		if stall != nil {
			<-stall
		}
		for _, q := range m.take(r) {
			if err := stream.Send(q); err != nil && !errors.Is(err, io.EOF) {
				return
			}
		}
	}
}

// take applies a message and returns the answer and new subscriptions.
func (m *model) take(r *discoveryv3.DeltaDiscoveryResponse) []*discoveryv3.DeltaDiscoveryRequest {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := wire.Type(r.GetTypeUrl())
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
	if m.refuse != nil {
		if why := m.refuse(r); why != "" {
			answer.ErrorDetail = &rpcstatus.Status{Code: 13, Message: why}
			return []*discoveryv3.DeltaDiscoveryRequest{answer}
		}
	}
	if m.held[t] == nil {
		m.held[t] = map[string]*discoveryv3.Resource{}
	}
	for _, res := range r.GetResources() {
		m.held[t][res.GetName()] = res
	}
	for _, name := range r.GetRemovedResources() {
		delete(m.held[t], name)
	}
	m.check(t)
	// Envoy asks for what a message names before it acknowledges the message.
	return append(m.subscribe(), answer)
}

// subscribe asks for what is named and was not asked for, and no longer for the rest.
func (m *model) subscribe() []*discoveryv3.DeltaDiscoveryRequest {
	wants := map[wire.Type]map[string]bool{wire.Endpoints: {}, wire.Secret: {}, wire.Route: {}}
	for _, t := range []wire.Type{wire.Cluster, wire.Listener} {
		for name, res := range m.held[t] {
			for _, ref := range m.p.names(t, name, res) {
				if wants[ref.typ] != nil {
					wants[ref.typ][ref.name] = true
				}
			}
		}
	}
	var out []*discoveryv3.DeltaDiscoveryRequest
	for _, t := range wire.Types() {
		if wants[t] == nil {
			continue
		}
		q := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(t)}
		for name := range wants[t] {
			if !m.wants[t][name] {
				q.ResourceNamesSubscribe = append(q.ResourceNamesSubscribe, name)
			}
		}
		for name := range m.wants[t] {
			if !wants[t][name] {
				q.ResourceNamesUnsubscribe = append(q.ResourceNamesUnsubscribe, name)
				delete(m.held[t], name)
			}
		}
		m.wants[t] = wants[t]
		if len(q.ResourceNamesSubscribe)+len(q.ResourceNamesUnsubscribe) > 0 {
			out = append(out, q)
		}
	}
	return out
}

// check notes what listeners and routes name and the proxy does not have.
func (m *model) check(after wire.Type) {
	for _, t := range []wire.Type{wire.Listener, wire.Route} {
		for name, res := range m.held[t] {
			for _, ref := range m.p.names(t, name, res) {
				if ref.typ == wire.Cluster && m.held[wire.Cluster][ref.name] == nil {
					m.faults = append(m.faults, fmt.Sprintf("after %s: %s %s names cluster %s, which is not there", after.Short(), t.Short(), name, ref.name))
				}
			}
		}
	}
}

// complete is what is missing when nothing is under way.
func (m *model) complete() {
	m.p.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, fault := range m.faults {
		m.p.t.Errorf("%s: %s", m.name, fault)
	}
	for t, names := range m.wants {
		for name := range names {
			if m.held[t][name] == nil {
				m.p.t.Errorf("%s: %s %s is wanted and not there", m.name, t.Short(), name)
			}
		}
	}
}

// messages returns what arrived since the last call, as "CDS +a +b -c".
func (m *model) messages() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	for _, r := range m.log {
		text := wire.Type(r.GetTypeUrl()).Short()
		var names []string
		for _, res := range r.GetResources() {
			if res.GetResource() == nil {
				names = append(names, " ?"+res.GetName())
			} else {
				names = append(names, " +"+res.GetName())
			}
		}
		for _, name := range r.GetRemovedResources() {
			names = append(names, " -"+name)
		}
		slices.Sort(names)
		for _, n := range names {
			text += n
		}
		out = append(out, text)
	}
	m.log = nil
	return out
}

func (m *model) has(t wire.Type, name string) proto.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	if res := m.held[t][name]; res != nil {
		return decoded(res.GetResource())
	}
	return nil
}

func (m *model) refusing(f func(*discoveryv3.DeltaDiscoveryResponse) string) *model {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = f
	return m
}

// names is what a resource names; of equal resources it is found once.
func (p *plane) names(t wire.Type, name string, res *discoveryv3.Resource) []ref {
	key := ref{t, name + "\x00" + res.GetVersion()}
	if found, ok := p.named.Load(key); ok {
		return found.([]ref)
	}
	found := namedBy(decoded(res.GetResource()))
	p.named.Store(key, found)
	return found
}

func decoded(a *anypb.Any) proto.Message {
	if a == nil {
		return nil
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		panic(err)
	}
	return m
}

type ref struct {
	typ  wire.Type
	name string
}

// namedBy lists the clusters, endpoints, routes and secrets that a message names.
func namedBy(m proto.Message) []ref {
	var out []ref
	var walk func(protoreflect.Message)
	walk = func(x protoreflect.Message) {
		text := func(field string) string {
			return x.Get(x.Descriptor().Fields().ByName(protoreflect.Name(field))).String()
		}
		add := func(t wire.Type, field string) {
			if name := text(field); name != "" {
				out = append(out, ref{t, name})
			}
		}
		switch x.Descriptor().FullName() {
		case "google.protobuf.Any":
			if inner := decoded(x.Interface().(*anypb.Any)); inner != nil {
				walk(inner.ProtoReflect())
			}
			return
		case "envoy.config.route.v3.RouteAction", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "envoy.config.route.v3.RouteAction.RequestMirrorPolicy":
			add(wire.Cluster, "cluster")
		case "envoy.config.route.v3.WeightedCluster.ClusterWeight", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight":
			add(wire.Cluster, "name")
		case "envoy.extensions.filters.network.http_connection_manager.v3.Rds":
			add(wire.Route, "route_config_name")
		case "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig":
			add(wire.Secret, "name")
		}
		x.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsMap():
				if f.MapValue().Message() != nil {
					v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { walk(v.Message()); return true })
				}
			case f.Message() == nil:
			case f.IsList():
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			default:
				walk(v.Message())
			}
			return true
		})
	}
	if c, ok := m.(*clusterv3.Cluster); ok && c.GetType() == clusterv3.Cluster_EDS {
		out = append(out, ref{wire.Endpoints, c.GetName()})
	}
	if m != nil {
		walk(m.ProtoReflect())
	}
	return out
}

// bubble runs a test in fake time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func text(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func shortOf(url string) string { return wire.Type(url).Short() }

func trust(zone string) string {
	return "type: MeshTrust\nmesh: default\nname: identity\nspec:\n  trustDomain: default." + zone + ".mesh.local\n  caBundles: [{type: Pem, pem: {value: " + text(authority) + "}}]\n"
}

// authority is a certificate that signs nothing.
const authority = `-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUdVEsOA3Eat7/LYBoTN548NZL0FIwCgYIKoZIzj0EAwIw
DzENMAsGA1UECgwEdGVzdDAgFw0yNjExMjMyMDU5MjlaGA8yMTI2MTAzMDIwNTky
OVowDzENMAsGA1UECgwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABDou
TRtWYiUUDgdwE1BSjejP3+P9A0rW2cCMj9R+Z2IDvobFSYoafUK/+MLvV/PCxkoJ
BZcpS/lTpcaLVzXZ4JKjUzBRMB0GA1UdDgQWBBTstCFG+Uf/6QJlEaFOrPUPK5Xo
nzAfBgNVHSMEGDAWgBTstCFG+Uf/6QJlEaFOrPUPK5XonzAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIQDc3jeE59rb9KoU60WZOJ/zU3Jk9bcg83Vn
/E6DMgSvOAIgI+mRvpPNirWr82vmlIuWmXW7Qk0CY0+gXL7CVxCaslw=
-----END CERTIFICATE-----
`

func fieldOf(m proto.Message, field string) string {
	x := m.ProtoReflect()
	return x.Get(x.Descriptor().Fields().ByName(protoreflect.Name(field))).String()
}

func nameOf(m proto.Message) string { return fieldOf(m, "name") }

func clusterOf(m proto.Message) string { return fieldOf(m, "cluster_name") }
