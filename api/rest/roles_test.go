package rest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
)

func TestRolesDecideOnceThereIsABinding(t *testing.T) {
	p := newPlane(t, atZone, func(o *rest.Options) {
		o.Extra = []rest.Endpoint{{
			Pattern: "GET /meshes/{mesh}/dataplanes/{name}/stats", Grant: func(a auth.Access) auth.Grant { return a.ViewStats }, Action: api.ActionViewStats,
			Handle: func(w http.ResponseWriter, r *http.Request) error { rest.WriteJSON(w, 200, "stats"); return nil },
		}}
	})
	p.mesh("shop")
	p.mesh("bank")
	p.want(201, "PUT", "/meshes/shop/meshtimeouts/theirs", timeout("shop", "theirs"))
	p.want(201, "PUT", "/meshes/bank/meshtimeouts/b", timeout("bank", "b"))
	token, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "ann", Groups: []string{"web"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ann := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	const dp = `{"mesh":"shop","name":"web-1","workload":"web"}`
	p.want(200, "GET", "/meshes/bank/meshtimeouts/b", "", ann)
	p.want(403, "POST", "/tokens/dataplane", dp, ann)
	p.want(200, "GET", "/meshes/shop/dataplanes/web-1/stats", "", ann)
	watch := p.watch("/meshtimeouts?watch=true", ann)
	watch.want("reset b theirs")

	p.want(201, "PUT", "/access-roles/web", `{"type":"AccessRole","name":"web","spec":{"rules":[
		{"types":["MeshTimeout"],"mesh":"shop","access":["READ"]},
		{"types":["MeshTimeout"],"mesh":"shop","access":["CREATE","UPDATE","DELETE"],"when":[{"targetRef":{"kind":"Dataplane","labels":{"app":"web"}}}]},
		{"types":["Mesh"],"access":["READ"]},
		{"types":["Secret"],"access":["READ"]},
		{"access":["GENERATE_DATAPLANE_TOKEN"],"mesh":"shop","when":[{"labels":{"kuma.io/workload":"web"}}]}]}}`)
	watch.want("reset b theirs")
	p.want(201, "PUT", "/access-role-bindings/web", `{"type":"AccessRoleBinding","name":"web","spec":{"subjects":[{"type":"Group","name":"web"}],"roles":["web"]}}`)
	watch.want("reset theirs")

	ours := `{"type":"MeshTimeout","mesh":"shop","name":"ours","spec":{"targetRef":{"kind":"Dataplane","labels":{"app":"web"}},"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1m"}}]}}`
	for _, c := range []struct {
		status             int
		method, path, body string
	}{
		{200, "GET", "/meshes/shop/meshtimeouts/theirs", ""},
		{403, "GET", "/meshes/bank/meshtimeouts/b", ""},
		{403, "GET", "/_kri/kri_mt_bank_east__b_", ""},
		{404, "GET", "/meshes/shop/meshtimeouts/none", ""},
		{201, "PUT", "/meshes/shop/meshtimeouts/ours", ours},
		{403, "PUT", "/meshes/shop/meshtimeouts/more", timeout("shop", "more")},
		{403, "PUT", "/meshes/shop/meshtimeouts/ours", timeout("shop", "ours")}, // what it would become is not theirs
		{403, "DELETE", "/meshes/shop/meshtimeouts/theirs", ""},
		{200, "DELETE", "/meshes/shop/meshtimeouts/ours", ""},
		{403, "GET", "/meshes/shop/secrets", ""}, // static access goes before
		{403, "PUT", "/access-roles/web", `{"type":"AccessRole","name":"web","spec":{"rules":[{"access":["DELETE"]}]}}`},
		{200, "POST", "/tokens/dataplane", dp},
		{403, "POST", "/tokens/dataplane", `{"mesh":"shop","name":"web-1"}`},
		{403, "POST", "/tokens/dataplane", `{"mesh":"bank","workload":"web"}`},
		{403, "POST", "/tokens/user", `{"name":"root","validFor":"1h"}`},
		{403, "GET", "/meshes/shop/dataplanes/web-1/stats", ""},
		{403, "GET", "/config", ""},
	} {
		if r := p.do(c.method, c.path, c.body, ann); r.status != c.status {
			t.Errorf("%s %s: %d, want %d: %s", c.method, c.path, r.status, c.status, r.text)
		}
	}
	if list := p.want(200, "GET", "/meshtimeouts", "", ann).json(t); list["total"] != 1.0 || at(list, "items.0.name") != "theirs" {
		t.Errorf("%v", list)
	}
	p.want(200, "GET", "/meshes/bank/meshtimeouts/b", "") // administrators are never locked out
	p.want(200, "PUT", "/meshes/bank/meshtimeouts/b", strings.Replace(timeout("bank", "b"), "30m", "7m", 1))
	p.want(200, "PUT", "/meshes/shop/meshtimeouts/theirs", strings.Replace(timeout("shop", "theirs"), "30m", "7m", 1))
	for {
		e, ok := watch.next()
		if !ok || e.text() == "put b" {
			t.Fatalf("a watch tells of what may not be read: %+v", e)
		}
		if e.text() == "put theirs" {
			break
		}
	}
}

// The right to delete a mesh is the right to all that is in it, as the
// description of the kind and of the API say.
func TestWhoMayDeleteAMeshDeletesAllOfIt(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("shop")
	p.want(201, "PUT", "/meshes/shop/meshtimeouts/t", timeout("shop", "t"))
	p.want(201, "PUT", "/meshes/shop/dataplanes/dp", proxy("shop", "dp", ""))
	p.want(201, "PUT", "/access-roles/ops", `{"type":"AccessRole","name":"ops","spec":{"rules":[{"types":["Mesh"],"names":["shop"],"access":["DELETE"]}]}}`)
	p.want(201, "PUT", "/access-role-bindings/ops", `{"type":"AccessRoleBinding","name":"ops","spec":{"subjects":[{"type":"User","name":"ann"}],"roles":["ops"]}}`)
	token, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "ann"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ann := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	p.want(403, "DELETE", "/meshes/shop/meshtimeouts/t", "", ann)
	p.want(400, "DELETE", "/meshes/shop", "", ann) // a proxy is in it
	p.want(200, "DELETE", "/meshes/shop/dataplanes/dp", "")
	p.want(200, "DELETE", "/meshes/shop", "", ann)
	for _, k := range []api.AnyKind{api.Meshes, api.MeshTimeouts, api.Secrets} {
		if n := k.Count(p.db.Snapshot()); n != 0 {
			t.Errorf("%d of kind %s are left", n, k.Info().Name)
		}
	}
	described := at(p.want(200, "GET", "/openapi", "").json(t)["paths"].(map[string]any)["/meshes/{name}"], "delete.description")
	if text, _ := described.(string); !strings.Contains(text, "by the right to delete the mesh alone") {
		t.Errorf("/openapi says %v", described)
	}
}

// Roles name a resource as it is called, whatever the path calls it, and judge
// its labels: of every endpoint.
func TestRolesKnowAProxyByItsOwnName(t *testing.T) {
	p := newPlane(t, atGlobal, func(o *rest.Options) {
		o.Extra = []rest.Endpoint{{
			Pattern: "GET /meshes/{mesh}/dataplanes/{name}/stats", Grant: func(a auth.Access) auth.Grant { return a.ViewStats }, Action: api.ActionViewStats,
			Handle: func(w http.ResponseWriter, _ *http.Request) error { rest.WriteJSON(w, 200, "stats"); return nil },
		}}
	})
	p.mesh("shop")
	sent := func(name string) (path string) {
		id := api.ID{Kind: "Dataplane", Mesh: "shop", Zone: "east", Name: name}
		p.apply(store.Record{ID: id, Source: "east", Labels: map[string]string{"app": name}, Spec: json.RawMessage(`{"networking":{"address":"127.0.0.1","inbound":[{"port":80}]}}`)})
		row, ok := api.Dataplanes.Get(p.db.Snapshot(), id)
		if !ok || row.Core == name {
			t.Fatalf("%v %+v", ok, row)
		}
		return "/meshes/shop/dataplanes/" + row.Core
	}
	one, two, three := sent("web-1"), sent("web-2"), sent("web-3")
	token, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "ann"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ann := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	p.want(201, "PUT", "/access-roles/web", `{"type":"AccessRole","name":"web","spec":{"rules":[
		{"types":["Dataplane"],"names":["web-1"],"access":["READ","VIEW_STATS"]},
		{"types":["Dataplane"],"access":["READ","VIEW_STATS"],"when":[{"labels":{"app":"web-2"}}]}]}}`)
	p.want(201, "PUT", "/access-role-bindings/web", `{"type":"AccessRoleBinding","name":"web","spec":{"subjects":[{"type":"User","name":"ann"}],"roles":["web"]}}`)
	for path, want := range map[string]int{one: 200, two: 200, three: 403, "/meshes/shop/dataplanes/none": 404} {
		p.want(want, "GET", path, "", ann)
		if want == 404 {
			want = 403 // of what is not there, roles know the name
		}
		p.want(want, "GET", path+"/stats", "", ann)
	}
}

// What is stored and not understood is no way around roles: nobody can tell
// whether a condition on what it says holds.
func TestRolesJudgeWhatIsNotUnderstood(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("shop")
	p.want(201, "PUT", "/access-roles/web", `{"type":"AccessRole","name":"web","spec":{"rules":[
		{"types":["MeshTimeout"],"mesh":"shop","access":["CREATE"]},
		{"types":["MeshTimeout"],"mesh":"shop","access":["CREATE","UPDATE","DELETE"],"when":[{"targetRef":{"kind":"Mesh"}}]},
		{"types":["MeshTimeout"],"names":["mine"],"access":["UPDATE","DELETE"]}]}}`)
	p.want(201, "PUT", "/access-role-bindings/web", `{"type":"AccessRoleBinding","name":"web","spec":{"subjects":[{"type":"User","name":"ann"}],"roles":["web"]}}`)
	token, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "ann"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ann := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	broken := func(name string) store.Record {
		return store.Record{ID: api.ID{Kind: "MeshTimeout", Mesh: "shop", Zone: "east", Name: name}, Spec: json.RawMessage(`{"to":7}`)}
	}
	p.want(201, "PUT", "/meshes/shop/meshtimeouts/was", timeout("shop", "was"), ann)
	p.apply(broken("theirs"), broken("was"), broken("mine"))
	for _, name := range []string{"theirs", "was"} {
		p.want(403, "PUT", "/meshes/shop/meshtimeouts/"+name, timeout("shop", name), ann)
		p.want(403, "DELETE", "/meshes/shop/meshtimeouts/"+name, "", ann)
		p.want(403, "DELETE", "/meshes/shop/meshtimeouts/"+name+"?dryRun=true", "", ann)
	}
	p.want(201, "PUT", "/meshes/shop/meshtimeouts/mine", timeout("shop", "mine"), ann)
	p.apply(broken("mine"))
	p.want(200, "DELETE", "/meshes/shop/meshtimeouts/mine", "", ann)
}

// Whoever loses or gets a role is told what there is for them now, and later
// changes as if it had always been so.
func TestAWatchBeginsAgainWhenRolesChange(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("shop")
	p.mesh("bank")
	p.want(201, "PUT", "/meshes/shop/meshtimeouts/s", timeout("shop", "s"))
	p.want(201, "PUT", "/meshes/bank/meshtimeouts/b", timeout("bank", "b"))
	token, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "ann"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ann := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	role := func(status int, mesh string) {
		p.want(status, "PUT", "/access-roles/reader", `{"type":"AccessRole","name":"reader","spec":{"rules":[{"types":["MeshTimeout"],"mesh":"`+mesh+`","access":["READ"]}]}}`)
	}
	role(201, "shop")
	watch := p.watch("/meshtimeouts?watch=true", ann)
	before := watch.want("reset b s").id
	p.want(201, "PUT", "/access-role-bindings/reader", `{"type":"AccessRoleBinding","name":"reader","spec":{"subjects":[{"type":"User","name":"ann"}],"roles":["reader"]}}`)
	watch.want("reset s")
	role(200, "bank")
	watch.want("reset b")
	p.watch("/meshtimeouts?watch=true&revision="+before, ann).want("reset b")
	p.want(200, "DELETE", "/meshes/shop/meshtimeouts/s", "")
	p.want(200, "DELETE", "/meshes/bank/meshtimeouts/b", "")
	after := watch.want("delete b").id
	p.want(201, "PUT", "/meshes/shop/meshtimeouts/s", timeout("shop", "s"))
	p.want(201, "PUT", "/meshes/bank/meshtimeouts/c", timeout("bank", "c"))
	watch.want("put c")
	p.watch("/meshtimeouts?watch=true&revision="+after, ann).want("put c")
}
