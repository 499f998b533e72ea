package inspect_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

const twoServices = `
type: Dataplane
mesh: default
name: web
labels: {app: web}
networking:
  address: 10.0.0.1
  outbound:
    - {port: 10080, backendRef: {kind: MeshService, name: api, port: 80}}
    - {port: 10081, backendRef: {kind: MeshService, name: api, port: 81}}
    - {port: 10082, backendRef: {kind: MeshService, name: other, port: 80}}
---
type: DataplaneInsight
mesh: default
name: web
---
type: MeshService
mesh: default
name: api
labels: {team: a}
spec:
  ports: [{port: 80, name: http, appProtocol: http}, {port: 81, appProtocol: http}]
---
type: MeshService
mesh: default
name: other
labels: {team: a}
spec:
  ports: [{port: 80, name: http, appProtocol: http}]`

// drawTimeout draws a policy about calls.
func drawTimeout(t *rapid.T, name string) (at string, body []byte) {
	object := func(pairs ...any) map[string]any {
		out := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i].(string)] = pairs[i+1]
		}
		return out
	}
	pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, what) }
	at = pick("at", "east", "global", "west")
	labels := object()
	for key, values := range map[string][]string{api.LabelEffect: {"", "", "shadow"}, api.LabelPolicyRole: {"", "producer", "consumer"}} {
		if v := pick(key, values...); v != "" {
			labels[key] = v
		}
	}
	spec := object()
	if pick("top", "Mesh", "Dataplane") == "Dataplane" {
		spec["targetRef"] = object("kind", "Dataplane", "labels", object("app", pick("app", "web", "other")))
	}
	var to []any
	for range rapid.IntRange(1, 3).Draw(t, "to") {
		ref := object("kind", "Mesh")
		if pick("kind", "Mesh", "MeshService") == "MeshService" {
			by := object(api.LabelDisplayName, pick("service", "api", "other"))
			if rapid.Bool().Draw(t, "team") {
				by = object("team", "a")
			}
			ref = object("kind", "MeshService", "labels", by)
			if section := pick("section", "", "http", "81"); section != "" {
				ref["sectionName"] = section
			}
		}
		http := object("requestTimeout", pick("request", "1s", "2s", "3s"))
		if rapid.Bool().Draw(t, "stream") {
			http["streamIdleTimeout"] = pick("stream=", "4s", "5s")
		}
		conf := object("http", http)
		if rapid.Bool().Draw(t, "connect") {
			conf["connectionTimeout"] = pick("connect=", "6s", "7s")
		}
		if rapid.Bool().Draw(t, "idle") {
			conf["idleTimeout"] = pick("idle=", "8s", "9s")
		}
		to = append(to, object("targetRef", ref, "default", conf))
	}
	spec["to"] = to
	body, err := json.Marshal(object("type", "MeshTimeout", "mesh", "default", "name", name, "labels", labels, "spec", spec))
	if err != nil {
		t.Fatal(err)
	}
	return at, body
}

// config is what the test reads of a configuration.
type config struct {
	XDS struct {
		Clusters map[string]struct {
			ConnectTimeout string
			Options        map[string]struct {
				Common struct{ IdleTimeout string } `json:"commonHttpProtocolOptions"`
			} `json:"typedExtensionProtocolOptions"`
		} `json:"type.googleapis.com/envoy.config.cluster.v3.Cluster"`
		Routes map[string]struct {
			VirtualHosts []struct {
				Routes []struct {
					Route struct{ Timeout, IdleTimeout string }
				}
			}
		} `json:"type.googleapis.com/envoy.config.route.v3.RouteConfiguration"`
	}
}

type timeouts struct {
	ConnectionTimeout, IdleTimeout string
	HTTP                           struct{ RequestTimeout, StreamIdleTimeout string }
}

// What _rules shows for a destination is what the proxy gets, with shadow
// policies and without; and the difference is what it says.
func TestRulesAreWhatTheProxyGets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, "east")
		w.documents("east", twoServices)
		for i := range rapid.IntRange(0, 6).Draw(t, "policies") {
			at, body := drawTimeout(t, fmt.Sprint("p", i))
			w.put(at, body)
		}
		before := w.db.Snapshot()
		for _, shadow := range []string{"false", "true"} {
			w.agree(shadow)
		}
		type answer struct{ XDS, Diff json.RawMessage }
		now, then := read[answer](w, proxyPath+"_config?include=diff"), read[answer](w, proxyPath+"_config?shadow=true&include=diff")
		if string(now.Diff) != string(then.Diff) {
			t.Fatalf("two differences: %s, %s", now.Diff, then.Diff)
		}
		patch, err := jsonpatch.DecodePatch(now.Diff)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := patch.Apply(now.XDS); err != nil || !jsonpatch.Equal(got, then.XDS) {
			t.Fatalf("the difference %s makes %s (%v)\nwant %s", now.Diff, got, err, then.XDS)
		}
		if w.db.Snapshot() != before {
			t.Fatal("inspection wrote to the database")
		}
	})
}

