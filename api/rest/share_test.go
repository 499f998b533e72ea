package rest_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/rest"
)

// watchAll opens watches until one more is refused.
func (p *plane) watchAll(path string, as func(*http.Request)) (open []*watched) {
	p.t.Helper()
	for range 4096 {
		w := p.watch(path, as)
		if _, ok := w.next(); !ok {
			return open
		}
		open = append(open, w)
	}
	p.t.Fatal("one caller takes all watches")
	return nil
}

// One caller cannot take the watches of the others.
func TestACallerHasAShareOfWatches(t *testing.T) {
	const path = "/zones?watch=true"
	p := newPlane(t, atGlobal, readsForAll, func(o *rest.Options) {
		o.Extra = []rest.Endpoint{{Pattern: "GET /long", Waits: true, Handle: func(w http.ResponseWriter, _ *http.Request) error {
			rest.WriteJSON(w, 200, "waited")
			return nil
		}}}
	})
	token, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "jane", Groups: []string{auth.GroupAuthenticated}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	jane := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
	from := func(address string) func(*http.Request) {
		return func(r *http.Request) { anonymous(r); r.RemoteAddr = address }
	}
	for _, c := range []struct {
		name        string
		as, another func(*http.Request)
		says        string
	}{
		{"user", jane, func(*http.Request) {}, "user jane has 512"},
		{"IPv4", from("192.0.2.7:1000"), from("192.0.2.8:1000"), "address 192.0.2.7 has 512"},
		{"IPv6", from("[2001:db8::1]:1000"), from("[2001:db8:0:1::1]:1000"), "address 2001:db8::/64 has 512"},
	} {
		open := p.watchAll(path, c.as)
		for _, full := range []string{path, "/long"} {
			if r := p.want(429, "GET", full, "", c.as); !strings.Contains(r.text, c.says) {
				t.Errorf("%s: %s", c.name, r.text)
			}
		}
		if c.name == "IPv6" {
			p.want(429, "GET", path, "", from("[2001:db8::2]:9"))
		}
		p.watch(path, c.another).want("reset")
		open[0].stop()
		p.watch(path, c.as).want("reset")
		for _, w := range open {
			w.stop()
		}
	}
	p.want(200, "GET", "/long", "", jane)
}
