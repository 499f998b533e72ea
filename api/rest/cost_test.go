package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
)

func (p *plane) fill(n int) {
	p.t.Helper()
	p.mesh("default")
	records := make([]store.Record, n)
	for i := range records {
		records[i] = dataplaneRecord(fmt.Sprintf("dp-%05d", i))
	}
	p.apply(records...)
}

// A write costs what it changes: one row, whatever there is beside it.
func TestAWriteTouchesOneRow(t *testing.T) {
	for _, n := range []int{100, 5000} {
		p := newPlane(t, atZone)
		p.fill(n)
		rows, ops := 0, 0
		stop := p.db.OnCommit(func(c db.Commit) {
			for _, change := range c.Changes {
				if change.Table != api.Revisions.Name() {
					rows++
				}
			}
		})
		defer stop()
		p.store.before = func(o []store.Op) { ops += len(o) }
		p.want(200, "PUT", "/meshes/default/dataplanes/dp-00042", proxy("default", "dp-00042", `{"a":"b"}`))
		if rows != 1 || ops != 1 {
			t.Errorf("among %d: %d rows changed with %d operations", n, rows, ops)
		}
	}
}

// Everything is listed page by page, as clients do: each item is rendered once.
func TestAListOfAllRendersEachOnce(t *testing.T) {
	rendered := 0
	p := newPlane(t, atZone, func(o *rest.Options) {
		o.Status = func(db.Reader, api.Row) any { rendered++; return nil }
	})
	p.mesh("default")
	records := make([]store.Record, 2500)
	for i := range records {
		records[i] = store.Record{
			ID:   api.ID{Kind: "MeshTimeout", Mesh: "default", Zone: "east", Name: fmt.Sprintf("t-%04d", i)},
			Spec: []byte(`{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1m"}}]}`),
		}
	}
	p.apply(records...)
	pages := 0
	for path := "/meshes/default/meshtimeouts?size=1000"; path != ""; pages++ {
		next, _ := p.want(200, "GET", path, "").json(t)["next"].(string)
		path = strings.TrimPrefix(next, "http://cp.example:5681")
	}
	if pages != 3 || rendered != 2500 {
		t.Errorf("%d pages, %d items rendered", pages, rendered)
	}
}

// BenchmarkListAll is the time per item of listing everything in pages; the
// 10,000 are to stay within twice the 100.
func BenchmarkListAll(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := newPlane(b, atZone)
			p.fill(n)
			for b.Loop() {
				for offset := 0; offset < n; offset += 1000 {
					p.want(200, "GET", fmt.Sprintf("/meshes/default/dataplanes?size=1000&offset=%d", offset), "")
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/item")
		})
	}
}

func BenchmarkPut(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p := newPlane(b, atZone)
			p.fill(n)
			i := 0
			for b.Loop() {
				i++
				p.want(200, "PUT", "/meshes/default/dataplanes/dp-00042", proxy("default", "dp-00042", fmt.Sprintf(`{"i":"%d"}`, i)))
			}
		})
	}
}
