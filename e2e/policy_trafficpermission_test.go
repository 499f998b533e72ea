package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
)

// trafficPermission: callers are refused by who they are, and requests by method, path
// and headers, however they are spelled, here and across zones; what no policy allows
// is refused; a shadow denial lets in and is counted.
func trafficPermission(t *testing.T, l *lab) {
	ask := func(to, method, target string, headers ...string) (int, string) {
		t.Helper()
		status, body, err := rawRequest(strings.TrimPrefix(l.web.outbounds[to], "http://"), method, target, headers...)
		if err != nil {
			t.Fatalf("%s %s: %v", method, target, err)
		}
		return status, body
	}
	refused := func(to, method, target, by string, headers ...string) {
		t.Helper()
		if status, body := ask(to, method, target, headers...); status != http.StatusForbidden || !strings.Contains(body, by) {
			t.Errorf("%s %s %v at %s: %d %s, want a refusal by %s", method, target, headers, to, status, body, by)
		}
	}
	passed := func(to, method, target string, headers ...string) {
		t.Helper()
		if status, body := ask(to, method, target, headers...); status != http.StatusOK {
			t.Errorf("%s %s %v at %s: %d %s", method, target, headers, to, status, body)
		}
	}
	inForce := func(to, target string) {
		t.Helper()
		eventually(t, "the policy is in force", func() error { // a changed listener lets kept connections drain
			for range 10 {
				if status, _ := ask(to, http.MethodGet, target); status != http.StatusForbidden {
					return fmt.Errorf("%d", status)
				}
			}
			return nil
		})
	}
	undo := l.with(t, `
type: MeshTrafficPermission
mesh: default
name: refuse
spec:
  rules:
    - default:
        deny:
          - {path: {type: PathPrefix, value: /admin}}
          - {method: DELETE}
          - {spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/web"}, headers: [{type: Exact, name: x-debug, value: "on"}]}
          - {spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/nobody"}, path: {type: PathPrefix, value: /others}}
`)
	const by = "kri_mtp_default___refuse_"
	for _, to := range []string{apiHTTP, remoteHTTP} {
		inForce(to, "/admin")
		for _, target := range []string{
			"/admin/a", "/admin/", "/ADMIN", "//admin", "/./admin", "/a/../admin", "/%61dmin", "/admin;x=1", "/admin;x=1/a", "/admin?b=c", "/a/%2e%2e/admin",
			"/a%2F..%2Fadmin", `/a\..\admin`,
		} {
			if status, body := ask(to, http.MethodGet, target); status == http.StatusOK {
				t.Errorf("%s at %s: %d %s", target, to, status, body)
			}
		}
		refused(to, http.MethodDelete, "/", by)
		refused(to, http.MethodGet, "/", by, "x-debug", "on")
		refused(to, http.MethodGet, "/", by, "x-debug", "off", "x-debug", "ON")
		passed(to, http.MethodGet, "/administration")
		passed(to, http.MethodGet, "/others")
		passed(to, http.MethodPost, "/", "x-debug", "off")
		passed(to, http.MethodGet, "/?admin=/admin")
	}
	undo()

	// Nobody is allowed everything any more.
	if _, err := l.global.client.Delete(t.Context(), api.MeshTrafficPermissions, "default", "all-east"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		body := strings.ReplaceAll(fmt.Sprintf(allowAll, "east"), `"name":"all"`, `"name":"all-east"`)
		if _, err := l.global.client.Apply(context.WithoutCancel(t.Context()), []byte(body)); err != nil {
			t.Error(err)
		}
	})
	l.with(t, `
type: MeshTrafficPermission
mesh: default
name: let-in
spec:
  rules:
    - default:
        allow:
          - {method: GET, path: {type: Exact, value: /public}}
          - {spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/web"}, path: {type: RegularExpression, value: "/items/[0-9]+"}, headers: [{type: Present, name: x-client}]}
        allowWithShadowDeny:
          - {path: {type: PathPrefix, value: /old}}
`)
	for _, to := range []string{apiHTTP, remoteHTTP} {
		inForce(to, "/")
		passed(to, http.MethodGet, "/public")
		passed(to, http.MethodGet, "/public?a=b")
		passed(to, http.MethodGet, "/items/17", "x-client", "shop")
		passed(to, http.MethodGet, "/old/page")
		for _, target := range []string{"/public/", "/public/a", "/Public", "/items/17", "/items/a?x=/items/1", "/older"} {
			refused(to, http.MethodGet, target, "default")
		}
		refused(to, http.MethodPost, "/public", "default")
		refused(to, http.MethodHead, "/public", "")
	}
	if _, _, err := l.dial(t, apiRaw); err == nil {
		t.Error("what is said of requests lets a connection in")
	}
	eventually(t, "the shadow denial is counted", func() error {
		for _, name := range []string{"api-1", "api-2"} {
			var text string
			if _, err := l.east.client.Do(t.Context(), http.MethodGet, "/meshes/default/dataplanes/"+name+"/stats", nil, nil, &text); err != nil {
				return err
			}
			for line := range strings.Lines(text) {
				if name, count, _ := strings.Cut(strings.TrimSpace(line), ": "); strings.HasSuffix(name, "rbac.shadow_denied") && count != "0" {
					return nil
				}
			}
		}
		return errors.New("by no proxy")
	})
}

// rawRequest sends a request whose target nobody changes before it is sent.
func rawRequest(address, method, target string, headers ...string) (status int, body string, err error) {
	c, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return 0, "", err
	}
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nContent-Length: 0\r\n", method, target)
	for i := 0; i < len(headers); i += 2 {
		fmt.Fprintf(c, "%s: %s\r\n", headers[i], headers[i+1])
	}
	fmt.Fprint(c, "\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}
