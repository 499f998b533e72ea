package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/api/store"
)

// whole is a configuration as a control plane has it.
type whole struct {
	server.Config
	Name  string          `json:"name"`
	Flush server.Duration `json:"flush"`
	Zones []string        `json:"zones"`
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "atoll.yaml")
	for name, c := range map[string]struct {
		file string
		env  []string
		want string // the values, or part of the error
	}{
		"defaults":           {want: ":5681 info  0s []"},
		"file over defaults": {file: "api: {address: ':1'}\nname: east\nflush: 3s\nzones: [a]", want: ":1 info east 3s [a]"},
		"environment over file": {
			file: "api: {address: ':1'}\nname: east\nflush: 3s",
			env:  []string{"ATOLL_API_ADDRESS=:2", "ATOLL_FLUSH=4s", "ATOLL_ZONES=a,b", "ATOLL_LOG_LEVEL=debug", "OTHER=x"},
			want: ":2 debug east 4s [a b]",
		},
		"empty list":     {file: "zones: [a]", env: []string{"ATOLL_ZONES="}, want: ":5681 info  0s []"},
		"unknown key":    {file: "api: {adress: x}", want: `unknown field "adress"`},
		"unknown at top": {file: "nmae: x", want: `unknown field "nmae"`},
		"every fault at once": {
			file: "api: {adress: x, localhostIsAdmin: sure, https: {adress: y}}\nstor: {type: bolt}\ndiagnostics: 7\nflush: 3\nzones: a",
			env:  []string{"ATOLL_API_READ_ONLY=no!"},
			want: `api.adress: unknown field "adress"; did you mean "address"?; api.https.adress: unknown field "adress"; did you mean "address"?; ` +
				`api.localhostIsAdmin: "sure" is neither true nor false; diagnostics: is a section, with keys below it; ` +
				`flush: a duration is a text such as "10s": json: cannot unmarshal number into Go value of type string; ` +
				`stor: unknown field "stor"; did you mean "store"?; zones: "a" is no list` +
				"\n" + `environment variable ATOLL_API_READ_ONLY: "no!" is neither true nor false`,
		},
		"inside a list":     {file: "tokens: {zone: {validator: {publicKeys: [{kdi: '1'}]}}}", want: `tokens.zone.validator.publicKeys: json: unknown field "kdi"`},
		"key twice":         {file: "name: x\nname: y", want: `"name"`},
		"wrong type":        {file: "api: {localhostIsAdmin: sure}", want: "api.localhostIsAdmin"},
		"wrong duration":    {file: "flush: 3", want: `a duration is a text such as "10s"`},
		"no YAML":           {file: "a: [", want: file},
		"wrong bool in env": {env: []string{"ATOLL_API_LOCALHOST_IS_ADMIN=sure"}, want: `environment variable ATOLL_API_LOCALHOST_IS_ADMIN: "sure" is neither true nor false`},
		"wrong time in env": {env: []string{"ATOLL_FLUSH=soon", "ATOLL_API_READ_ONLY=no!"}, want: "environment variable ATOLL_FLUSH"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
				t.Fatal(err)
			}
			got := whole{Config: server.Default()}
			err := server.Load(file, c.env, &got)
			text := fmt.Sprintf("%s %s %s %v %v", got.API.Address, got.Log.Level, got.Name, time.Duration(got.Flush), got.Zones)
			if err != nil {
				text = err.Error()
			}
			if !strings.Contains(text, c.want) || err != nil && strings.Contains(c.want, " info ") {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
	err := server.Load(filepath.Join(t.TempDir(), "absent.yaml"), nil, &whole{})
	if err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("a file that is not there: %v", err)
	}
	for _, s := range server.Settings(&whole{}) {
		if !strings.HasPrefix(s.Variable, "ATOLL_") || strings.ToUpper(s.Variable) != s.Variable {
			t.Errorf("variable %s", s.Variable)
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	c := server.Default()
	c.DataDir, c.Store.Type, c.Log.Level, c.Log.Format, c.TLS.CertFile = "", "disk", "loud", "xml", "x"
	var r api.Report
	c.Validate(&r)
	for _, field := range []string{"dataDir", "store.type", "log.level", "log.format", "tls"} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
}

func TestPostgresSettings(t *testing.T) {
	c := server.Default()
	c.DataDir = t.TempDir()
	file := filepath.Join(c.DataDir, "atoll.yaml")
	if err := os.WriteFile(file, []byte("name: east\nstore: {type: postgres, postgres: {host: 'db-1,db-2', dbName: mesh, connectionTimeout: 3s, tls: {mode: verifyFull}}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.LoadStore(file, []string{"ATOLL_STORE_POSTGRES_USER=me", "ATOLL_STORE_POSTGRES_PASSWORD=hush", "ATOLL_STORE_POSTGRES_MAX_OPEN_CONNECTIONS=7",
		"ATOLL_STORE_POSTGRES_TLS_DISABLE_SSLSNI=false"})
	if err != nil {
		t.Fatal(err)
	}
	var r api.Report
	s.Validate(r.At("store"))
	o := s.Postgres.Options(nil)
	if r.Err() != nil || o.Host != "db-1,db-2" || o.Port != 5432 || o.User != "me" || o.Password != "hush" || o.Database != "mesh" ||
		o.ConnectTimeout != 3*time.Second || o.Pool.MaxConns != 7 || o.TLS.Mode != "verifyFull" {
		t.Errorf("%+v, %v", o, r.Err())
	}
	shown, err := json.Marshal(s)
	if err != nil || bytes.Contains(shown, []byte("hush")) || strings.Contains(fmt.Sprintf("%v %+v", s, s), "hush") {
		t.Errorf("the password is shown: %s %v", shown, err)
	}
	if err := os.WriteFile(file, []byte("store: {postgres: {hots: x}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.LoadStore(file, nil); err == nil || !strings.Contains(err.Error(), "hots") {
		t.Errorf("an unknown key: %v", err)
	}

	p := server.PostgresConfig{
		Host: "postgres://db", Password: "x", PasswordFile: "/nowhere/password", MinOpenConnections: 9, MaxOpenConnections: 2,
		TLS: server.PostgresTLSConfig{Mode: "verifyFull", CertPath: "/nowhere/cert", DisableSSLSNI: true},
	}
	c.Store = server.StoreConfig{Type: "postgres", Postgres: p}
	r = api.Report{}
	c.Validate(&r)
	for _, field := range []string{
		"host", "port", "user", "dbName", "password", "passwordFile", "connectionTimeout", "transactionTimeout", "minOpenConnections",
		"maxConnectionIdleTime", "maxConnectionLifetime", "healthCheckInterval", "pollInterval", "keepChanges", "tls", "tls.certPath", "tls.disableSSLSNI",
	} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), "store.postgres."+field+": ") {
			t.Errorf("%s is not named in %v", field, err)
		}
	}
	for mode, field := range map[string]string{"disable": "caPath", "verifyNone": "caPath", "on": "mode"} {
		c.Store.Postgres.TLS = server.PostgresTLSConfig{Mode: mode, CAPath: file}
		r = api.Report{}
		c.Validate(&r)
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), "store.postgres.tls."+field+": ") {
			t.Errorf("%s with %s is not named in %v", field, mode, err)
		}
	}
}

