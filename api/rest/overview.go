package rest

import (
	"encoding/json"
	"net/http"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// overviewRoutes are the views of a row together with what is known of it at
// run time: Dataplanes and Zones with their insights.
func (s *server) overviewRoutes() {
	for _, o := range []struct {
		of, insight           api.AnyKind
		name, spec, insightAs string
	}{
		{api.Dataplanes, api.DataplaneInsights, "DataplaneOverview", "dataplane", "dataplaneInsight"},
		{api.Zones, api.ZoneInsights, "ZoneOverview", "zone", "zoneInsight"},
	} {
		plural, in := o.of.Info().Plural, ""
		if o.of.Info().Scope == api.MeshScope {
			in = "/meshes/{mesh}"
		}
		v := view{with: o.insight, render: func(snap *db.Snapshot, k api.AnyKind, row api.Row) (json.RawMessage, error) {
			return overview(snap, k, o.insight, row, o.name, o.spec, o.insightAs)
		}}
		list, item := s.list(o.of, v), s.overviewItem(o.of, v)
		for _, suffix := range []string{"/_overview", "+insights"} {
			s.json("GET "+in+"/"+plural+suffix, titleList, list)
			if in != "" {
				s.json("GET /"+plural+suffix, titleList, list)
			}
		}
		s.json("GET "+in+"/"+plural+"/{name}/_overview", titleGet, item)
		s.json("GET "+in+"/"+plural+"+insights/{name}", titleGet, item)
	}
}

func (s *server) overviewItem(k api.AnyKind, v view) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.allow(r, s.grantFor(k.Info(), false), k.Info().Name); err != nil {
			return err
		}
		snap := s.DB.Snapshot()
		mesh, err := MeshOf(snap, r)
		if err != nil {
			return err
		}
		name := r.PathValue("name")
		if watches(r) {
			return s.watch(w, r, k, v, func(row api.Row) bool { return row.Head().Mesh == mesh && row.Head().Core == name })
		}
		row, ok := k.RowNamed(snap, mesh, name)
		if !ok {
			return notFound("")
		}
		if err := s.mayRow(r, snap, api.ActionRead, row); err != nil {
			return err
		}
		body, err := v.render(snap, k, row)
		if err != nil {
			return err
		}
		if _, online := v.with.RowNamed(snap, mesh, name); !online && k.Info().Name == api.Zones.Name {
			body = join(body, []byte(`{"zoneInsight":{}}`)) // existing clients read it without asking; in lists they ask
		}
		WriteJSON(w, http.StatusOK, body)
		return nil
	}
}

func overview(snap *db.Snapshot, k, insights api.AnyKind, row api.Row, name, spec, insightAs string) (json.RawMessage, error) {
	h := headOf(k, row)
	h.Type = name
	out, err := encode(h)
	if err != nil {
		return nil, err
	}
	more := map[string]json.RawMessage{spec: row.Raw()}
	// The insight has the name of its resource; what never connected has none.
	if insight, ok := insights.RowNamed(snap, row.Head().Mesh, row.Head().Core); ok {
		more[insightAs] = insight.Raw()
	}
	tail, err := encode(more)
	return join(out, tail), err
}
