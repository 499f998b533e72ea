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

// read returns the faults of a YAML document, found as a door for people does.
func read(t testing.TB, text string) []string {
	t.Helper()
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var r api.Report
	_, k := api.ParseDocument(body, &r)
	if k == nil {
		return lines(&r)
	}
	return faultsOf(k, body)
}

func lines(r *api.Report) []string {
	var out []string
	for _, f := range r.Faults() {
		out = append(out, f.String())
	}
	return out
}

// What is wrong outside of the spec, and the same for all kinds; kinds have their
// own faults in testdata.
func TestEnvelope(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		// What a control plane says of a row may be written back.
		{`{type: Mesh, name: shop, creationTime: "0001-01-01T00:00:00Z", modificationTime: x, kri: kri_m____shop_}`, nil},
		{`{type: MeshService, mesh: shop, name: a, spec: {}, status: {a: b}, snis: [], kri: "", creationTime: x, modificationTime: x}`, nil},
		{`{name: a}`, []string{"type: cannot be empty"}},
		{`[]`, []string{"must be a JSON object: json: cannot unmarshal array into Go value of type map[string]json.RawMessage"}},
		{`{type: MeshTimeuot, name: a}`, []string{`type: unknown kind "MeshTimeuot"; did you mean "MeshTimeout"?`}},
		{`{type: MeshTimeout, mesh: shop, name: a, Spec: {}}`, []string{
			".spec in body is required", `Spec: unknown field; did you mean "spec"?`, "spec: at least one of 'to' or 'rules' has to be defined"}},
		{`{type: Zone, name: 7, labels: [a]}`, []string{"name: must be a string", "labels: must be a map of strings", "name: cannot be empty"}},
	} {
		if faults := read(t, c.text); !slices.Equal(faults, c.want) {
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
