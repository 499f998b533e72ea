package rest_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/rest"
)

func TestAnOriginInCapitals(t *testing.T) {
	origins, err := rest.ParseOrigins([]string{"HTTPS://gui.example"})
	if err != nil || !origins[0].MatchString("https://gui.example") || origins[0].MatchString("https://guixexample") {
		t.Errorf("%v %v", origins, err)
	}
}

func TestRedirectsKeepTheBasePath(t *testing.T) {
	p := newPlane(t, atGlobal, func(o *rest.Options) { o.BasePath = "/api" })
	for from, to := range map[string]string{
		"/api//meshes?size=1": "/api/meshes?size=1", "/api/x/../zones": "/api/zones", "/api/../zones": "/api/zones", "/api//evil.example/": "/api/evil.example/",
	} {
		if r := p.do("GET", from, ""); r.status != http.StatusTemporaryRedirect || r.header.Get("Location") != to {
			t.Errorf("%s: %d %s, want %s", from, r.status, r.header.Get("Location"), to)
		}
	}
	p.want(200, "GET", "/api", "")
	p.want(200, "GET", "/api/", "")
}

// Strangers do not fill the log.
func TestRefusalsAreLoggedNowAndThen(t *testing.T) {
	var log bytes.Buffer
	now := start
	p := newPlane(t, atGlobal, func(o *rest.Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.Now = func() time.Time { return now }
	})
	for range 50 {
		p.want(401, "GET", "/meshes", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") })
	}
	now = now.Add(time.Minute)
	p.want(401, "GET", "/meshes", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") })
	if text := log.String(); strings.Count(text, "refused a user token") != 2 || !strings.Contains(text, "unsaid=49") {
		t.Error(text)
	}
}

// FuzzListQuery lets a stranger ask for any page. What is answered is a part of
// the list, and next leads on.
func FuzzListQuery(f *testing.F) {
	p := newPlane(f, atZone)
	p.mesh("default")
	for _, name := range []string{"a", "b", "c"} {
		p.idle(name, "1m")
	}
	for _, seed := range []string{"size=1", "size=2&offset=1", "offset=9223372036854775807", "size=-1", "filter[labels.kuma.io/zone]=east", "filter[", "size=%zz", "name=a;b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		values, _ := url.ParseQuery(query) // the server reads what there is, too
		values.Del("watch")
		p := *p
		p.t = t
		r := p.do("GET", timeouts+"?"+values.Encode(), "")
		if r.status != 200 {
			if r.status >= 500 {
				t.Fatalf("%q: %d %s", query, r.status, r.text)
			}
			return
		}
		list := r.json(t)
		n, total := len(list["items"].([]any)), int(list["total"].(float64))
		if n > total || total > 3 || list["next"] != nil && n == 0 {
			t.Fatalf("%q: %s", query, r.text)
		}
	})
}
