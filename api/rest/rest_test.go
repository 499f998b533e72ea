package rest_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

var (
	atGlobal     = api.Site{Env: "universal"}
	atZone       = api.Site{Zone: "east", Env: "universal"}
	atFederated  = api.Site{Zone: "east", Federated: true, Env: "universal"}
	start        = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	permissive   = auth.Grant{Groups: []string{auth.GroupUnauthenticated, auth.GroupAuthenticated}}
	readsForAll  = func(o *rest.Options) { o.Access.ReadResources = permissive }
	writesForAll = func(o *rest.Options) { o.Access.WriteResources = permissive }
)

// plane is a control plane's API over a memory store.
type plane struct {
	t     testing.TB
	db    *db.DB
	store *failing
	feed  *store.Feeder
	http  http.Handler
	token string
}

// failing is a store that can be told to fail, and counts what it is given.
type failing struct {
	store.Store
	err     error
	applied atomic.Int64
	before  func([]store.Op)
	epoch   string // empty: that of the store
}

func (f *failing) Epoch() string { return cmp.Or(f.epoch, f.Store.Epoch()) }

func (f *failing) Apply(ctx context.Context, ops []store.Op) (store.Revision, error) {
	if f.err != nil {
		return 0, f.err
	}
	if f.before != nil {
		f.before(ops)
	}
	f.applied.Add(1)
	return f.Store.Apply(ctx, ops)
}

func newPlane(t testing.TB, site api.Site, change ...func(*rest.Options)) *plane {
	t.Helper()
	p := &plane{t: t, db: db.New(api.Schema), store: &failing{Store: memory.New().Open()}}
	p.feed = store.NewFeeder(p.store, p.db, site, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.feed.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := p.store.Close(); err != nil {
			t.Error(err)
		}
	})
	<-p.feed.Ready()
	key, err := auth.SigningKeyRecord(auth.UserToken, "", 1, site, start)
	if err != nil {
		t.Fatal(err)
	}
	p.apply(key)
	p.token, err = auth.IssueUser(p.db.Snapshot(), start, auth.Admin(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	o := rest.Options{
		DB: p.db, Feeder: p.feed, Site: site, Access: auth.DefaultAccess(), Version: "0.1.0", Instance: "one",
		ClusterID: func() string { return "cluster" }, Now: func() time.Time { return start },
	}
	for _, f := range change {
		f(&o)
	}
	p.http = rest.New(o)
	return p
}

// apply writes records around the API, as other writers do.
func (p *plane) apply(records ...store.Record) {
	p.t.Helper()
	ops := make([]store.Op, len(records))
	for i, r := range records {
		ops[i] = store.Op{Record: r}
	}
	if _, err := p.feed.Apply(p.t.Context(), ops); err != nil {
		p.t.Fatal(err)
	}
}

type reply struct {
	status int
	header http.Header
	text   string
}

func (r reply) json(t testing.TB) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(r.text), &out); err != nil {
		t.Fatalf("%d %q: %v", r.status, r.text, err)
	}
	return out
}

// faults are field: reason, sorted.
func (r reply) faults(t testing.TB) []string {
	t.Helper()
	var body struct {
		Invalid []api.Fault `json:"invalid_parameters"`
	}
	if err := json.Unmarshal([]byte(r.text), &body); err != nil {
		t.Fatalf("%d %q: %v", r.status, r.text, err)
	}
	var out []string
	for _, f := range body.Invalid {
		out = append(out, f.String())
	}
	slices.Sort(out)
	return out
}

