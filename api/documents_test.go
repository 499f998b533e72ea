package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
)

var update = flag.Bool("update", false, "rewrite the expected faults in testdata/kinds")

// TestDocuments runs testdata/kinds/<plural>.txtar: what may be written of a
// kind and what is refused, in sections. The word before a colon says what a
// section is, the rest of its name is for the reader. Documents are YAML; type,
// mesh and name may be left out.
//
//	minimal    the least that is accepted (one)
//	full       accepted (one or more): together they use every field of the kind
//	older      accepted: a form of earlier releases, or one that leaves defaults
//	           out, which means the same as the section that follows it,
//	newer
//	bad        refused with exactly the faults that its leading comments list,
//	           "# field: reason" (rewritten by -update: read what it wrote)
//
// What is accepted comes back byte for byte as it was written, and what the
// control plane would write of it itself reads as the same.
func TestDocuments(t *testing.T) {
	files, err := filepath.Glob("testdata/kinds/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	for _, file := range files {
		plural := strings.TrimSuffix(filepath.Base(file), ".txtar")
		tested[plural] = true
		t.Run(plural, func(t *testing.T) { runDocuments(t, file, plural) })
	}
	for _, k := range api.Kinds {
		if i := k.Info(); !i.Hidden && !i.ReadOnly && !tested[i.Plural] {
			t.Errorf("%s: testdata/kinds/%s.txtar is missing", i.Name, i.Plural)
		}
	}
}

func runDocuments(t *testing.T, file, plural string) {
	k := kindOf(t, plural)
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	count, used := map[string]int{}, map[string]bool{}
	for i, section := range archive.Files {
		sort, _, _ := strings.Cut(section.Name, ":")
		count[sort]++
		at := fmt.Sprintf("%s, section %d (%s)", file, i+1, section.Name)
		body := envelope(t, at, k.Info(), section.Data)
		switch sort {
		case "minimal", "newer":
			accepted(t, at, k, body)
		case "full":
			accepted(t, at, k, body)
			noteFields(k.Shape(), specOf(t, k, body), "", used)
		case "older":
			row := accepted(t, at, k, body)
			if i+1 == len(archive.Files) || !strings.HasPrefix(archive.Files[i+1].Name, "newer") {
				t.Errorf("%s: the next section must be newer", at)
				continue
			}
			newer := accepted(t, at, k, envelope(t, at, k.Info(), archive.Files[i+1].Data))
			if got, want := encode(t, row), encode(t, newer); !bytes.Equal(got, want) {
				t.Errorf("%s means\n\t%s\nthe newer form\n\t%s", at, got, want)
			}
		case "bad":
			want, text := splitFaults(section.Data)
			got := faultsOf(k, body)
			if *update {
				archive.Files[i].Data = []byte("# " + strings.Join(got, "\n# ") + "\n" + text)
			} else if !slices.Equal(got, want) || len(got) == 0 {
				t.Errorf("%s\n%s\ngot\n\t%s\nwant\n\t%s", at, text, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
		default:
			t.Errorf("%s: no such sort of section", at)
		}
	}
	if count["minimal"] != 1 || count["full"] == 0 || count["bad"] == 0 {
		t.Errorf("%s: want one minimal, a full and a bad section, there are %v", file, count)
	}
	fields := map[string]bool{}
	listFields(k.Shape(), "", fields)
	for _, path := range slices.Sorted(maps.Keys(fields)) {
		if !used[path] {
			t.Errorf("%s: no full section has %s", file, path)
		}
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// kindOf finds hidden kinds too.
func kindOf(t testing.TB, plural string) api.AnyKind {
	t.Helper()
	i := slices.IndexFunc(api.Kinds, func(k api.AnyKind) bool { return k.Info().Plural == plural })
	if i < 0 {
		t.Fatalf("no kind has the path %s", plural)
	}
	return api.Kinds[i]
}

// envelope adds what a section may leave out, and makes JSON of it.
func envelope(t testing.TB, at string, i api.Facts, text []byte) []byte {
	t.Helper()
	fields := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &fields); err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	for name, value := range map[string]string{"type": i.Name, "mesh": "shop", "name": "a"} {
		if _, has := fields[name]; !has && (name != "mesh" || i.Scope == api.MeshScope) {
			fields[name] = value
		}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	return body
}

// write decodes a document as the doors for people do.
func write(k api.AnyKind, body []byte, r *api.Report) (api.Row, api.Document) {
	d, _ := api.ParseDocument(body, r)
	api.CheckMeta(k, d, zone, r)
	return k.Decode(api.Meta{ID: api.LocalID(k, d.Mesh, "", d.Name, zone), Labels: d.Labels}, d.Spec, true, r), d
}

func faultsOf(k api.AnyKind, body []byte) []string {
	var r api.Report
	write(k, body, &r)
	return lines(&r)
}

func accepted(t *testing.T, at string, k api.AnyKind, body []byte) api.Row {
	t.Helper()
	var r api.Report
	row, d := write(k, body, &r)
	if r.Err() != nil {
		t.Fatalf("%s: refused\n\t%s", at, strings.Join(lines(&r), "\n\t"))
	}
	if !bytes.Equal(row.Raw(), d.Spec) {
		t.Errorf("%s\nwritten %s\nkept    %s", at, d.Spec, row.Raw())
	}
	var loose api.Report
	if k.Decode(*row.Head(), row.Raw(), false, &loose); loose.Unknown() != nil {
		t.Errorf("%s: unknown %v", at, loose.Unknown())
	}
	own := encode(t, row)
	again := k.Decode(*row.Head(), own, true, &r)
	if r.Err() != nil {
		t.Errorf("%s\nencodes to %s: %v", at, own, r.Err())
	} else if twice := encode(t, again); !bytes.Equal(own, twice) {
		t.Errorf("%s\nonce  %s\ntwice %s", at, own, twice)
	}
	return row
}

func encode(t *testing.T, row api.Row) []byte {
	t.Helper()
	body, err := json.Marshal(row.Body())
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func splitFaults(section []byte) (faults []string, text string) {
	text = string(section)
	for strings.HasPrefix(text, "# ") {
		line, rest, _ := strings.Cut(text, "\n")
		faults, text = append(faults, strings.TrimPrefix(line, "# ")), rest
	}
	return faults, text
}

func specOf(t *testing.T, k api.AnyKind, body []byte) any {
	t.Helper()
	var r api.Report
	d, _ := api.ParseDocument(body, &r)
	var spec any
	if err := json.Unmarshal(d.Spec, &spec); err != nil {
		t.Fatal(err)
	}
	return spec
}

// listFields lists the paths of all fields that a shape has.
func listFields(s *api.Shape, path string, into map[string]bool) {
	if s.Elem != nil {
		listFields(s.Elem, path+"[]", into)
	}
	for _, f := range s.Fields {
		into[path+"."+f.Name] = true
		listFields(f.Shape, path+"."+f.Name, into)
	}
}

// noteFields notes the paths of the fields that a value has.
func noteFields(s *api.Shape, value any, path string, into map[string]bool) {
	switch v := value.(type) {
	case []any:
		for _, elem := range v {
			noteFields(s.Elem, elem, path+"[]", into)
		}
	case map[string]any:
		for name, member := range v {
			if s.Fields == nil && s.Elem != nil {
				noteFields(s.Elem, member, path+"[]", into)
			}
			for _, f := range s.Fields {
				if f.Name == name {
					into[path+"."+name] = true
					noteFields(f.Shape, member, path+"."+name, into)
				}
			}
		}
	}
}
