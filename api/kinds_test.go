package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

var zone = api.Site{Zone: "east", Env: "universal"}

// read parses, decodes strictly and checks a YAML document as a door for people does.
func read(t testing.TB, text string) (api.Row, api.Document, []string) {
	t.Helper()
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var r api.Report
	d, k := api.ParseDocument(body, &r)
	if k == nil {
		return nil, d, lines(&r)
	}
	api.CheckMeta(k, d, zone, &r)
	row := k.Decode(api.Meta{ID: api.LocalID(k, d.Mesh, "", d.Name, zone), Labels: d.Labels}, d.Spec, true, &r)
	return row, d, lines(&r)
}

func lines(r *api.Report) []string {
	var out []string
	for _, f := range r.Faults() {
		out = append(out, f.String())
	}
	return out
}

func TestGoodDocuments(t *testing.T) {
	for _, text := range []string{
		`{type: Mesh, name: shop, skipCreatingInitialPolicies: [MeshRetry]}`,
		`{type: Mesh, name: shop, creationTime: "0001-01-01T00:00:00Z", kri: kri_m____shop_}`,
		`{type: Zone, name: east, enabled: false}`,
		`{type: Secret, mesh: shop, name: key, data: aGVsbG8=}`,
		`{type: GlobalSecret, name: key, data: aGVsbG8=}`,
		`
type: Dataplane
mesh: shop
name: cart-01
labels: {kuma.io/workload: cart, app: cart}
networking:
  address: 10.1.0.7
  admin: {port: 9901}
  inbound:
    - {name: http, port: 8080, servicePort: 9080, protocol: HTTP}
    - {port: "81", state: 1, serviceProbe: {interval: 10s, timeout: 0.250s, healthyThreshold: 1, tcp: {}}}
  outbound:
    - {port: 13306, backendRef: {kind: MeshService, name: mysql, port: 3306}}
    - {port: 13307, backendRef: {kind: MeshExternalService, labels: {app: mail}}}
  transparentProxying:
    redirectPortInbound: 15006
    ipFamilyMode: IPv4
    reachableBackends: {refs: [{kind: MeshService, name: a, namespace: b}, {kind: MeshService, labels: {a: b}}]}`,
		`
type: Dataplane
mesh: shop
name: zone-proxy-01
networking:
  address: proxy.example.com
  listeners:
    - {type: ZoneIngress, name: zi, address: 10.1.0.9, port: 10001}
    - {type: 2, name: ze, address: 10.1.0.9, port: 10002}`,
		`{type: Dataplane, mesh: shop, name: gw, networking: {address: 10.0.0.1, gateway: {tags: {kuma.io/service: gw, kuma.io/protocol: tcp}}}}`,
		`{type: Dataplane, mesh: shop, name: gw, networking: {address: "::1", gateway: {}}}`,
		`{type: MeshService, mesh: shop, name: cart, spec: {}}`,
		`{type: MeshService, mesh: shop, name: cart, spec: {selector: {dataplaneLabels: {matchLabels: {app: cart}}}, ports: [{port: 80, targetPort: http, appProtocol: http}, {port: 81, targetPort: 8081}]}}`,
		`{type: MeshMultiZoneService, mesh: shop, name: cart, spec: {selector: {meshService: {matchLabels: {app: cart}}}, ports: [{port: 80}]}}`,
		`{type: MeshZoneAddress, mesh: shop, name: cart, spec: {address: zone.example.com, port: 10001}}`,
		`{type: MeshIdentity, mesh: shop, name: identity, spec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: {insecureAllowSelfSigned: true, autogenerate: {enabled: true}}}}}`,
		`{type: MeshIdentity, mesh: shop, name: identity, spec: {}}`,
		`{type: MeshIdentity, mesh: shop, name: identity, spec: {spiffeID: {trustDomain: '{{ .Mesh }}.example.com', path: '/app/{{ label "app" }}/{{ if eq .Namespace "a" }}a{{ else }}{{ .Workload }}{{ end }}'}, provider: {type: Spire, spire: {agent: {timeout: 2s}}}}}`,
		`{type: MeshIdentity, mesh: shop, name: identity, spec: {provider: {type: Bundled, bundled: {ca: {certificate: {type: Secret, secretRef: {kind: Secret, name: ca}}, privateKey: {type: File, file: {path: /etc/key.pem}}}}}}}`,
		`{type: HostnameGenerator, name: local, spec: {selector: {meshService: {matchLabels: {a: b}}}, template: '{{ .DisplayName }}.{{ label "team" }}.mesh.local'}}`,
	} {
		row, d, faults := read(t, text)
		if len(faults) > 0 {
			t.Errorf("%s\n\t%s", text, strings.Join(faults, "\n\t"))
			continue
		}
		var want bytes.Buffer
		if err := json.Compact(&want, d.Spec); err != nil || !bytes.Equal(row.Raw(), want.Bytes()) {
			t.Errorf("%s\nwritten %s\nkept    %s", text, want.Bytes(), row.Raw())
		}
		k, _ := api.ByName(d.Type)
		var loose api.Report
		if k.Decode(*row.Head(), row.Raw(), false, &loose); loose.Unknown() != nil {
			t.Errorf("%s: unknown %v", text, loose.Unknown())
		}
		// What the control plane writes itself reads as the same.
		own, err := json.Marshal(row.Body())
		var r api.Report
		again := k.Decode(*row.Head(), own, true, &r)
		if err != nil || r.Err() != nil {
			t.Errorf("%s\nencodes to %s: %v %v", text, own, err, r.Err())
		} else if twice, _ := json.Marshal(again.Body()); !bytes.Equal(own, twice) {
			t.Errorf("%s\nonce  %s\ntwice %s", text, own, twice)
		}
	}
}

