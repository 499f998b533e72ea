package rest_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

// A page of large documents ends before it is full; what next leads to is the
// rest, in any client's way of counting.
func TestAPageIsBoundedInBytes(t *testing.T) {
	const rows, each, most = 20, 1 << 20, 10 << 20
	p := newPlane(t, atZone)
	p.mesh("default")
	spec := json.RawMessage(`{"data":"` + strings.Repeat("A", each-each%4) + `"}`)
	var records []store.Record
	for i := range rows {
		records = append(records, store.Record{ID: api.ID{Kind: "Secret", Mesh: "default", Zone: "east", Name: fmt.Sprintf("big-%02d", i)}, Spec: spec})
	}
	p.apply(records...)
	var names []string
	pages := 0
	for path := "/meshes/default/secrets?size=1000&name=big"; path != ""; pages++ {
		r := p.want(200, "GET", path, "")
		if len(r.text) > most {
			t.Fatalf("page %d has %d bytes", pages, len(r.text))
		}
		list := r.json(t)
		if list["total"] != float64(rows) {
			t.Errorf("page %d: total %v", pages, list["total"])
		}
		for _, item := range list["items"].([]any) {
			names = append(names, fmt.Sprint(at(item.(map[string]any), "name")))
		}
		path = ""
		if next, ok := list["next"].(string); ok {
			path = strings.TrimPrefix(next, "http://cp.example:5681")
		}
	}
	if len(names) != rows || names[0] != "big-00" || names[rows-1] != "big-19" || pages != 3 {
		t.Errorf("%d pages: %q", pages, names)
	}
	n := 0
	for _, err := range p.client(p.token).List(t.Context(), api.Secrets, "default", url.Values{"name": {"big"}}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != rows {
		t.Errorf("the client listed %d of %d", n, rows)
	}
}