// running is the common parts of a control plane that run, with the API behind
// an HTTP server.
type running struct {
	*server.Server
	url  string
	stop func()
}

func run(t *testing.T, dir string, site api.Site, change ...func(*server.Config)) *running {
	t.Helper()
	c := server.Default()
	c.DataDir, c.Log.Level = dir, "error"
	for _, f := range change {
		f(&c)
	}
	s, err := server.Open(c, site, "test", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = s.Feeder.Run(ctx) })
	<-s.Feeder.Ready()
	h, err := s.REST(c, nil, s.Convergence(api.Global, func(zone string) bool { return zone != "away" }))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bootstrap(ctx, h); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(h)
	r := &running{Server: s, url: web.URL}
	r.stop = sync.OnceFunc(func() {
		web.Close()
		cancel()
		all.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func rows(s *server.Server) map[string]int {
	out := map[string]int{}
	for _, k := range api.Kinds {
		for row := range k.AllRows(s.DB.Snapshot()) {
			out[k.Info().Name]++
			_ = row
		}
	}
	return out
}

func TestFirstAndSecondStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	r := run(t, dir, api.Site{Env: "universal"})
	info, err := os.Stat(filepath.Join(dir, server.TokenFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("token file: %v %v", info, err)
	}
	for _, name := range []string{"server.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	token, err := os.ReadFile(filepath.Join(dir, server.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	first := rows(r.Server)
	if first["Mesh"] != 1 || first["MeshIdentity"] != 1 || first["MeshTimeout"] == 0 || first["Secret"] == 0 || first["GlobalSecret"] != 3 {
		t.Errorf("a new control plane has %v", first)
	}
	// What a user deletes stays deleted; what is there is not made again.
	var ops []store.Op
	for p := range api.MeshTimeouts.All(r.DB.Snapshot()) {
		ops = append(ops, store.Op{Record: store.Record{ID: p.ID}, Delete: true})
	}
	for p := range api.MeshIdentities.All(r.DB.Snapshot()) {
		ops = append(ops, store.Op{Record: store.Record{ID: p.ID}, Delete: true})
	}
	if _, err := r.Feeder.Apply(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	want := rows(r.Server)
	at, _ := api.Revisions.Get(r.DB.Snapshot(), "")
	r.stop()
	if err := os.Chmod(filepath.Join(dir, server.TokenFile), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, server.TokenFile), []byte("another\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r = run(t, dir, api.Site{Env: "universal"})
	if got := rows(r.Server); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after the second start %v, want %v", got, want)
	}
	if now, _ := api.Revisions.Get(r.DB.Snapshot(), ""); now.Mark != at.Mark {
		t.Errorf("the second start has written: %v, before %v", now.Mark, at.Mark)
	}
	again, err := os.ReadFile(filepath.Join(dir, server.TokenFile))
	info, _ = os.Stat(filepath.Join(dir, server.TokenFile))
	if err != nil || !bytes.Equal(again, token) || info.Mode().Perm() != 0o600 {
		t.Errorf("the token file was not mended: %q %v %v", again, info.Mode(), err)
	}
}

func TestFederatedZoneMakesNoMesh(t *testing.T) {
	r := run(t, t.TempDir(), api.Site{Zone: "east", Federated: true, Env: "universal"}, func(c *server.Config) { c.Store.Type = "memory" })
	if got := rows(r.Server); got["Mesh"] != 0 || got["MeshIdentity"] != 0 || got["Config"] != 0 || got["Zone"] != 1 {
		t.Errorf("a zone under a global has %v", got)
	}
	r = run(t, t.TempDir(), api.Site{Env: "universal"}, func(c *server.Config) {
		c.Store.Type, c.Defaults.SkipMeshCreation, c.Defaults.SkipHostnameGenerators = "memory", true, true
	})
	if got := rows(r.Server); got["Mesh"] != 0 || got["HostnameGenerator"] != 0 {
		t.Errorf("with everything skipped there are %v", got)
	}
}

// A store that cannot be read is an error that names the file; it is never an
// empty mesh.
func TestStoreThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	run(t, dir, api.Site{Env: "universal"}).stop()
	file := filepath.Join(dir, "atoll.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := server.Default()
	c.DataDir = dir
	for name, body := range map[string][]byte{"truncated": whole[:len(whole)/2], "a few bytes": whole[:100], "something else": bytes.Repeat([]byte("x"), len(whole))} {
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := server.Open(c, api.Site{}, "test", io.Discard)
		if err == nil {
			_ = s.Close()
			t.Errorf("%s: opened", name)
		} else if !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v does not name the file", name, err)
		}
		left, readErr := os.ReadFile(file)
		if readErr != nil || !bytes.Equal(left, body) {
			t.Errorf("%s: the file was changed", name)
		}
	}
	c.DataDir = filepath.Join(file, "inside")
	if _, err := server.Open(c, api.Site{}, "test", io.Discard); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Errorf("a data directory that cannot be: %v", err)
	}
	c.DataDir, c.Store.Type = t.TempDir(), "memory"
	if err := os.WriteFile(filepath.Join(c.DataDir, "server.crt"), []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Open(c, api.Site{}, "test", io.Discard); err == nil || !strings.Contains(err.Error(), "server certificate") {
		t.Errorf("a broken certificate: %v", err)
	}
}

func TestReady(t *testing.T) {
	c := server.Default()
	c.DataDir, c.Store.Type = t.TempDir(), "memory"
	c.API.Address, c.Diagnostics.Address = "127.0.0.1:0", "127.0.0.1:0"
	s, err := server.Open(c, api.Site{}, "test", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Collect(func() []server.Peer { return []server.Peer{{Name: "east", Connected: true, Applied: 7}} }); err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.Diagnostics().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	probe := func(when string, want int) {
		if code, body := get("/ready"); code != want {
			t.Errorf("ready %s: %d %s", when, code, body)
		}
		if code, _ := get("/healthy"); code != 200 {
			t.Errorf("healthy %s: %d", when, code)
		}
	}
	probe("before it runs", 503)
	h, err := s.REST(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := errors.New("a part has ended")
	err = s.Serve(t.Context(), h, func(context.Context) error {
		probe("when parts start", 200)
		return ended
	})
	if !errors.Is(err, ended) {
		t.Errorf("a part has ended, and Serve with %v", err)
	}
	code, body := get("/metrics")
	for _, want := range []string{`atoll_peer_connected{peer="east"} 1`, `atoll_peer_applied_revision{peer="east"} 7`, "go_goroutines"} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("metrics: %d, without %s", code, want)
		}
	}
	if code, _ := get("/debug/pprof/"); code != 404 {
		t.Errorf("profiles are served unasked: %d", code)
	}
}

func TestConvergence(t *testing.T) {
	r := run(t, t.TempDir(), api.Site{Env: "universal"}, func(c *server.Config) { c.Store.Type = "memory"; c.API.LocalhostIsAdmin = true })
	own, _ := api.Revisions.Get(r.DB.Snapshot(), "")
	tell := func(zone, instance, epoch string, counter uint64) {
		m := api.Meta{ID: api.ID{Kind: "Convergence", Zone: zone, Name: instance}, Core: instance}
		spec := api.Convergence{Instance: instance, Proxies: 2, Enforced: map[string]api.Mark{api.Global: {Epoch: epoch, Counter: counter}}}
		if _, err := r.DB.Write(func(tx *db.Tx) error { api.Convergences.PutObject(tx, api.Convergences.New(m, spec)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	get := func(query string) (int, server.Reach, string) {
		resp, err := http.Get(r.url + "/convergence" + query)
		if err != nil {
			t.Error(err)
			return 0, server.Reach{}, ""
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		var reach server.Reach
		if err == nil && resp.StatusCode == 200 {
			err = json.Unmarshal(body, &reach)
		}
		if err != nil {
			t.Error(err)
		}
		return resp.StatusCode, reach, string(body)
	}
	for query, field := range map[string]string{"?revision=x": "revision", "?revision=-1": "revision", "?wait=long": "wait", "?wait=-1s": "wait"} {
		if code, _, body := get(query); code != 400 || !strings.Contains(body, `"`+field+`"`) {
			t.Errorf("%s: %d %s", query, code, body)
		}
	}
	tell("east", "one", own.Epoch, own.Counter)
	tell("east", "two", own.Epoch, own.Counter-1)
	tell("away", "one", own.Epoch, 1) // is not waited for
	if _, reach, _ := get(""); reach.Converged || len(reach.Zones) != 2 || reach.Zones[1].Proxies != 4 || reach.Zones[1].Enforced != own.Counter-1 {
		t.Errorf("with an instance that lacks the newest: %+v", reach)
	}
	type answer struct {
		code  int
		reach server.Reach
	}
	done := make(chan answer, 1)
	go func() {
		code, reach, _ := get(fmt.Sprintf("?revision=%d&wait=1m", own.Counter))
		done <- answer{code, reach}
	}()
	tell("east", "two", "another history", own.Counter+5) // the number alone says nothing
	tell("east", "two", own.Epoch, own.Counter)
	if a := <-done; a.code != 200 || !a.reach.Converged {
		t.Errorf("after the wait: %+v", a)
	}
	if _, reach, _ := get(fmt.Sprintf("?revision=%d&wait=10ms", own.Counter+1)); reach.Converged {
		t.Errorf("a revision that is yet to come: %+v", reach)
	}
}

// Whom roles let read some resources sees nothing of the proxies of others.
func TestConvergenceNeedsTheRole(t *testing.T) {
	r := run(t, t.TempDir(), api.Site{Env: "universal"}, func(c *server.Config) { c.Store.Type = "memory"; c.API.LocalhostIsAdmin = true })
	token, err := auth.IssueUser(r.DB.Snapshot(), r.Now(), auth.User{Name: "ann"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	do := func(want int, method, path, body string, change func(*http.Request)) {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/json")
		change(q)
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if text, _ := io.ReadAll(res.Body); res.StatusCode != want {
			t.Errorf("%s %s: %d, want %d: %s", method, path, res.StatusCode, want, text)
		}
	}
	admin := func(*http.Request) {}
	// A name that is not of this machine: the token alone says who calls.
	ann := func(q *http.Request) { q.Host = "cp.example"; q.Header.Set("Authorization", "Bearer "+token) }
	role := func(want int, rules string) {
		t.Helper()
		do(want, "PUT", "/access-roles/web", `{"type":"AccessRole","name":"web","spec":{"rules":[`+rules+`]}}`, admin)
	}
	role(201, `{"types":["MeshTimeout"],"access":["READ"]}`)
	do(200, "GET", "/convergence", "", ann)
	do(201, "PUT", "/access-role-bindings/web", `{"type":"AccessRoleBinding","name":"web","spec":{"subjects":[{"type":"User","name":"ann"}],"roles":["web"]}}`, admin)
	do(403, "GET", "/convergence", "", ann)
	role(200, `{"access":["VIEW_CONTROL_PLANE_METADATA"]}`)
	do(200, "GET", "/convergence", "", ann)
}

func TestSplit(t *testing.T) {
	c := server.Default()
	c.DataDir, c.Store.Type = t.TempDir(), "memory"
	s, err := server.Open(c, api.Site{}, "test", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.Listen("both", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	split := server.NewSplit(l, s.Cert.Server())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- split.Run(ctx) }()
	names := make(chan string, 2)
	serve := func(name string, l net.Listener) {
		c, err := l.Accept()
		if err != nil {
			return
		}
		first := make([]byte, 4)
		_, err = io.ReadFull(c, first)
		names <- fmt.Sprintf("%s %s %v", name, first, err)
		_ = c.Close()
	}
	go serve("grpc", split.GRPC)
	go serve("http", split.HTTP)
	for _, text := range []string{"PRI * HTTP/2.0", "GET / HTTP/1.1"} {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("a client of both was given %s", p)
		}
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: "grpc PRI  <nil>", false: "http GET  <nil>"}[text[0] == 'P']
		if got := <-names; got != want {
			t.Errorf("%q went to %q, want %q", text, got, want)
		}
		_ = conn.Close()
	}
	// One that says nothing, one that speaks no TLS, and one that is on its way
	// to a server that is not there: none of them keeps Run from ending.
	for _, text := range []string{"", "hello"} {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /"); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not end")
	}
	for _, l := range []net.Listener{split.GRPC, split.HTTP, l} {
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a listener is open: %v", err)
		}
	}
}

// FuzzConfig lets a file say anything: what is refused is said with the name of
// the file, and what is taken can be judged and shown.
func FuzzConfig(f *testing.F) {
	for _, seed := range []string{
		"", "a: [", "null", "[]", "7", "api: {address: ':1'}\nname: east\nflush: 3s\nzones: [a]", "api: {adress: x}\napi: 7", "API: {ADDRESS: x}",
		"tokens: {zone: {validator: {publicKeys: [{kid: '1', key: x}]}}}", "store: {postgres: {port: 1e99}}", "flush: -1ns", "a: &a [*a]", "zones: null",
	} {
		f.Add([]byte(seed))
	}
	file := filepath.Join(f.TempDir(), "atoll.yaml")
	f.Fuzz(func(t *testing.T, body []byte) {
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
		got := whole{Config: server.Default()}
		if err := server.Load(file, nil, &got); err != nil {
			if !strings.Contains(err.Error(), file) {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		var r api.Report
		got.Validate(&r)
		for _, s := range server.Settings(&got) {
			if !json.Valid([]byte(s.Value())) {
				t.Fatalf("%q: %s is %s", body, s.Path, s.Value())
			}
		}
	})
}