func (p *plane) do(method, path, body string, change ...func(*http.Request)) reply {
	p.t.Helper()
	r := httptest.NewRequest(method, "http://cp.example:5681"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+p.token)
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	p.http.ServeHTTP(w, r)
	text, err := io.ReadAll(w.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return reply{w.Code, w.Header(), string(text)}
}

func (p *plane) want(status int, method, path, body string, change ...func(*http.Request)) reply {
	p.t.Helper()
	r := p.do(method, path, body, change...)
	if r.status != status {
		p.t.Fatalf("%s %s: %d, want %d: %s", method, path, r.status, status, r.text)
	}
	return r
}

func anonymous(r *http.Request) { r.Header.Del("Authorization") }

func (p *plane) mesh(name string) {
	p.t.Helper()
	p.want(201, "PUT", "/meshes/"+name, fmt.Sprintf(`{"type":"Mesh","name":%q,"skipCreatingInitialPolicies":["*"]}`, name))
}

func timeout(mesh, name string) string {
	return fmt.Sprintf(`{"type":"MeshTimeout","mesh":%q,"name":%q,"spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"30m"}}]}}`, mesh, name)
}

func proxy(mesh, name string, labels string) string {
	if labels == "" {
		labels = "{}"
	}
	return fmt.Sprintf(`{"type":"Dataplane","mesh":%q,"name":%q,"labels":%s,"networking":{"address":"127.0.0.1","inbound":[{"port":80}]}}`, mesh, name, labels)
}

func TestWriteReadDelete(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	made := p.want(201, "PUT", "/meshes/default/meshtimeouts/t1", timeout("default", "t1"))
	if made.text != "{}\n" || made.header.Get("Content-Type") != "application/json" {
		t.Errorf("create: %q %v", made.text, made.header)
	}
	got := p.want(200, "GET", "/meshes/default/meshtimeouts/t1", "")
	want := `{
 "type": "MeshTimeout",
 "mesh": "default",
 "name": "t1",
 "creationTime": "2026-03-01T12:00:00Z",
 "modificationTime": "2026-03-01T12:00:00Z",
 "labels": {
  "kuma.io/display-name": "t1",
  "kuma.io/env": "universal",
  "kuma.io/mesh": "default",
  "kuma.io/origin": "zone",
  "kuma.io/zone": "east"
 },
 "kri": "kri_mt_default_east__t1_",
 "spec": {
  "to": [
   {
    "targetRef": {
     "kind": "Mesh"
    },
    "default": {
     "idleTimeout": "30m"
    }
   }
  ]
 }
}
`
	if got.text != want {
		t.Errorf("got\n%s\nwant\n%s", got.text, want)
	}
	if kri := p.want(200, "GET", "/_kri/kri_mt_default_east__t1_", ""); kri.text != got.text {
		t.Errorf("by KRI: %s", kri.text)
	}
	// What was read can be written back, and changes nothing.
	writes := p.store.applied.Load()
	again := p.want(200, "PUT", "/meshes/default/meshtimeouts/t1", got.text)
	if p.store.applied.Load() != writes {
		t.Error("an unchanged document was written")
	}
	if again.header.Get(rest.RevisionHeader) != made.header.Get(rest.RevisionHeader) || made.header.Get(rest.RevisionHeader) == "" {
		t.Errorf("revision %q, then %q", made.header.Get(rest.RevisionHeader), again.header.Get(rest.RevisionHeader))
	}
	changed := p.want(200, "PUT", "/meshes/default/meshtimeouts/t1", strings.Replace(timeout("default", "t1"), "30m", "31m", 1))
	if changed.header.Get(rest.RevisionHeader) <= made.header.Get(rest.RevisionHeader) {
		t.Errorf("revision did not grow: %v", changed.header)
	}
	if now := p.want(200, "GET", "/meshes/default/meshtimeouts/t1", ""); !strings.Contains(now.text, "31m") {
		t.Errorf("after the write: %s", now.text)
	}
	if gone := p.want(200, "DELETE", "/meshes/default/meshtimeouts/t1", ""); gone.text != "{}\n" || gone.header.Get(rest.RevisionHeader) == "" {
		t.Errorf("delete: %q %v", gone.text, gone.header)
	}
	for _, method := range []string{"GET", "DELETE"} {
		r := p.want(404, method, "/meshes/default/meshtimeouts/t1", "").json(t)
		if r["detail"] != "Not found" || r["type"] != "/std-errors" || r["status"] != 404.0 || r["details"] != "Not found" {
			t.Errorf("%s of what is not there: %v", method, r)
		}
	}
}

func TestErrorsOfPaths(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	for _, c := range []struct {
		status             int
		method, path, body string
		title              string
	}{
		{404, "GET", "/meshes/nope/meshtimeouts/a", "", "Failed to retrieve Mesh"},
		{404, "GET", "/meshes/nope/meshtimeouts", "", "Failed to retrieve Mesh"},
		{404, "PUT", "/meshes/nope/meshtimeouts/a", timeout("nope", "a"), "Failed to retrieve Mesh"},
		{404, "DELETE", "/meshes/nope/meshtimeouts/a", "", "Failed to retrieve Mesh"},
		{404, "GET", "/meshes/default/meshtimeouts/a", "", "Could not retrieve a resource"},
		{404, "DELETE", "/meshes/default/meshtimeouts/a", "", "Could not delete a resource"},
		{404, "GET", "/_kri/kri_mt_default_east__a_", "", "Could not retrieve a resource"},
		{400, "GET", "/_kri/kri_xx_default_east__a_", "", "Bad Request"},
		{400, "GET", "/_kri/nonsense", "", "Bad Request"},
		{404, "GET", "/nonsense", "", "404: Page Not Found"},
		{404, "GET", "/meshes/default/nonsense/a", "", "404: Page Not Found"},
		{405, "POST", "/meshes/default/meshtimeouts/a", "{}", "405: Method Not Allowed"},
		{405, "PUT", "/meshtimeouts", "{}", "405: Method Not Allowed"},
	} {
		r := p.want(c.status, c.method, c.path, c.body)
		if c.status == 405 && r.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
		if strings.HasPrefix(r.text, "40") {
			if r.text != c.title {
				t.Errorf("%s %s: %q", c.method, c.path, r.text)
			}
		} else if got := r.json(t)["title"]; got != c.title {
			t.Errorf("%s %s: title %q, want %q", c.method, c.path, got, c.title)
		}
	}
	p.want(415, "PUT", "/meshes/default/meshtimeouts/a", "x", func(r *http.Request) { r.Header.Set("Content-Type", "text/yaml") })
	p.want(406, "GET", "/meshes/default/meshtimeouts", "", func(r *http.Request) { r.Header.Set("Accept", "text/yaml") })
	p.want(413, "PUT", "/meshes/default/meshtimeouts/a", `{"a":"`+strings.Repeat("x", rest.MaxBody)+`"}`)
}

func TestBadDocumentsNameEveryFault(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	writes := p.store.applied.Load()
	for name, c := range map[string]struct {
		path, body string
		fields     []string // in invalid_parameters, or whole faults; nil: a Bad Request without
	}{
		"no JSON":      {"/meshes/default/meshtimeouts/a", `{`, nil},
		"two values":   {"/meshes/default/meshtimeouts/a", `{}{}`, nil},
		"too deep":     {"/meshes/default/meshtimeouts/a", strings.Repeat("[", 1000) + strings.Repeat("]", 1000), nil},
		"list":         {"/meshes/default/meshtimeouts/a", `[]`, []string{""}},
		"null":         {"/meshes/default/meshtimeouts/a", `null`, []string{".type in body is required", ".name in body is required", ".spec in body is required", "mesh"}},
		"null, flat":   {"/meshes/default/dataplanes/a", `null`, []string{"type", "name", "mesh", "networking"}},
		"unknown kind": {"/meshes/default/meshtimeouts/a", `{"type":"MeshTimeOut","mesh":"default","name":"A"}`, []string{`type in body should be one of [MeshTimeout]; did you mean "MeshTimeout"?`, "name"}},
		"other kind":   {"/meshes/default/meshtimeouts/a", `{"type":"MeshHTTPRoute","mesh":"default","name":"a","spec":{}}`, []string{"type in body should be one of [MeshTimeout]"}},
		"other flat":   {"/meshes/default/dataplanes/a", `{"type":"Mesh","mesh":"default","name":"a"}`, []string{"type: type from the URL has to be the same as in body"}},
		"other place":  {"/meshes/default/meshtimeouts/a", timeout("prod", "b"), []string{"mesh", "name"}},
		"all at once": {"/meshes/default/meshtimeouts/a",
			`{"type":"MeshTimeout","mesh":"DEFAULT","name":"A_","labels":{"-bad":"x","kuma.io/origin":"moon"},"extra":1,
			  "spec":{"unknown":1,"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":7}}]}}`,
			[]string{"mesh", "name", `labels["-bad"]`, `labels["kuma.io/origin"]`, "extra", "spec.unknown", "spec.to[0].default.idleTimeout"}},
		"workload": {"/meshes/default/dataplanes/dp", proxy("default", "dp", `{"kuma.io/workload":"No_Label"}`), []string{`labels["kuma.io/workload"]`}},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.want(400, "PUT", c.path, c.body)
			all := "\n" + strings.Join(r.faults(t), "\n") + "\n"
			for _, field := range c.fields {
				if field != "" && !strings.Contains(all, "\n"+field+": ") && !strings.Contains(all, "\n"+field+"\n") {
					t.Errorf("no fault at %q in%s", field, all)
				}
			}
			body := r.json(t)
			if c.fields == nil && (body["title"] != "Bad Request" || !strings.HasPrefix(body["detail"].(string), `invalid MeshTimeout object: "`)) {
				t.Errorf("%s", r.text)
			}
			if c.fields != nil && (body["title"] != "Could not process a resource" || body["detail"] != "Resource is not valid" || body["causes"] == nil) {
				t.Errorf("%s", r.text)
			}
		})
	}
	if p.store.applied.Load() != writes {
		t.Error("a bad document was written")
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	jane, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "jane", Groups: []string{"team-a"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	expired, err := auth.IssueUser(p.db.Snapshot(), start, auth.Admin(), -time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	as := func(header string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del("Authorization")
			if header != "" {
				r.Header.Set("Authorization", header)
			}
		}
	}
	for _, c := range []struct {
		who                string
		status             int
		method, path, body string
	}{
		{"", 200, "GET", "/", ""},
		{"Bearer junk", 200, "GET", "/", ""},
		{"", 401, "GET", "/meshes", ""},
		{"", 401, "GET", "/meshes/nope/meshtimeouts", ""},
		{"", 401, "PUT", "/meshes/default/meshtimeouts/a", timeout("default", "a")},
		{"", 401, "DELETE", "/meshes/default", ""},
		{"", 401, "GET", "/config", ""},
		{"", 401, "GET", "/who-am-i", ""},
		{"", 401, "GET", "/_resources", ""},
		{"", 401, "GET", "/policies", ""},
		{"", 401, "GET", "/_kri/x", ""},
		{"", 401, "GET", "/zones/_overview", ""},
		{"", 401, "POST", "/tokens/user", "{}"},
		{"", 401, "POST", "/tokens/zone", "{}"},
		{"", 401, "POST", "/tokens/dataplane", "{}"},
		{"Bearer junk", 401, "GET", "/meshes", ""},
		{"Bearer " + expired, 401, "GET", "/meshes", ""},
		{"Basic YTpi", 401, "GET", "/meshes", ""},
		{"Bearer " + jane, 200, "GET", "/meshes", ""},
		{"Bearer " + jane, 200, "GET", "/who-am-i", ""},
		{"Bearer " + jane, 200, "GET", "/config", ""},
		{"Bearer " + jane, 201, "PUT", "/meshes/default/meshtimeouts/a", timeout("default", "a")},
		{"Bearer " + jane, 403, "GET", "/meshes/default/secrets", ""},
		{"Bearer " + jane, 403, "GET", "/meshes/default/secrets/dataplane-token-signing-key-default-1", ""},
		{"Bearer " + jane, 403, "GET", "/globalsecrets", ""},
		{"Bearer " + jane, 403, "GET", "/global-secrets", ""},
		{"Bearer " + jane, 403, "PUT", "/globalsecrets/a", `{"type":"GlobalSecret","name":"a","data":""}`},
		{"Bearer " + jane, 403, "POST", "/tokens/user", `{"name":"x","validFor":"1h"}`},
		{"Bearer " + jane, 403, "POST", "/tokens/zone", `{}`},
		{"Bearer " + jane, 403, "POST", "/tokens/dataplane", `{"mesh":"default"}`},
		{"Bearer " + p.token, 200, "GET", "/meshes/default/secrets", ""},
		{"Bearer " + p.token, 200, "GET", "/global-secrets", ""},
	} {
		r := p.do(c.method, c.path, c.body, as(c.who))
		if r.status != c.status {
			t.Errorf("%.15s: %s %s: %d, want %d: %s", c.who, c.method, c.path, r.status, c.status, r.text)
			continue
		}
		switch body := r; c.status {
		case 401:
			if e := body.json(t); e["title"] != "Invalid authentication data" || e["detail"] != "Unauthenticated" {
				t.Errorf("%v", e)
			}
		case 403:
			if e := body.json(t); e["title"] != "Access Denied" {
				t.Errorf("%v", e)
			}
		}
	}
	denied := p.do("GET", "/meshes/default/secrets", "", as("Bearer "+jane)).json(t)
	if denied["detail"] != `user "jane/team-a,mesh-system:authenticated" cannot access the resource of type "Secret"` {
		t.Errorf("%v", denied)
	}
	open := newPlane(t, atZone, readsForAll, writesForAll)
	open.want(200, "GET", "/meshes", "", anonymous)
	open.want(201, "PUT", "/meshes/m", `{"type":"Mesh","name":"m"}`, anonymous)
	open.want(401, "GET", "/globalsecrets", "", anonymous)
}

func TestLocalhostIsAdmin(t *testing.T) {
	p := newPlane(t, atZone, func(o *rest.Options) { o.LocalhostIsAdmin = true })
	local := func(r *http.Request) {
		anonymous(r)
		r.RemoteAddr, r.Host = "127.0.0.1:1234", "localhost:5681"
	}
	set := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	host := func(h string) func(*http.Request) { return func(r *http.Request) { r.Host = h } }
	from := func(a string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = a } }
	for _, c := range []struct {
		change func(*http.Request)
		admin  bool
	}{
		{func(*http.Request) {}, true},
		{host("127.0.0.1:5681"), true},
		{host("[::1]:5681"), true},
		{from("[::1]:9"), true},
		{set("Sec-Fetch-Site", "same-origin"), true},
		{set("Sec-Fetch-Site", "none"), true},
		{set("Origin", "http://localhost:5681"), true},
		{from("192.0.2.1:9"), false},
		{host("cp.example:5681"), false},
		{host("localhost.evil.example"), false},
		{set("Forwarded", "for=1.1.1.1"), false},
		{set("X-Forwarded-For", "1.1.1.1"), false},
		{set("X-Forwarded-For", ""), false},
		{set("X-Real-IP", "127.0.0.1"), false},
		{set("Via", "1.1 proxy"), false},
		{set("X-Forwarded-Proto", "https"), false},
		{set("X-Envoy-Expected-Rq-Timeout-Ms", "15000"), false},
		{set("Sec-Fetch-Site", "cross-site"), false},
		{set("Sec-Fetch-Site", "same-site"), false},
		{set("Origin", "http://evil.example"), false},
		{set("Origin", "https://localhost:5681"), false},
		{set("Origin", "null"), false},
	} {
		r := httptest.NewRequest("GET", "http://localhost:5681/", nil)
		local(r)
		c.change(r)
		status := p.do("GET", "/globalsecrets", "", local, c.change).status
		if (status == 200) != c.admin {
			t.Errorf("from %s to %s %v: %d", r.RemoteAddr, r.Host, r.Header, status)
		}
	}
	if got := p.want(200, "GET", "/who-am-i", "", local).json(t)["name"]; got != "mesh-system:admin" {
		t.Errorf("who: %v", got)
	}
	off := newPlane(t, atZone)
	off.want(401, "GET", "/meshes", "", local)
}

