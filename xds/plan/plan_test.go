package plan_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

var update = flag.Bool("update", false, "rewrite the expected plans in testdata")

// TestCases runs testdata/*.txtar: rows, and the plan that proxies of zone east get.
//
//	east.yaml, global.yaml, west.yaml   documents, by where they were written
//	proxies.yaml                        who is connected, and with which features
//	NAME.names.yaml                     what the proxy is told of, by type
//	NAME.ir.yaml                        what that means
//	NAME.why.yaml                       which policy decided it
//	NAME.envoy.yaml                     what Envoy gets; Envoy itself has to accept it
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	var all batch
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { runCase(t, file, &all) })
	}
	t.Run("accepted by Envoy", all.validate)
}

func runCase(t *testing.T, file string, all *batch) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	var connected []connected
	out := &txtar.Archive{Comment: archive.Comment}
	want := map[string]string{}
	for _, f := range archive.Files {
		switch f.Name {
		case "east.yaml", "west.yaml", "global.yaml":
			w.documents(t, strings.TrimSuffix(f.Name, ".yaml"), w.fill(string(f.Data)))
		case "proxies.yaml":
			if err := yaml.UnmarshalStrict(f.Data, &connected); err != nil {
				t.Fatal(err)
			}
		default:
			want[f.Name] = string(f.Data)
			continue
		}
		out.Files = append(out.Files, f)
	}
	for _, c := range connected {
		w.connect(c)
	}
	for _, c := range connected {
		names, config := w.plan(t, c.id())
		all.add(strings.TrimSuffix(filepath.Base(file), ".txtar")+"/"+c.Name, config)
		x, err := incr.Peek(w.engine(), plan.Explain.Ref(c.id()))
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		for _, one := range []struct {
			part  string
			value any
		}{{"names", names}, {"ir", x}, {"why", x.Why}, {"envoy", asTree(t, config)}} {
			text := w.hide(asYAML(t, one.value))
			if text == "{}\n" && one.part == "why" {
				continue
			}
			out.Files = append(out.Files, txtar.File{Name: c.Name + "." + one.part + ".yaml", Data: []byte(text)})
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(out), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, f := range out.Files {
		if text, ok := want[f.Name]; ok {
			if diff := cmp.Diff(text, string(f.Data)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", f.Name, diff)
			}
			delete(want, f.Name)
		} else if strings.Count(f.Name, ".") > 1 {
			t.Errorf("%s is new", f.Name)
		}
	}
	for name := range want {
		t.Errorf("%s: nothing made it", name)
	}
}

// workDir is where proxies of the cases that do not run in it have it.
const workDir = "/run/dp"

// connected is a proxy and what it says of itself.
type connected struct {
	Name, Mesh                string
	AdminPort, ReadinessPort  uint32
	AdminAddress, AdminSocket string
	ReusePort                 bool
	// What it said of what is beside it, see [api.Connection].
	WorkDir, HostIP, SystemCA string
	MetricsCert, MetricsKey   string
	InWorkDir, LogPipe, OTLP  bool
	// Redirection and what follows: see [api.Connection].
	Redirection                           *api.Redirection
	BindOutbounds, StrictInbounds, NoIPv6 bool
	// Certificate: one is issued to it.
	Certificate bool
	// Administered: it has a certificate for its administration.
	Administered bool
	// Away: its Dataplane is not there.
	Away bool
}

func (c connected) id() api.ID {
	return api.LocalID(api.Dataplanes, c.mesh(), "", c.Name, east)
}

func (c connected) mesh() string {
	if c.Mesh == "" {
		return "default"
	}
	return c.Mesh
}

var east = api.Site{Zone: "east", Federated: true, Env: "universal"}

// world is the database of a control plane of zone east.
type world struct {
	db       *db.DB
	files    map[string]string // placeholders
	sequence int
	live     *incr.Engine
}

func newWorld(t testing.TB) *world {
	w := &world{db: db.New(api.Schema), files: map[string]string{}}
	for _, name := range []string{"ca.pem", "leaf.pem", "leaf.key"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		w.files["${"+name+"}"] = string(text)
	}
	w.write(func(tx *db.Tx) {
		api.SettingsTable.Put(tx, &api.Settings{Site: east, InternalCIDRs: []string{"127.0.0.1/32", "::1/128"}})
	})
	return w
}

func (w *world) write(f func(*db.Tx)) {
	if _, err := w.db.Write(func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		panic(err)
	}
	w.live = nil
}

// engine is a fresh one for each state.
func (w *world) engine() *incr.Engine {
	if w.live == nil {
		w.live = incr.New(w.db.Snapshot())
	}
	return w.live
}

func (w *world) fill(text string) string {
	for name, value := range w.files {
		quoted, _ := json.Marshal(value)
		text = strings.ReplaceAll(text, name, string(quoted))
		text = strings.ReplaceAll(text, strings.TrimSuffix(name, "}")+".base64}", base64.StdEncoding.EncodeToString([]byte(value)))
	}
	return text
}

// hide is the inverse of fill, for text and for bytes.
func (w *world) hide(text string) string {
	for name, value := range w.files {
		text = strings.ReplaceAll(text, base64.StdEncoding.EncodeToString([]byte(value)), name)
	}
	return text
}

// documents enters what was written at a site: this zone, another one, or global.
func (w *world) documents(t *testing.T, at, text string) {
	t.Helper()
	for _, one := range strings.Split(text, "\n---\n") {
		body, err := yaml.YAMLToJSON([]byte(one))
		if err != nil {
			t.Fatal(err)
		}
		w.put(t, at, body)
	}
}

func (w *world) put(t testing.TB, at string, body []byte) api.ID {
	t.Helper()
	var r api.Report
	doc, kind := api.ParseDocument(body, &r)
	if err := r.Err(); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	row := rowOf(kind, doc, at, w.sequence, &r)
	w.sequence++
	if err := r.Err(); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	w.write(func(tx *db.Tx) { kind.Put(tx, row) })
	return row.Head().ID
}

func rowOf(kind api.AnyKind, doc api.Document, at string, sequence int, r *api.Report) api.Row {
	site := east
	if at != "east" {
		site = api.Site{Zone: at, Federated: true, Env: "universal"}
	}
	source := api.Global
	if at == "global" {
		site = api.Site{}
	}
	if at == "east" {
		source = ""
	}
	m := api.Meta{ID: api.LocalID(kind, doc.Mesh, "", doc.Name, site), Source: source, Created: time.Unix(int64(sequence), 0).UTC()}
	m.Labels = api.ComputeLabels(kind, m.ID, doc.Labels, site)
	if source != "" {
		m.Labels[api.LabelOrigin] = api.OriginGlobal
	}
	m.Core = api.CoreName(kind, &m)
	return kind.Decode(m, doc.Spec, true, r)
}

func (w *world) connect(c connected) {
	w.write(func(tx *db.Tx) {
		api.Connections.Put(tx, &api.Connection{
			Proxy: c.id(), AdminPort: c.AdminPort, ReadinessPort: c.ReadinessPort, AdminAddress: c.AdminAddress,
			AdminSocket: c.AdminSocket, ReusePort: c.ReusePort,
			WorkDir: c.WorkDir, InWorkDir: c.InWorkDir, LogPipe: c.LogPipe, OTLP: c.OTLP, HostIP: c.HostIP, SystemCA: c.SystemCA,
			MetricsCert: c.MetricsCert, MetricsKey: c.MetricsKey,
			Redirection: c.Redirection, BindOutbounds: c.BindOutbounds, StrictInbounds: c.StrictInbounds, NoIPv6: c.NoIPv6,
		})
	})
	if c.Administered {
		who, _ := incr.Peek(w.engine(), plan.IdentityOf.Ref(c.id()))
		w.write(func(tx *db.Tx) {
			api.AdminLeaves.Put(tx, &api.AdminLeaf{
				Proxy: c.id(), Name: who.Admin, Chain: w.files["${leaf.pem}"], Key: w.files["${leaf.key}"], CA: w.files["${ca.pem}"],
			})
		})
	}
	if !c.Certificate {
		return
	}
	who, _ := incr.Peek(w.engine(), plan.IdentityOf.Ref(c.id()))
	w.write(func(tx *db.Tx) {
		api.Leaves.Put(tx, &api.Leaf{Proxy: c.id(), Identity: who.Of, SPIFFE: who.SPIFFE, Chain: w.files["${leaf.pem}"], Key: w.files["${leaf.key}"]})
	})
}

// plan is the names and messages of a proxy, by type and name.
func (w *world) plan(t *testing.T, id api.ID) (names map[string][]string, config map[string]map[string]proto.Message) {
	t.Helper()
	e := w.engine()
	p, err := incr.Peek(e, plan.Proxy.Ref(id))
	if err != nil {
		t.Fatal(err)
	}
	names, config = map[string][]string{}, map[string]map[string]proto.Message{}
	for _, typ := range wire.Types() {
		config[typ.Short()] = map[string]proto.Message{}
		p.All(typ, func(name string, ref plan.Ref) bool {
			res, err := incr.Peek(e, ref)
			if err != nil {
				t.Errorf("%s %s: %v", typ.Short(), name, err)
			}
			if res == nil {
				names[typ.Short()] = append(names[typ.Short()], name+" (absent)")
				return true
			}
			names[typ.Short()] = append(names[typ.Short()], name)
			if res.Name != name || res.Type != typ {
				t.Errorf("%s %q is %s %q", typ.Short(), name, res.Type.Short(), res.Name)
			}
			m, err := res.Message()
			if err != nil {
				t.Fatal(err)
			}
			config[typ.Short()][name] = m
			return true
		})
		slices.Sort(names[typ.Short()])
	}
	return names, config
}

func asTree(t *testing.T, config map[string]map[string]proto.Message) any {
	tree := map[string]map[string]json.RawMessage{}
	for typ, list := range config {
		for name, m := range list {
			text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if tree[typ] == nil {
				tree[typ] = map[string]json.RawMessage{}
			}
			tree[typ][name] = text
		}
	}
	return tree
}

func asYAML(t *testing.T, v any) string {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// batch gathers everything that the cases expect, for one run of Envoy.
type batch struct {
	static bootstrapv3.Bootstrap_StaticResources
	port   uint32
}

// add takes the configuration under names and ports of its own. What cannot stand
// alone in a static configuration stands inside something that can.
func (b *batch) add(prefix string, config map[string]map[string]proto.Message) {
	for _, list := range config {
		for name, m := range list {
			b.port++
			name = prefix + "/" + name
			switch m := proto.Clone(m).(type) {
			case *listenerv3.Listener:
				m.Name = name
				m.Address = b.address()
				b.static.Listeners = append(b.static.Listeners, m)
			case *clusterv3.Cluster:
				// A listener that traces is refused if its collector is not there.
				known := func(c *clusterv3.Cluster) bool { return c.Name == m.Name }
				if !strings.HasPrefix(m.Name, "system_") || slices.ContainsFunc(b.static.Clusters, known) {
					m.Name = name
				}
				b.static.Clusters = append(b.static.Clusters, m)
			case *endpointv3.ClusterLoadAssignment:
				b.static.Clusters = append(b.static.Clusters, &clusterv3.Cluster{
					Name: name + "/endpoints", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
					ConnectTimeout: durationpb.New(time.Second), LoadAssignment: m,
				})
			case *routev3.RouteConfiguration:
				b.static.Listeners = append(b.static.Listeners, &listenerv3.Listener{
					Name: name + "/routes", Address: b.address(),
					FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
						Name: "envoy.filters.network.http_connection_manager",
						ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(&hcmv3.HttpConnectionManager{
							StatPrefix: "routes", RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: m},
							HttpFilters: []*hcmv3.HttpFilter{{
								Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&routerv3.Router{})},
							}},
						})},
					}}}},
				})
			case *tlsv3.Secret:
				m.Name = name
				b.static.Secrets = append(b.static.Secrets, m)
			}
		}
	}
}

func (b *batch) address() *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 10_000 + b.port},
	}}}
}

func packed(m proto.Message) *anypb.Any {
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
	ads, err := envoy.Cluster(ir.Cluster{
		Name: "system_ads", Protocol: ir.HTTP2, ConnectTimeout: ir.Span(time.Second),
		Static: []ir.Locality{{Endpoints: []ir.Endpoint{{Address: ir.Address{Host: "127.0.0.1", Port: 9}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.static.Clusters = append(b.static.Clusters, ads)
	text, err := protojson.Marshal(&bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: "test", Cluster: "test"}, StaticResources: &b.static,
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "system_ads"},
			}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()                                           // the work directory of all
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil { // certificates that proxies have as files
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte(workDir), []byte(dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, binary, "--mode", "validate", "-l", "warning", "-c", file)
	command.Dir = dir
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for line := range bytes.Lines(output) {
		if strings.Contains(string(line), "deprecated") {
			t.Errorf("%s", line)
		}
	}
}

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