func TestBadDocuments(t *testing.T) {
	dataplane := func(networking string) string {
		return "{type: Dataplane, mesh: shop, name: a, networking: {" + networking + "}}"
	}
	identity := func(spec string) string {
		return "{type: MeshIdentity, mesh: shop, name: a, spec: {" + spec + "}}"
	}
	for _, c := range []struct {
		text string
		want []string
	}{
		// The envelope.
		{`{name: a}`, []string{"type: cannot be empty"}},
		{`{type: MeshTimeuot, name: a}`, []string{`type: unknown kind "MeshTimeuot"; did you mean "MeshTimeout"?`}},
		{`{type: MeshTimeout, mesh: shop, name: a, Spec: {}}`, []string{
			".spec in body is required", `Spec: unknown field; did you mean "spec"?`, "spec: at least one of 'to' or 'rules' has to be defined"}},
		{`{type: Mesh, name: "9shop"}`, []string{"name: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123')"}},
		{`{type: Mesh, name: shop, labels: {kuma.io/origin: moon}}`, []string{`labels["kuma.io/origin"]: unknown resource origin "moon"`}},
		{`{type: Secret, mesh: SHOP, name: key, data: "%"}`, []string{
			"mesh: invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols.", "data: must be bytes in base64"}},

		// Names that are nearly right.
		{dataplane(`address: 10.0.0.1, transparent_proxying: {}`), []string{
			`networking.transparent_proxying: unknown field; did you mean "transparentProxying"?`}},
		{dataplane(`address: 10.0.0.1, inbound: [{port: 80, prot: http}]`), []string{
			`networking.inbound[0].prot: unknown field; did you mean "port"?`}},
		{`{type: MeshZoneAddress, mesh: shop, name: a, spec: {host: a, address: b, port: 1}}`, []string{
			"spec.host: unknown field; known here: address, port"}},

		// Dataplane.
		{`{type: Dataplane, mesh: shop, name: a}`, []string{"networking: in body is required"}},
		{dataplane(`inbound: []`), []string{"networking.address: address can't be empty"}},
		{dataplane(`address: 0.0.0.0`), []string{"networking.address: must not be 0.0.0.0 or ::"}},
		{dataplane(`address: "a b"`), []string{"networking.address: address has to be valid IP address or domain name"}},
		{dataplane(`address: 10.0.0.1, inbound: [{}, {port: 0}, {port: 65536}, {port: x}, {port: 1.5}]`), []string{
			"networking.inbound[0].port: in body is required",
			"networking.inbound[1].port: in body should be greater than or equal to 1",
			"networking.inbound[2].port: in body should be less than or equal to 65535",
			`networking.inbound[3].port: in body must be of type integer: "number"`,
			`networking.inbound[4].port: in body must be of type integer: "number"`}},
		{dataplane(`address: 10.0.0.1, inbound: [{port: 80, address: host, protocol: smtp, serviceProbe: {interval: 0s, healthyThreshold: 0}}]`), []string{
			"networking.inbound[0].address: address has to be valid IP address",
			`networking.inbound[0].protocol: has an invalid value "smtp". Allowed values: grpc, http, http2, tcp`,
			"networking.inbound[0].serviceProbe.interval: must be greater than 0",
			"networking.inbound[0].serviceProbe.healthyThreshold: must be greater than 0"}},
		{dataplane(`address: 10.0.0.1, inbound: [{port: 80, state: Sleeping, serviceProbe: {interval: 1m}}]`), []string{
			"networking.inbound[0].state: in body should be one of [Ready NotReady Ignored]",
			`networking.inbound[0].serviceProbe.interval: invalid duration "1m": write it in seconds, such as "10s" or "0.250s"`}},
		{dataplane(`address: 10.0.0.1, outbound: [{port: 80}, {port: 80, backendRef: {kind: Service}}, {port: 80, backendRef: {kind: MeshService}}]`), []string{
			"networking.outbound[0].backendRef: in body is required",
			"networking.outbound[1].backendRef.kind: in body should be one of [MeshService MeshExternalService MeshMultiZoneService]"}},
		{dataplane(`address: 10.0.0.1, outbound: [{port: 80, backendRef: {kind: MeshService}}]`), []string{
			"networking.outbound[0].backendRef: either 'name' or 'labels' must be set",
			"networking.outbound[0].backendRef.port: port must be in the range [1, 65535]"}},
		{dataplane(`address: 127.0.0.1, admin: {port: 80}, inbound: [{port: 80}], outbound: [{port: 80, backendRef: {kind: MeshService, name: a, port: 1}}]`), []string{
			"networking.admin.port: must differ from the port of inbound 80 on 127.0.0.1",
			"networking.admin.port: must differ from the port of outbound[0] on 127.0.0.1"}},
		{dataplane(`address: 10.0.0.1, gateway: {tags: {kuma.io/protocol: http, a: ""}}, inbound: [{port: 80}], listeners: [{type: ZoneEgress, address: 10.0.0.1, port: 81}]`), []string{
			`networking.gateway.tags["kuma.io/service"]: tag has to exist`,
			`networking.gateway.tags["a"]: tag value cannot be empty`,
			`networking.gateway.tags["kuma.io/protocol"]: other values than TCP are not allowed`,
			"networking.inbound: inbound cannot be defined for gateways",
			"networking.listeners: listeners cannot be defined for gateways"}},
		{dataplane(`address: 10.0.0.1, gateway: {type: BUILTIN}`), []string{"networking.gateway.type: in body should be one of [DELEGATED]"}},
		{dataplane(`address: 10.0.0.1, listeners: [{type: Unspecified, port: 1}]`), []string{
			"networking.listeners[0].type: in body should be one of [ZoneIngress ZoneEgress]"}},
		{dataplane(`address: 10.0.0.1, inbound: [{port: 80}], listeners: [{type: ZoneIngress, address: 10.0.0.1, port: 80, name: i}, {type: ZoneIngress, address: 10.0.0.1, port: 81, name: i}, {type: ZoneEgress, address: 10.0.0.1, port: 81}, {type: ZoneEgress, address: 10.0.0.1, port: 81, name: e}, {type: ZoneEgress, port: 82}]`), []string{
			"networking.listeners[0].port: 10.0.0.1:80 collides with an inbound listener",
			`networking.listeners[1].name: name "i" is already used by another inbound or listener`,
			"networking.listeners[2].port: 10.0.0.1:81 is used by listeners of different types",
			"networking.listeners[3].port: 10.0.0.1:81 is already used by another listener",
			"networking.listeners[4].address: address can't be empty"}},
		{dataplane(`address: 10.0.0.1, transparentProxying: {reachableBackends: {refs: [{kind: MeshService}, {kind: MeshService, name: a, labels: {b: c}}, {kind: MeshService, namespace: ns, labels: {b: c}}]}}`), []string{
			"networking.transparentProxying.reachableBackends.refs[0]: either 'name' or 'labels' must be set",
			"networking.transparentProxying.reachableBackends.refs[1]: either 'name' or 'labels' must be set, not both",
			"networking.transparentProxying.reachableBackends.refs[2].name: must be set when namespace is set"}},

		// Services.
		{`{type: MeshService, mesh: shop, name: a, spec: {selector: {dataplaneRef: {name: a}, dataplaneLabels: {}}}}`, []string{
			"spec.selector: must specify only one of: dataplaneRef or dataplaneLabels"}},
		{`{type: MeshService, mesh: shop, name: a, spec: {ports: [{appProtocol: smtp, targetPort: true}]}}`, []string{
			"spec.ports[0].port: in body is required",
			"spec.ports[0].targetPort: must be an integer or a string",
			"spec.ports[0].appProtocol: in body should be one of [tcp http http2 grpc]"}},
		{`{type: MeshService, mesh: shop, name: a, spec: {ports: [{port: "80"}]}}`, []string{`spec.ports[0].port: in body must be of type integer: "string"`}},
		{`{type: MeshMultiZoneService, mesh: shop, name: a, spec: {ports: []}}`, []string{
			"spec.selector: in body is required", "spec.ports: in body should have at least 1 items"}},
		{`{type: MeshMultiZoneService, mesh: shop, name: a, spec: {selector: {meshService: {}}, ports: [{port: 80}]}}`, []string{
			"spec.selector.meshService.matchLabels: cannot be empty"}},
		{`{type: MeshZoneAddress, mesh: shop, name: a, spec: {address: "::", port: 1}}`, []string{"spec.address: must not be 0.0.0.0 or ::"}},

		// Identity and trust.
		{identity(`provider: {}`), []string{"spec.provider.type: in body is required"}},
		{identity(`provider: {type: Bundled, bundled: {}}`), []string{"spec.provider.bundled.ca: must be defined"}},
		{identity(`provider: {type: Bundled}`), []string{"spec.provider.bundled: must be defined"}},
		{identity(`provider: {type: Spire}`), []string{"spec.provider.spire: must be defined"}},
		{identity(`provider: {type: Bundled, bundled: {autogenerate: {enabled: true}, ca: {}, certificateParameters: {expiry: -1s}}}`), []string{
			"spec.provider.bundled.ca: shouldn't be defined once using autogenerated",
			"spec.provider.bundled.certificateParameters.expiry: must not be negative when defined"}},
		{identity(`provider: {type: Bundled, bundled: {ca: {certificate: {type: Secret, file: {path: ../a}}}}}`), []string{
			"spec.provider.bundled.ca.certificate.file: must not be defined with type Secret",
			"spec.provider.bundled.ca.certificate.secretRef: must be defined",
			"spec.provider.bundled.ca.certificate.file.path: must be an absolute path without '..'",
			"spec.provider.bundled.ca.privateKey: must be defined"}},
		{identity(`spiffeID: {trustDomain: "UPPER", path: "no-slash"}`), []string{
			"spec.spiffeID.trustDomain: must render to a trust domain: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
			"spec.spiffeID.path: must render to the path of a SPIFFE ID: path must have a leading slash"}},
		{identity(`spiffeID: {trustDomain: "{{ range 9 }}{{ end }}", path: '/{{ "a" | js }}'}`), []string{
			"spec.spiffeID.trustDomain: must be a Go template: {{range 9}}{{end}} is not available",
			"spec.spiffeID.path: must be a Go template: js is not available"}},
		{`{type: MeshTrust, mesh: shop, name: a, spec: {trustDomain: "a b", caBundles: []}}`, []string{"spec.caBundles: in body should have at least 1 items"}},
		{`{type: MeshTrust, mesh: shop, name: a, spec: {trustDomain: "a b", caBundles: [{type: Pem, pem: {value: none}}]}}`, []string{
			"spec.trustDomain: must be a trust domain: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
			"spec.caBundles[0].pem.value: must be one or more certificates in PEM"}},
		{`{type: MeshTrust, mesh: shop, name: a, spec: {trustDomain: a, caBundles: [{type: Pem, pem: {value: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}}]}}`, []string{
			"spec.caBundles[0].pem.value: must not contain a private key"}},
		{`{type: HostnameGenerator, name: a, spec: {template: "{{ .DisplayName }}!"}}`, []string{
			"spec.selector: exact one selector (meshService, meshExternalService, meshMultiZoneService) must be defined",
			`spec.template: must render to a lowercase RFC 1123 subdomain, got "x!"`}},
	} {
		_, _, faults := read(t, c.text)
		if !slices.Equal(faults, c.want) {
			t.Errorf("%s\ngot\n\t%s\nwant\n\t%s", c.text, strings.Join(faults, "\n\t"), strings.Join(c.want, "\n\t"))
		}
	}
}