func TestPages(t *testing.T) {
	p := newPlane(t, atZone)
	for _, mesh := range []string{"b", "a"} {
		p.mesh(mesh)
		for i := range 5 {
			p.want(201, "PUT", fmt.Sprintf("/meshes/%s/dataplanes/dp-%d", mesh, i), proxy(mesh, fmt.Sprintf("dp-%d", i), fmt.Sprintf(`{"n":"%d","team":"x"}`, i%2)))
		}
	}
	type page struct {
		Total int
		Items []struct{ Mesh, Name string }
		Next  *string
	}
	get := func(path string) (page, string) {
		t.Helper()
		r := p.want(200, "GET", path, "")
		var out page
		if err := json.Unmarshal([]byte(r.text), &out); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, i := range out.Items {
			names = append(names, i.Mesh+"/"+i.Name)
		}
		return out, strings.Join(names, " ")
	}
	for path, want := range map[string]struct {
		total int
		names string
		next  string
	}{
		"/meshes/a/dataplanes":                              {5, "a/dp-0 a/dp-1 a/dp-2 a/dp-3 a/dp-4", ""},
		"/meshes/a/dataplanes?size=2":                       {5, "a/dp-0 a/dp-1", "http://cp.example:5681/meshes/a/dataplanes?offset=2&size=2"},
		"/meshes/a/dataplanes?size=2&offset=2&z=1":          {5, "a/dp-2 a/dp-3", "http://cp.example:5681/meshes/a/dataplanes?offset=4&size=2&z=1"},
		"/meshes/a/dataplanes?size=2&offset=4":              {5, "a/dp-4", ""},
		"/meshes/a/dataplanes?offset=99":                    {5, "", ""},
		"/meshes/a/dataplanes?offset=9223372036854775807":   {5, "", ""},
		"/dataplanes?size=6":                                {10, "a/dp-0 a/dp-1 a/dp-2 a/dp-3 a/dp-4 b/dp-0", "http://cp.example:5681/dataplanes?offset=6&size=6"},
		"/dataplanes?name=p-3":                              {2, "a/dp-3 b/dp-3", ""},
		"/meshes/b/dataplanes?filter[labels.n]=1":           {2, "b/dp-1 b/dp-3", ""},
		"/meshes/b/dataplanes?filter[labels.n]=1&size=1":    {2, "b/dp-1", "http://cp.example:5681/meshes/b/dataplanes?filter%5Blabels.n%5D=1&offset=1&size=1"},
		"/meshes/b/dataplanes?filter[labels.kuma.io/zone]=": {0, "", ""},
		"/meshes/b/dataplanes?tag=n:1&tag=team:*":           {2, "b/dp-1 b/dp-3", ""},
		"/meshes/b/dataplanes?tag=n:1&tag=team:y":           {0, "", ""},
		"/meshes/b/dataplanes?gateway=true":                 {0, "", ""},
		"/meshes/b/dataplanes?gateway=false&size=1":         {5, "b/dp-0", "http://cp.example:5681/meshes/b/dataplanes?gateway=false&offset=1&size=1"},
		"/meshes/b/dataplanes/_overview?name=p-3":           {1, "b/dp-3", ""},
		"/dataplanes+insights?size=1":                       {10, "a/dp-0", "http://cp.example:5681/dataplanes+insights?offset=1&size=1"},
	} {
		got, names := get(path)
		next := ""
		if got.Next != nil {
			next = *got.Next
		}
		if got.Total != want.total || names != want.names || next != want.next {
			t.Errorf("%s: %d %q %q, want %d %q %q", path, got.Total, names, next, want.total, want.names, want.next)
		}
	}
	if r := p.want(200, "GET", "/meshes/a/dataplanes?offset=99", ""); !strings.Contains(r.text, "\"items\": [],\n \"next\": null\n") {
		t.Errorf("%s", r.text)
	}
	for query, want := range map[string]string{
		"size=x":               "size: invalid format",
		"size=0":               "size: must be greater than 0",
		"size=-1":              "size: must be greater than 0",
		"size=1001":            "size: invalid page size of 1001. Maximum page size is 1000",
		"filter[name]=x":       "/meshes/{mesh}/dataplanes.filter[name]: filters are only supported on labels",
		"filter[labels.a][b]=": "/meshes/{mesh}/dataplanes.filter[labels.a][b]: advanced filters are not supported",
		"gateway=x":            "/meshes/{mesh}/dataplanes.gateway: should use `true`, `false` or `delegated` instead of x",
	} {
		if got := p.want(400, "GET", "/meshes/a/dataplanes?"+query, "").faults(t); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	for _, offset := range []string{"x", "-1", "1.5"} {
		if e := p.want(400, "GET", "/meshes/a/dataplanes?offset="+offset, "").json(t); !strings.HasPrefix(e["detail"].(string), "invalid: invalid offset: ") {
			t.Errorf("%v", e)
		}
	}
}

func TestMeshBringsItsKeyAndTakesAllWithIt(t *testing.T) {
	p := newPlane(t, atZone)
	writes := p.store.applied.Load()
	p.want(201, "PUT", "/meshes/prod", `{"type":"Mesh","name":"prod"}`)
	if p.store.applied.Load() != writes+1 {
		t.Error("a mesh and what comes with it were not one write")
	}
	token := p.want(200, "POST", "/tokens/dataplane", `{"mesh":"prod"}`)
	if _, err := auth.NewValidator(auth.Options{}).ParseDataplane(p.db.Snapshot(), start, "prod", token.text); err != nil {
		t.Error(err)
	}
	if n := p.want(200, "GET", "/meshes/prod/meshtimeouts", "").json(t)["total"]; n != 2.0 {
		t.Errorf("%v initial timeouts", n)
	}
	p.want(201, "PUT", "/meshes/prod/dataplanes/dp", proxy("prod", "dp", ""))
	if f := p.want(400, "DELETE", "/meshes/prod", "").faults(t); len(f) != 1 || f[0] != "mesh: unable to delete mesh, there are still some dataplanes attached" {
		t.Errorf("%q", f)
	}
	p.want(200, "DELETE", "/meshes/prod/dataplanes/dp", "")
	p.want(200, "DELETE", "/meshes/prod", "")
	p.want(404, "GET", "/meshes/prod", "")
	for _, k := range api.Kinds {
		if k.Info().Scope == api.MeshScope {
			for row := range k.Rows(p.db.Snapshot(), "prod") {
				t.Errorf("%s is left of the mesh", row.Head().ID)
			}
		}
	}
	p.want(201, "PUT", "/meshes/plain", `{"type":"Mesh","name":"plain","skipCreatingInitialPolicies":["*"]}`)
	if n := p.want(200, "GET", "/meshes/plain/meshtimeouts", "").json(t)["total"]; n != 0.0 {
		t.Errorf("%v initial timeouts although skipped", n)
	}
}

func TestAWriteIntoAMeshThatIsBeingDeleted(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("prod")
	inner := p.store.Store
	p.store.before = func(ops []store.Op) {
		p.store.before = nil
		// The mesh goes between the check and the write.
		var gone []store.Op
		for _, k := range api.Kinds {
			for row := range k.AllRows(p.db.Snapshot()) {
				if id := row.Head().ID; id.Mesh == "prod" || id.Kind == "Mesh" {
					gone = append(gone, store.Op{Record: store.Record{ID: id}, Delete: true})
				}
			}
		}
		if _, err := inner.Apply(t.Context(), gone); err != nil {
			t.Error(err)
		}
	}
	r := p.want(400, "PUT", "/meshes/prod/meshtimeouts/t", timeout("prod", "t"))
	if f := r.faults(t); len(f) != 1 || f[0] != "mesh: mesh of name prod is not found" || r.json(t)["detail"] != "Mesh is not found" {
		t.Errorf("%s", r.text)
	}
	for row := range api.MeshTimeouts.All(p.db.Snapshot()) {
		t.Errorf("%s was left in a mesh that is gone", row.ID)
	}
}

func TestReadOnly(t *testing.T) {
	const (
		onGlobal = "On global control plane you can not modify dataplane resources with 'kumactl apply' or via the HTTP API."
		onZone   = "On zone control plane you can only modify zone resources with 'kumactl apply' or via the HTTP API."
	)
	mesh := store.Record{ID: api.ID{Kind: "Mesh", Name: "default"}}
	for name, c := range map[string]struct {
		site   api.Site
		ro     bool
		path   string
		detail string // empty: may be written
	}{
		"global, dataplane":    {atGlobal, false, "/meshes/default/dataplanes/a", onGlobal},
		"global, meshservice":  {atGlobal, false, "/meshes/default/meshservices/a", onGlobal},
		"global, insight":      {atGlobal, false, "/meshes/default/dataplane-insights/a", onGlobal},
		"global, timeout":      {atGlobal, false, "/meshes/default/meshtimeouts/a", ""},
		"federated, mesh":      {atFederated, false, "/meshes/a", onZone},
		"federated, multizone": {atFederated, false, "/meshes/default/meshmultizoneservices/a", onZone},
		"federated, timeout":   {atFederated, false, "/meshes/default/meshtimeouts/a", ""},
		"zone, mesh":           {atZone, false, "/meshes/a", ""},
		"zone, multizone":      {atZone, false, "/meshes/default/meshmultizoneservices/a", ""},
		"zone, insight":        {atZone, false, "/meshes/default/dataplane-insights/a", onZone},
		"zone, zone insight":   {atZone, false, "/zone-insights/a", onZone},
		"read only, timeout":   {atZone, true, "/meshes/default/meshtimeouts/a", onZone},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlane(t, c.site, func(o *rest.Options) { o.ReadOnly = c.ro })
			p.apply(mesh)
			for _, method := range []string{"PUT", "DELETE"} {
				r := p.do(method, c.path, `{}`)
				if c.detail == "" {
					if r.status == 405 {
						t.Errorf("%s: %s", method, r.text)
					}
					continue
				}
				if r.status != 405 {
					t.Errorf("%s: %d %s", method, r.status, r.text)
					continue
				}
				if body := r.json(t); body["title"] != "Method not allowed" || !strings.HasPrefix(body["detail"].(string), c.detail) || !strings.HasSuffix(body["detail"].(string), "\n") {
					t.Errorf("%s: %v", method, body)
				}
			}
		})
	}
}

