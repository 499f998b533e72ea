package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-mesh/atoll/api/client"
)

// answers gives one after another; an answer that ends with "…" stays open.
type answers struct {
	texts []string
	asked []string // Last-Event-ID of each request
	at    []time.Duration
	began time.Time
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked = append(a.asked, r.Header.Get("Last-Event-ID"))
	a.at = append(a.at, time.Since(a.began))
	if len(a.texts) == 0 {
		return nil, syscall.ECONNREFUSED
	}
	text := a.texts[0]
	a.texts = a.texts[1:]
	if problem, ok := strings.CutPrefix(text, "401 "); ok {
		return &http.Response{StatusCode: 401, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(problem)), Request: r}, nil
	}
	kind := "text/event-stream"
	if strings.HasPrefix(text, "{") {
		kind = "application/json"
	}
	body := io.NopCloser(strings.NewReader(text))
	if open, ok := strings.CutSuffix(text, "…"); ok {
		read, write := io.Pipe()
		go func() {
			_, _ = io.WriteString(write, open) // the reader went away
			<-r.Context().Done()
			write.CloseWithError(r.Context().Err())
		}()
		body = read
	}
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {kind}}, Body: body, Request: r}, nil
}

// told is what a watch tells: "put 7 {…}", "lost: why", "error: why".
func told(t *testing.T, a *answers, most int) []string {
	t.Helper()
	a.began = time.Now()
	c, err := client.New(client.Options{URL: "http://cp:5681", Transport: a})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out []string
	for e, err := range c.Watch(ctx, "/meshes", nil) {
		switch {
		case err != nil:
			out = append(out, "error: "+err.Error())
		case e.Type == client.Lost:
			out = append(out, "lost: "+e.Reason.Error())
		default:
			text := e.Type + " " + string(e.Document)
			for _, d := range e.Documents {
				text += string(d)
			}
			out = append(out, text)
		}
		if len(out) == most {
			break
		}
	}
	return out
}

func TestWatchGoesOnWhereAStreamEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{texts: []string{
			"event: reset\nid: 7\ndata: {\"revision\":7,\"documents\":[{\"name\":\"a\"},{\"name\":\"b\"}]}\n\n: heartbeat\nid: 9\n\n",
			"event: put\r\nid: 10\r\ndata: {\"document\":{\"name\":\"c\"}}\r\n\r\nevent: delete\nid: 11\ndata: {\"document\":{\"name\":\"a\"}}\n\n…",
			"event: end\ndata: {\"status\":503,\"title\":\"Service unavailable\",\"detail\":\"shutting down\"}\n\n",
			"401 {\"title\":\"Invalid authentication data\",\"detail\":\"Unauthenticated\"}",
		}}
		want := []string{
			`reset {"name":"a"}{"name":"b"}`,
			"lost: control plane at http://cp:5681: EOF",
			`put {"name":"c"}`, `delete {"name":"a"}`,
			"lost: control plane at http://cp:5681: nothing was heard for 45s",
			"lost: Service unavailable (shutting down)",
			"error: Invalid authentication data (Unauthenticated)",
		}
		if diff := cmp.Diff(want, told(t, a, 10)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"", "9", "11", "11"}, a.asked); diff != "" {
			t.Error(diff)
		}
		// A pause of a second after a stream that told something, else twice the last.
		if diff := cmp.Diff([]time.Duration{0, time.Second, 47 * time.Second, 49 * time.Second}, a.at); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWatchThatCannotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for want, texts := range map[string][]string{
			"error: control plane at http://cp:5681: connection refused":                              nil,
			"error: Invalid authentication data":                                                      {`401 {"title":"Invalid authentication data"}`},
			"error: control plane at http://cp:5681: it cannot watch: the answer is application/json": {`{"items":[]}`},
		} {
			if diff := cmp.Diff([]string{want}, told(t, &answers{texts: texts}, 3)); diff != "" {
				t.Error(diff)
			}
		}
	})
}

// The caller may stop at any event, and nothing goes on behind its back.
func TestWatchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{texts: []string{"event: reset\nid: 7\ndata: {\"documents\":[]}\n\n…"}}
		if diff := cmp.Diff([]string{"reset "}, told(t, a, 1)); diff != "" {
			t.Error(diff)
		}
		c, err := client.New(client.Options{URL: "http://cp:5681", Transport: &answers{texts: []string{"…"}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, err := range c.Watch(ctx, "/meshes", nil) {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
	})
}