// Whoever is not a person may send fields from the future: they are kept, named
// and have no effect.
func TestUnknownFieldsAreKept(t *testing.T) {
	spec := json.RawMessage(`{"networking":{"address":"10.0.0.1","Inbound":[{"port":"x"}],"inbound":[{"port":80,"colour":"red"}]},"mtls":null,"future":{"a":1}}`)
	var r api.Report
	row := api.Dataplanes.Decode(api.Meta{}, spec, false, &r)
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	if !bytes.Equal(row.Raw(), spec) {
		t.Errorf("kept %s", row.Raw())
	}
	if in := row.Body().(*api.Dataplane).Networking.Inbound; len(in) != 1 || in[0].Port != 80 || in[0].State != "Ready" {
		t.Errorf("inbounds %+v", in)
	}
	want := []string{"future", "networking.Inbound", "networking.inbound[0].colour"}
	if got := r.Unknown(); !slices.Equal(got, want) {
		t.Errorf("unknown %v, want %v", got, want)
	}
	var nested api.Report
	api.MeshTimeouts.Decode(api.Meta{}, json.RawMessage(`{"future":1,"targetRef":{"kind":"Mesh"},"to":[{"targetRef":{"kind":"Mesh"},"default":{"later":2}}]}`), false, &nested)
	if got, want := nested.Unknown(), []string{"future", "to[0].default.later"}; !slices.Equal(got, want) {
		t.Errorf("unknown %v, want %v", got, want)
	}
}

