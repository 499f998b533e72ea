package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// trace: a call makes a span at the caller and, as its child, one at who is called,
// in one zone and across zones; a share of none makes none. OpenTelemetry comes
// through the program next to Envoy, what is Zipkin's and Datadog's from Envoy.
func trace(t *testing.T, l *lab) {
	otel := newCollector(t)
	l.with(t, fmt.Sprintf(`
type: MeshOpenTelemetryBackend
mesh: default
name: traces
labels: {for: traces}
spec: {endpoint: {address: 127.0.0.1, port: %d}}
`, otel.port))
	policy := func(backend, more string) string {
		return `
type: MeshTrace
mesh: default
name: traces
spec:
  default:
    backends: [` + backend + `]
    tags: [{name: team, literal: core}, {name: of, header: {name: x-of, default: nobody}}]
` + more
	}
	calls := func(to, path string) {
		t.Helper()
		for range 2 { // tracers send when they have five
			if a := l.call(t, to, path, "x-of", "web"); a.Status != http.StatusOK {
				t.Fatalf("%d %s", a.Status, a.Text)
			}
		}
	}
	// pair finds a span of the caller and its child at the called.
	pair := func(c *collector, path string, child func(parent, s span) bool) (caller, called span, err error) {
		spans := c.of(path)
		for _, parent := range spans {
			for _, s := range spans {
				if parent.Service != s.Service && parent.Trace == s.Trace && child(parent, s) {
					return parent, s, nil
				}
			}
		}
		return span{}, span{}, fmt.Errorf("no parent and child among %+v", spans)
	}
	viaOTLP := `{type: OpenTelemetry, openTelemetry: {backendRef: {kind: MeshOpenTelemetryBackend, labels: {for: traces}}}}`
	undo := l.with(t, policy(viaOTLP, ""))
	for to, c := range map[string]struct{ path, service, zone string }{
		apiHTTP: {"/traced-here", "api", "east"}, remoteHTTP: {"/traced-across", "remote", "west"},
	} {
		eventually(t, "the trace of "+to, func() error {
			// What is called before all know the collector is not traced.
			calls(to, c.path)
			caller, called, err := pair(otel, c.path, func(parent, s span) bool { return s.Parent == parent.ID && parent.Parent == "" })
			if err == nil && (caller.Service != "web" || called.Service != c.service || called.Tags["kuma.zone"] != c.zone ||
				called.Tags["team"] != "core" || called.Tags["of"] != "web" || called.Tags["kuma.mesh"] != "default") {
				err = fmt.Errorf("%+v called %+v", caller, called)
			}
			return err
		})
	}
	undo()

	undo = l.with(t, policy(viaOTLP, "    sampling: {overall: 0}\n"))
	// Connections that are open already keep to what held before.
	untraced, tries := "", 0
	eventually(t, "calls that are not traced", func() error {
		tries++
		untraced = fmt.Sprintf("/untraced/%d", tries)
		a := l.call(t, apiHTTP, untraced)
		if a.Request["Traceparent"] == nil || !strings.HasSuffix(a.Request["Traceparent"][0], "-00") {
			return fmt.Errorf("%v", a.Request["Traceparent"])
		}
		return nil
	})
	undo()

	zipkin := newHTTPCollector(t)
	undo = l.with(t, policy(fmt.Sprintf(`{type: Zipkin, zipkin: {url: 'http://127.0.0.1:%d/api/v2/spans', traceId128bit: true, sharedSpanContext: false}}`, zipkin.port), ""))
	eventually(t, "the trace at Zipkin", func() error {
		calls(apiHTTP, "/zipped")
		_, called, err := pair(zipkin, "/zipped", func(parent, s span) bool { return s.Parent == parent.ID })
		if err == nil && len(called.Trace) != 32 {
			err = fmt.Errorf("its ID is %q", called.Trace)
		}
		return err
	})
	undo()

	dog := newHTTPCollector(t)
	l.with(t, policy(fmt.Sprintf(`{type: Datadog, datadog: {url: 'http://127.0.0.1:%d', splitService: true}}`, dog.port), ""))
	eventually(t, "the trace at Datadog", func() error {
		calls(apiHTTP, "/dogged")
		dog.mu.Lock()
		defer dog.mu.Unlock()
		all := strings.Join(dog.bodies, "\n")
		if !strings.Contains(all, "/traces ") || !strings.Contains(all, "web_OUTBOUND_kri_msvc_default_east__api_") || !strings.Contains(all, "api_INBOUND") {
			return errors.New("not yet")
		}
		return nil
	})
	if spans := otel.of(untraced); len(spans) > 0 { // those after it have long come
		t.Errorf("traced: %+v", spans)
	}
}