func TestOnlyTheOriginChangesARow(t *testing.T) {
	p := newPlane(t, atFederated)
	id := api.ID{Kind: "MeshTimeout", Mesh: "default", Name: "t"}
	k, _ := api.ByName("MeshTimeout")
	p.apply(
		store.Record{ID: api.ID{Kind: "Mesh", Name: "default"}, Source: api.Global},
		store.Record{ID: id, Source: api.Global, Labels: map[string]string{api.LabelOrigin: "global", api.LabelDisplayName: "t"}, Spec: json.RawMessage(`{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1m"}}]}`)},
	)
	path, name := "/meshes/default/meshtimeouts/", api.SyncName(k, id)
	p.want(200, "GET", path+name, "")
	doc := strings.Replace(timeout("default", name), `"spec"`, `"labels":{"kuma.io/origin":"zone"},"spec"`, 1)
	for _, f := range [][]string{
		p.want(400, "PUT", path+name, doc).faults(t),
		p.want(400, "DELETE", path+name, "").faults(t),
	} {
		if len(f) != 1 || !strings.HasPrefix(f[0], `labels["kuma.io/origin"]: the origin label must be set to 'zone'`) {
			t.Errorf("%q", f)
		}
	}
	own := strings.Replace(doc, name, "mine", 1)
	p.want(201, "PUT", path+"mine", own)
	p.want(400, "PUT", path+"mine", timeout("default", "mine")) // origin label missing
	p.want(200, "DELETE", path+"mine", "")
}