// What many proxies of a workload say alike is in memory once, and so is the text
// that a row, its record and the log of the store hold.
func TestRowsShare(t *testing.T) {
	const spec = `{"networking":{"address":"10.0.0.%d","inbound":[{"port":80}],"outbound":[{"port":%d,"backendRef":{"kind":"MeshService","labels":{"kuma.io/display-name":"b"},"port":80}}]}}`
	d := db.New(api.Schema)
	put := func(name string, host, port int, workload string) *api.Object[api.Dataplane] {
		text := json.RawMessage(fmt.Sprintf(spec, host, port))
		var r api.Report
		m := api.Meta{ID: api.LocalID(api.Dataplanes, "default", "", name, zone), Labels: map[string]string{api.LabelWorkload: workload}}
		row := api.Dataplanes.Decode(m, text, true, &r)
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		if &row.Raw()[0] != &text[0] {
			t.Error("the text was copied")
		}
		if _, err := d.Write(func(tx *db.Tx) error { api.Dataplanes.Put(tx, row); return nil }); err != nil {
			t.Fatal(err)
		}
		o, _ := api.Dataplanes.Get(d.Snapshot(), m.ID)
		if o.Spec.Networking.Address != fmt.Sprintf("10.0.0.%d", host) || o.Spec.Networking.Outbound[0].Port != uint32(port) {
			t.Errorf("%s has another's: %+v", name, o.Spec.Networking)
		}
		return o
	}
	shared := func(a, b *api.Object[api.Dataplane]) bool {
		return &a.Spec.Networking.Outbound[0] == &b.Spec.Networking.Outbound[0]
	}
	a := put("a", 1, 1000, "shop")
	if b := put("b", 2, 1000, "shop"); !shared(a, b) {
		t.Error("equal outbounds of a workload are in memory twice")
	}
	if c := put("c", 3, 1001, "shop"); shared(a, c) {
		t.Error("other outbounds are shared")
	}
	if again := put("a", 4, 1000, "shop"); !shared(a, again) {
		t.Error("a new version of a row does not share with the old one")
	}
}

