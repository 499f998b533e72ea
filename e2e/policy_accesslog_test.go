package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// lineSink takes lines over TCP.
type lineSink struct {
	address string

	mu    sync.Mutex
	lines []string
}

func newLineSink(t *testing.T) *lineSink {
	l := listen(t, "127.0.0.1:0")
	t.Cleanup(func() { l.Close() })
	s := &lineSink{address: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func(c net.Conn) {
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					s.mu.Lock()
					s.lines = append(s.lines, in.Text())
					s.mu.Unlock()
				}
			}(c)
		}
	}()
	return s
}

// with is the line that contains a text.
func (s *lineSink) with(text string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.Contains(line, text) {
			return line, nil
		}
	}
	return "", fmt.Errorf("no line with %q among %d", text, len(s.lines))
}

// accessLog: callers log what they call to a file, over TCP and to a collector of
// OpenTelemetry, who is called logs by whom; each with the fields of the call. TCP
// connections are logged as well, and a sink that comes late gets what there was.
func accessLog(t *testing.T, l *lab) {
	otel, sink := newCollector(t), newLineSink(t)
	file := filepath.Join(t.TempDir(), "log")
	l.with(t, fmt.Sprintf(`
type: MeshOpenTelemetryBackend
mesh: default
name: logs
labels: {for: logs}
spec: {endpoint: {address: 127.0.0.1, port: %d}}
`, otel.port), fmt.Sprintf(`
type: MeshAccessLog
mesh: default
name: calls
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: web}}
  to:
    - targetRef: {kind: Mesh}
      default:
        backends:
          - type: File
            file: {path: %q, format: {type: Plain, plain: 'file %%REQ(:PATH)%% %%RESPONSE_CODE%% %%KUMA_SOURCE_SERVICE%%'}}
          - type: Tcp
            tcp: {address: %q}
          - type: OpenTelemetry
            openTelemetry:
              backendRef: {kind: MeshOpenTelemetryBackend, labels: {for: logs}}
              body: 'otel %%REQ(:PATH)%%'
              attributes: [{key: code, value: '%%RESPONSE_CODE%%'}, {key: to, value: '%%KUMA_DESTINATION_SERVICE%%'}]
`, file, sink.address), fmt.Sprintf(`
type: MeshAccessLog
mesh: default
name: callers
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: remote}}
  rules:
    - default:
        backends:
          - type: Tcp
            tcp: {address: %q, format: {type: Json, json: [{key: by, value: '%%KUMA_SOURCE_SERVICE%%'}, {key: path, value: '%%REQ(:PATH)%%'}, {key: zone, value: '%%KUMA_ZONE%%'}]}}
`, sink.address))

	c, _, err := l.dial(t, apiRaw)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	// Connections that are open already keep to what held before.
	eventually(t, "a line in the file", func() error {
		if a := l.call(t, apiHTTP, "/logged?status=418"); a.Status != http.StatusTeapot {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
		text, err := os.ReadFile(file)
		if err == nil && !strings.Contains(string(text), "file /logged?status=418 418 web\n") {
			err = fmt.Errorf("%q", text)
		}
		return err
	})
	eventually(t, "a line over TCP", func() error {
		line, err := sink.with("/logged?status=418")
		if err == nil && (!strings.Contains(line, `default "GET /logged?status=418 HTTP/1.1" 418 `) ||
			!strings.Contains(line, `"web" "kri_msvc_default_east__api_`) || !strings.Contains(line, `"`+l.web.address+`"`)) {
			err = errors.New(line)
		}
		return err
	})
	eventually(t, "a line of a connection", func() error {
		_, err := sink.with("default " + l.web.address + "(web)->")
		return err
	})
	eventually(t, "a line of who was called, across zones", func() error {
		if a := l.call(t, remoteHTTP, "/logged-across"); a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Text)
		}
		line, err := sink.with(`"path":"/logged-across"`)
		var said map[string]string
		if err == nil {
			err = json.Unmarshal([]byte(line), &said)
		}
		if err == nil && (said["by"] != "spiffe://default.east.mesh.local/workload/web" || said["zone"] != "west") {
			err = errors.New(line)
		}
		return err
	})
	eventually(t, "a record", func() error {
		otel.mu.Lock()
		defer otel.mu.Unlock()
		for _, r := range otel.records {
			if r.Body == "otel /logged?status=418" {
				if r.Attributes["code"] != "418" || !strings.HasPrefix(r.Attributes["to"], "kri_msvc_default_east__api_") || r.Resource["service.name"] != "web" || r.Resource["kuma.zone"] != "east" {
					return fmt.Errorf("%+v", r)
				}
				return nil
			}
		}
		return fmt.Errorf("not among %+v", otel.records)
	})
}