const proxyPath = "/meshes/default/dataplanes/web/"

func (w *world) agree(shadow string) {
	w.t.Helper()
	type body struct {
		Rules []struct {
			ToResourceRules []struct {
				ResourceMeta        struct{ Type, Name string }
				ResourceSectionName string
				Conf                []timeouts
			}
		}
	}
	type place struct{ kind, name, section string }
	said := map[place]timeouts{}
	for _, kind := range read[body](w, proxyPath+"_rules?shadow="+shadow).Rules {
		for _, r := range kind.ToResourceRules {
			said[place{r.ResourceMeta.Type, r.ResourceMeta.Name, r.ResourceSectionName}] = r.Conf[0]
		}
	}
	got := read[config](w, proxyPath+"_config?shadow="+shadow)
	for _, to := range []place{{"MeshService", "api", "http"}, {"MeshService", "api", "81"}, {"MeshService", "other", "http"}} {
		var want timeouts
		for _, at := range []place{to, {to.kind, to.name, ""}, {"Mesh", "default", ""}} {
			if conf, ok := said[at]; ok {
				want = conf
				break
			}
		}
		name := "kri_msvc_default_east__" + to.name + "_" + to.section
		cluster, route := got.XDS.Clusters[name], got.XDS.Routes[name].VirtualHosts[0].Routes[0].Route
		idle := ""
		for _, o := range cluster.Options {
			idle = o.Common.IdleTimeout
		}
		for _, one := range []struct{ what, got, want string }{
			{"connectTimeout", cluster.ConnectTimeout, cmp.Or(want.ConnectionTimeout, "5s")},
			{"idleTimeout", idle, cmp.Or(want.IdleTimeout, "1h")},
			{"timeout", route.Timeout, cmp.Or(want.HTTP.RequestTimeout, "15s")},
			{"stream's idleTimeout", route.IdleTimeout, cmp.Or(want.HTTP.StreamIdleTimeout, "30m")},
		} {
			a, err := time.ParseDuration(one.got)
			b, err2 := time.ParseDuration(one.want)
			if err = cmp.Or(err, err2); err != nil || a != b {
				w.t.Fatalf("shadow=%s: %s of %s is %s (%v), the rules say %s", shadow, one.what, name, one.got, err, one.want)
			}
		}
	}
}

func TestKeysAreNotShown(t *testing.T) {
	w := newWorld(t, "east")
	w.documents("east", `type: Dataplane
mesh: default
name: web
networking: {address: 10.0.0.1, inbound: [{port: 8080, protocol: http}]}
---
type: DataplaneInsight
mesh: default
name: web
---
type: MeshIdentity
mesh: default
name: one
spec:
  selector: {dataplane: {matchLabels: {}}}
  spiffeID: {trustDomain: mesh.local, path: /web}
  provider: {type: Bundled, bundled: {insecureAllowSelfSigned: true, autogenerate: {enabled: true}}}`)
	id := api.LocalID(api.Dataplanes, "default", "", "web", siteOf("east"))
	spiffe := read[struct{ SPIFFEID string }](w, proxyPath+"_layout").SPIFFEID
	if spiffe != "spiffe://mesh.local/web" {
		t.Fatalf("SPIFFE ID %q", spiffe)
	}
	w.write(func(tx *db.Tx) {
		api.Leaves.Put(tx, &api.Leaf{
			Proxy: id, Identity: api.LocalID(api.MeshIdentities, "default", "", "one", siteOf("east")),
			SPIFFE: spiffe, Chain: "the chain", Key: "the key",
		})
	})
	type secret struct {
		TLSCertificate struct {
			CertificateChain, PrivateKey struct{ InlineBytes []byte }
		}
	}
	got := read[struct {
		XDS struct {
			Secrets map[string]secret `json:"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"`
		}
	}](w, proxyPath+"_config").XDS.Secrets["kri_mid_default_east__one_"].TLSCertificate
	if string(got.CertificateChain.InlineBytes) != "the chain" || string(got.PrivateKey.InlineBytes) != "[redacted]" {
		t.Errorf("chain %q, key %q", got.CertificateChain.InlineBytes, got.PrivateKey.InlineBytes)
	}
}
