package rest_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

const (
	zoneIngress = `{"type":"ZoneIngress","name":"in","labels":{"kuma.io/mesh":"default"},"zone":"east",` +
		`"networking":{"address":"10.0.0.1","port":10001,"advertisedAddress":"lb.example","advertisedPort":443,"admin":{"port":9902}},` +
		`"availableServices":[{"tags":{"kuma.io/service":"cart"},"instances":2,"mesh":"default"}]}`
	zoneEgress = `{"type":"ZoneEgress","name":"out","networking":{"address":"10.0.0.1","port":10002}}`
)

// The zone proxies of earlier releases are resources like others, in zones.
func TestZoneProxies(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	for path, doc := range map[string]string{"/zoneingresses/in": zoneIngress, "/zoneegresses/out": zoneEgress} {
		p.want(201, "PUT", path, doc)
		p.want(200, "PUT", path, doc)
		// What was written comes back.
		got, written := p.want(200, "GET", path, "").json(t), reply{text: doc}.json(t)
		for member, want := range written {
			if member != "labels" && !reflect.DeepEqual(got[member], want) {
				t.Errorf("%s: %s: %v, want %v", path, member, got[member], want)
			}
		}
		list := strings.TrimSuffix(path, "/in")
		list = strings.TrimSuffix(list, "/out")
		if r := p.want(200, "GET", list, "").json(t); r["total"] != 1.0 {
			t.Errorf("%s: %v", list, r)
		}
	}
	if r := p.want(200, "GET", "/zoneingresses/in", "").json(t); r["kri"] != "kri_zi__east__in_" {
		t.Errorf("kri %v", r["kri"])
	}
	// The mesh of its label is the user's, where other kinds have a mesh.
	if r := p.want(200, "GET", "/zoneingresses/in?format=kubernetes", "").text; !strings.Contains(r, `"kuma.io/mesh"`) {
		t.Errorf("on Kubernetes: %s", r)
	}
	r := p.want(400, "PUT", "/zoneingresses/in", strings.Replace(zoneIngress, `"port":10001`, `"port":10001,"ports":1`, 1)).json(t)
	if r["detail"] != "Resource is not valid" {
		t.Errorf("an unknown field: %v", r)
	}
	p.want(200, "DELETE", "/zoneingresses/in", "")
	p.want(404, "GET", "/zoneingresses/in", "")
	p.want(200, "DELETE", "/zoneegresses/out", "")

	global := newPlane(t, api.Site{Env: "universal"})
	global.want(405, "PUT", "/zoneingresses/in", zoneIngress)
}

// A zone proxy has its name in common with Dataplanes, and does not keep a mesh
// from being deleted unless it is for that mesh alone.
func TestZoneProxiesAndMeshes(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.want(201, "PUT", "/zoneegresses/out", zoneEgress)
	derive := func() {
		row, _ := api.ZoneEgresses.Named(p.db.Snapshot(), "", "out")
		p.apply(store.RecordOf(api.ZoneProxyRow(row, "default", atZone)))
	}
	derive()
	taken := strings.Replace(zoneIngress, `"in"`, `"out"`, 1)
	for _, r := range []reply{p.want(200, "PUT", "/zoneingresses/out?dryRun=true", taken), p.want(201, "PUT", "/zoneingresses/out", taken)} {
		if !strings.Contains(r.text, "share their names") {
			t.Errorf("a name that is taken: %s", r.text)
		}
	}
	p.want(200, "DELETE", "/zoneingresses/out", "")
	if r := p.want(200, "PUT", "/zoneegresses/out", zoneEgress); strings.Contains(r.text, "warnings") {
		t.Errorf("the name's owner is warned: %s", r.text)
	}
	p.want(200, "DELETE", "/meshes/default", "")
	p.mesh("default")
	p.want(200, "PUT", "/zoneegresses/out", strings.Replace(zoneEgress, `"networking"`, `"labels":{"kuma.io/mesh":"default"},"networking"`, 1))
	derive()
	p.want(400, "DELETE", "/meshes/default", "")
}

// The paths of kinds that are no more say what replaces them.
func TestPathsOfRemovedKinds(t *testing.T) {
	p := newPlane(t, atZone)
	for path, use := range map[string]string{
		"/traffic-permissions":                   "MeshTrafficPermission",
		"/meshes/default/traffic-permissions":    "MeshTrafficPermission",
		"/meshes/default/traffic-permissions/tp": "MeshTrafficPermission",
		"/meshgateways":                          "a gateway of your own, with a Dataplane that has networking.gateway",
		"/zone-ingress-insights/in":              "DataplaneInsight",
	} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			r := p.want(404, method, path, "{}").json(t)
			detail, _ := r["detail"].(string)
			if r["type"] != "/std-errors" || r["status"] != 404.0 || r["title"] != "Resource type not found" || r["details"] != r["detail"] || !strings.HasSuffix(detail, "is no longer supported; use "+use) {
				t.Errorf("%s %s: %v", method, path, r)
			}
		}
	}
	for _, path := range []string{"/meshes/default/nothing", "/nothing", "/meshes/traffic-permissions/nothing"} {
		if r := p.want(404, "GET", path, ""); r.text != "404: Page Not Found" {
			t.Errorf("%s: %q", path, r.text)
		}
	}
}
