package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// httpRoute: requests go where path, method, headers and query say, into the other
// zone too and by weight; they are changed, redirected, mirrored and refused on the way.
func httpRoute(t *testing.T, l *lab) {
	const backend = "backendRefs: [{kind: MeshService, labels: {kuma.io/display-name: %s}, port: 8080}]"
	remote := fmt.Sprintf(backend, "remote")
	l.with(t, `
type: MeshHTTPRoute
mesh: default
name: routes
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}, sectionName: http}
      rules:
        - matches: [{path: {type: Exact, value: /exact}}, {headers: [{type: Exact, name: x-to, value: remote}]}, {queryParams: [{type: Exact, name: to, value: remote}]}]
          default: {`+remote+`}
        - matches: [{path: {type: PathPrefix, value: /posts}, method: POST}]
          default: {`+remote+`}
        - matches: [{path: {type: RegularExpression, value: "/r[0-9]+"}}]
          default: {`+remote+`}
        - matches: [{path: {type: PathPrefix, value: /shared}}]
          default:
            backendRefs:
              - {kind: MeshService, labels: {kuma.io/display-name: api}, port: 8080, weight: 3}
              - {kind: MeshService, labels: {kuma.io/display-name: remote}, port: 8080, weight: 1}
        - matches: [{path: {type: PathPrefix, value: /old}}]
          default:
            filters:
              - {type: URLRewrite, urlRewrite: {hostname: new.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}
              - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: one}], add: [{name: x-add, value: two}], remove: [x-gone]}}
              - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: route}]}}
        - matches: [{path: {type: PathPrefix, value: /moved}}]
          default: {filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example, port: 8443, statusCode: 302, path: {type: ReplaceFullPath, replaceFullPath: /there}}}]}
        - matches: [{path: {type: PathPrefix, value: /mirrored}}]
          default: {filters: [{type: RequestMirror, requestMirror: {backendRef: {kind: MeshService, labels: {kuma.io/display-name: remote}, port: 8080}}}]}
        - matches: [{path: {type: PathPrefix, value: /nowhere}}]
          default: {`+fmt.Sprintf(backend, "none")+`}
    - targetRef: {kind: MeshService, labels: {kuma.io/display-name: remote}}
      rules:
        - matches: [{path: {type: PathPrefix, value: /back}}]
          default: {`+fmt.Sprintf(backend, "api")+`}
`)
	for _, one := range []struct{ what, to, path, header, name string }{
		{"no match", apiHTTP, "/", "", "api-"},
		{"an exact path", apiHTTP, "/exact", "", "remote-1"},
		{"more than the exact path", apiHTTP, "/exact/more", "", "api-"},
		{"a header", apiHTTP, "/", "remote", "remote-1"},
		{"another value", apiHTTP, "/", "other", "api-"},
		{"a query parameter", apiHTTP, "/?to=remote", "", "remote-1"},
		{"another method", apiHTTP, "/posts", "", "api-"},
		{"an expression", apiHTTP, "/r17", "", "remote-1"},
		{"not all of the expression", apiHTTP, "/r17/x", "", "api-"},
		{"back from the other zone", remoteHTTP, "/back", "", "api-"},
		{"not back", remoteHTTP, "/", "", "remote-1"},
	} {
		if a := l.call(t, one.to, one.path, "x-to", one.header); a.Status != http.StatusOK || !strings.HasPrefix(a.Name, one.name) {
			t.Errorf("%s: %d by %q, want %q", one.what, a.Status, a.Name, one.name)
		}
	}

	seen := map[string]int{}
	for range 200 {
		seen[l.call(t, apiHTTP, "/shared").Name]++
	}
	// Of 200, 50 are expected; 6 standard deviations are 37.
	if n := seen["remote-1"]; n < 13 || n > 87 || n+seen["api-1"]+seen["api-2"] != 200 {
		t.Errorf("by weight: %v", seen)
	}

	a := l.call(t, apiHTTP, "/old/page?a=b", "x-set", "zero", "x-add", "one", "x-gone", "yes")
	want := http.Header{"Host": {"new.example"}, "X-Set": {"one"}, "X-Add": {"one", "two"}, "X-Gone": nil}
	for name, values := range want {
		if got := a.Request[name]; strings.Join(got, ",") != strings.Join(values, ",") {
			t.Errorf("changed on the way: %s is %q, want %q", name, got, values)
		}
	}
	if a.Path != "/new/page?a=b" || a.Header.Get("x-by") != "route" {
		t.Errorf("changed on the way: %s, answered by %q", a.Path, a.Header.Get("x-by"))
	}

	q, err := http.NewRequest(http.MethodGet, l.web.outbounds[apiHTTP]+"/moved/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	moved, err := http.DefaultTransport.RoundTrip(q) // which follows no redirect
	if err != nil {
		t.Fatal(err)
	}
	moved.Body.Close()
	if to := moved.Header.Get("location"); moved.StatusCode != http.StatusFound || to != "https://new.example:8443/there" {
		t.Errorf("redirected: %d %q", moved.StatusCode, to)
	}

	if a := l.call(t, apiHTTP, "/mirrored"); !strings.HasPrefix(a.Name, "api-") {
		t.Errorf("mirrored: answered by %q", a.Name)
	}
	eventually(t, "the mirror", func() error {
		if n := l.apps["remote-1"].requests("/mirrored"); n != 1 {
			return fmt.Errorf("it saw %d requests", n)
		}
		return nil
	})
	if a := l.call(t, apiHTTP, "/nowhere"); a.Status != http.StatusInternalServerError {
		t.Errorf("a backend that is not there: %d %s", a.Status, a.Text)
	}
}
