package rest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// insightRoutes are counts over everything, made when they are asked for.
func (s *server) insightRoutes() {
	s.json("GET /global-insight", titleInfo, func(w http.ResponseWriter, r *http.Request) error {
		if err := s.readers(r); err != nil {
			return err
		}
		WriteJSON(w, http.StatusOK, s.globalInsight(s.DB.Snapshot()))
		return nil
	})
	s.json("GET /global-insights", titleInfo, func(w http.ResponseWriter, r *http.Request) error {
		if err := s.readers(r); err != nil {
			return err
		}
		WriteJSON(w, http.StatusOK, struct {
			Type      string           `json:"type"`
			Created   time.Time        `json:"creationTime"`
			Resources map[string]total `json:"resources"`
		}{"GlobalInsights", s.Now().UTC(), totals(s.DB.Snapshot())})
		return nil
	})
	s.json("GET /service-insights", titleList, s.serviceInsights)
	s.json("GET /meshes/{mesh}/service-insights", titleList, s.serviceInsights)
	s.json("GET /meshes/{mesh}/service-insights/{name}", titleGet, func(_ http.ResponseWriter, r *http.Request) error {
		if err := s.readers(r); err != nil {
			return err
		}
		if _, err := MeshOf(s.DB.Snapshot(), r); err != nil {
			return err
		}
		return notFound("")
	})
}

// serviceInsights answers clients of an older release: there are none. What is
// known of a service is in its status.
func (s *server) serviceInsights(w http.ResponseWriter, r *http.Request) error {
	if err := s.readers(r); err != nil {
		return err
	}
	if _, err := MeshOf(s.DB.Snapshot(), r); err != nil {
		return err
	}
	var q query
	if err := q.parsePage(r.URL.Query()); err != nil {
		return err
	}
	kinds := []string{"internal", "external", "gateway_delegated"}
	for kind := range strings.SplitSeq(r.URL.Query().Get("type"), ",") {
		if kind != "" && !slices.Contains(kinds, kind) {
			var report api.Report
			report.At("type").OneOf(kind, kinds, "unsupported service type")
			p := invalid(report.Faults()...)
			p.Detail = "unsupported service type"
			return p
		}
	}
	WriteJSON(w, http.StatusOK, page{Items: []json.RawMessage{}})
	return nil
}

type total struct {
	Total int `json:"total"`
}

// health counts what can be in parts.
type health struct {
	Total    int `json:"total"`
	Online   int `json:"online"`
	Offline  int `json:"offline"`
	Degraded int `json:"partiallyDegraded"`
}

func (h *health) count(state string) {
	h.Total++
	switch state {
	case api.Offline:
		h.Offline++
	case api.PartiallyDegraded:
		h.Degraded++
	default:
		h.Online++
	}
}

// add counts one that has so many parts, of which so many can be used.
func (h *health) add(usable, parts int) {
	switch {
	case usable == 0:
		h.count(api.Offline)
	case usable < parts:
		h.count(api.PartiallyDegraded)
	default:
		h.count(api.Online)
	}
}

type onlineOf struct {
	Online int `json:"online"`
	Total  int `json:"total"`
}

type globalInsight struct {
	Created  time.Time `json:"createdAt"`
	Services struct {
		Total    int    `json:"total"`
		Internal health `json:"internal"`
		External total  `json:"external"`
		Gateways health `json:"gatewayDelegated"`
	} `json:"services"`
	Zones struct {
		ControlPlanes onlineOf `json:"controlPlanes"`
		Egresses      onlineOf `json:"zoneEgresses"` // kinds of an older release
		Ingresses     onlineOf `json:"zoneIngresses"`
	} `json:"zones"`
	Dataplanes struct {
		Standard health `json:"standard"`
		Gateways health `json:"gatewayDelegated"`
	} `json:"dataplanes"`
	Policies  total            `json:"policies"`
	Meshes    total            `json:"meshes"`
	Resources map[string]total `json:"resources"`
}

// totals counts the rows of each kind that has a path.
func totals(snap *db.Snapshot) map[string]total {
	out := map[string]total{}
	for _, k := range api.Kinds {
		if info := k.Info(); !info.Hidden {
			out[info.Name] = total{k.Count(snap)}
		}
	}
	return out
}

func (s *server) globalInsight(snap *db.Snapshot) globalInsight {
	out := globalInsight{Created: s.Now().UTC(), Resources: totals(snap)}
	for _, k := range api.Kinds {
		if k.Info().Policy != nil && !k.Info().Hidden {
			out.Policies.Total += out.Resources[k.Info().Name].Total
		}
	}
	out.Meshes = out.Resources[api.Meshes.Name]
	for zone := range api.Zones.All(snap) {
		out.Zones.ControlPlanes.Total++
		if zoneOnline(snap, zone.Name) || zone.Name == s.Site.Zone {
			out.Zones.ControlPlanes.Online++
		}
	}
	gateways := map[string][2]int{} // usable and all proxies of a service
	for dp := range api.Dataplanes.All(snap) {
		state := stateOf(snap, dp)
		gateway := dp.Spec.Networking.Gateway
		if gateway == nil {
			out.Dataplanes.Standard.count(state)
			continue
		}
		out.Dataplanes.Gateways.count(state)
		service := dp.Mesh + "/" + cmp.Or(gateway.Tags[api.LabelService], dp.Label(api.LabelService), dp.Name)
		n := gateways[service]
		n[1]++
		if state != api.Offline {
			n[0]++
		}
		gateways[service] = n
	}
	for _, n := range gateways {
		out.Services.Gateways.add(n[0], n[1])
	}
	for service := range api.MeshServices.All(snap) {
		out.Services.Internal.add(usableProxies(snap, service))
	}
	out.Services.External = out.Resources[api.MeshExternalServices.Name]
	out.Services.Total = out.Services.Internal.Total + out.Services.External.Total + out.Services.Gateways.Total
	return out
}

func stateOf(snap *db.Snapshot, dp *api.Object[api.Dataplane]) string {
	insight, ok := api.DataplaneInsights.Get(snap, dp.ID)
	if !ok {
		return api.Offline
	}
	return api.DataplaneStatus(&dp.Spec, &insight.Spec)
}

// usableProxies counts the proxies of a service where they are known, which is
// in its zone; elsewhere the service says whether there is one.
func usableProxies(snap *db.Snapshot, service *api.Object[api.MeshService]) (usable, all int) {
	if state, ok := api.ServiceStates.Get(snap, service.ID.Key()); ok {
		return state.Healthy, max(state.Total, 1)
	}
	if service.Spec.State == "Available" {
		return 1, 1
	}
	return 0, 1
}