func TestConflictsAreRetried(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.want(201, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t"))
	inner, raced := p.store.Store, 0
	race := func([]store.Op) {
		row, ok := api.MeshTimeouts.Named(p.db.Snapshot(), "default", "t")
		if !ok {
			t.Fatal("row is gone")
		}
		raced++
		record := store.RecordOf(row)
		record.Labels = map[string]string{"raced": fmt.Sprint(raced)}
		if _, err := inner.Apply(t.Context(), []store.Op{{Record: record}}); err != nil {
			t.Error(err)
		}
	}
	p.store.before = func(ops []store.Op) { p.store.before = nil; race(ops) }
	p.want(200, "PUT", "/meshes/default/meshtimeouts/t", strings.Replace(timeout("default", "t"), "30m", "5m", 1))
	if raced != 1 {
		t.Fatalf("raced %d times", raced)
	}
	p.store.before = race
	r := p.want(409, "PUT", "/meshes/default/meshtimeouts/t", strings.Replace(timeout("default", "t"), "30m", "6m", 1))
	if r.json(t)["title"] != "Conflict" {
		t.Errorf("%s", r.text)
	}
}

func TestTheStoreSaysWhatIsWrong(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.store.err = errors.New("write atoll.db: no space left on device")
	for _, r := range []reply{
		p.want(500, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t")),
		p.want(500, "DELETE", "/meshes/default", ""),
	} {
		if !strings.Contains(r.json(t)["detail"].(string), "no space left on device") {
			t.Errorf("%s", r.text)
		}
	}
	for _, p.store.err = range []error{store.ErrClosed, fmt.Errorf("%w: connection refused", store.ErrUnavailable)} {
		r := p.want(503, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t"))
		if !strings.Contains(r.json(t)["detail"].(string), p.store.err.Error()) {
			t.Errorf("%s", r.text)
		}
	}
	p.store.err = nil
	p.want(404, "GET", "/meshes/default/meshtimeouts/t", "")
}

// direct is an http.RoundTripper that calls a handler.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	r.RemoteAddr = "192.0.2.1:1234"
	d.ServeHTTP(w, r)
	return w.Result(), nil
}

// What a peer wrote into a flat spec does not come twice under a name.
func TestNoNameComesTwice(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	for i, spec := range []string{
		`{"name":"evil","networking":{"address":"127.0.0.1","inbound":[{"port":80,"name":"http"}]}}`,
		`{"networking":{"address":"127.0.0.1","inbound":[{"port":80,"name":"http"}]},"n\u0061me":"evil","labels":{"a":"evil"}}`,
		`{"kri":"evil","mesh":"evil","networking":{"address":"127.0.0.1","inbound":[{"port":80,"name":"http"}]},"type":"evil","probes":{}}`,
		`{"networking":{"address":"127.0.0.1","inbound":[{"port":80,"name":"http"}]}}`,
	} {
		name := fmt.Sprintf("dp-%d", i)
		p.apply(store.Record{ID: api.ID{Kind: "Dataplane", Mesh: "default", Zone: "east", Name: name}, Spec: json.RawMessage(spec)})
		r := p.want(200, "GET", "/meshes/default/dataplanes/"+name, "")
		if got := r.json(t); got["name"] != name || at(got, "networking.inbound.0.name") != "http" {
			t.Errorf("%s", r.text)
		}
		if strings.Contains(r.text, "evil") || strings.Count(r.text, "\n \"name\":") != 1 || strings.Contains(spec, "probes") != strings.Contains(r.text, "\"probes\"") {
			t.Errorf("%s: %s", spec, r.text)
		}
	}
}