func TestNumbersKeepTheirDigits(t *testing.T) {
	spec := json.RawMessage(`{"subscriptions":[{"id":"1","connectTime":"2026-01-02T03:04:05Z","status":{"total":{"responsesSent":"18446744073709551615"}}}],"metadata":{"big":9007199254740993}}`)
	var r api.Report
	row := api.DataplaneInsights.Decode(api.Meta{}, spec, true, &r)
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	s := row.Body().(*api.DataplaneInsight)
	if got := s.Subscriptions[0].Status.Total.ResponsesSent; got != 1<<64-1 {
		t.Errorf("sent %d", got)
	}
	if string(s.Metadata) != `{"big":9007199254740993}` {
		t.Errorf("metadata %s", s.Metadata)
	}
	if again, err := json.Marshal(s); err != nil || string(again) != string(spec) {
		t.Errorf("again %s %v", again, err)
	}
}

// Hostile bytes become faults, never a panic, and the answer does not vary.
func FuzzDecode(f *testing.F) {
	for _, k := range api.Kinds {
		f.Add([]byte(`{"type":"` + k.Info().Name + `","mesh":"m","name":"n","spec":{},"labels":{"a":"b"}}`))
	}
	files, err := filepath.Glob("testdata/kinds/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		k := kindOf(f, strings.TrimSuffix(filepath.Base(file), ".txtar"))
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, section := range archive.Files {
			f.Add(envelope(f, file, k.Info(), section.Data))
		}
	}
	f.Add([]byte(`{"type":"Dataplane","networking":{"inbound":[{"port":"1e400"},null,7],"gateway":{"tags":{"":null}}}}`))
	f.Add([]byte(`{"type":"MeshHTTPRoute","spec":{"to":[{"targetRef":{"kind":"MeshService","labels":null},"rules":[{"matches":[{"path":{"type":"RegularExpression","value":"(("}}],"default":{"filters":[{"type":"URLRewrite"}]}}]}]}}`))
	f.Add([]byte(`{"type":"MeshIdentity","spec":{"spiffeID":{"path":"{{ define \"a\" }}{{ end }}"}}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var first []string
		for range 2 {
			var r api.Report
			d, k := api.ParseDocument(body, &r)
			if k != nil {
				api.CheckMeta(k, d, zone, &r)
				k.Decode(api.Meta{ID: api.ID{Mesh: d.Mesh, Name: d.Name}, Labels: d.Labels}, d.Spec, true, &r)
				var loose api.Report
				k.Decode(api.Meta{ID: api.ID{Mesh: d.Mesh, Name: d.Name}, Labels: d.Labels}, d.Spec, false, &loose)
			}
			if first == nil {
				first = lines(&r)
			} else if !slices.Equal(first, lines(&r)) {
				t.Fatalf("%q: %v, then %v", body, first, lines(&r))
			}
		}
	})
}
