package client_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/atoll-mesh/atoll/api/client"
)

// FuzzEvents lets a control plane send anything as events: each is told as what
// it says it is, and the stream ends in an error or a loss.
func FuzzEvents(f *testing.F) {
	for _, seed := range []string{
		"event: reset\nid: e:1\ndata: {\"documents\":[{}]}\n\n", "event: put\ndata: {\n\n", "event: end\ndata: {\"status\":403}\n\n",
		": heartbeat\n\nid: x\n\n", "data: 1\nevent: \n\n", "event\n\n", "event: lost\ndata: {}\n\n", "\r\n\x00",
	} {
		f.Add([]byte(seed))
	}
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(body) // the client may have gone
	}))
	f.Cleanup(s.Close)
	c, err := client.New(client.Options{URL: s.URL})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, events []byte) {
		body = events
		for e, err := range c.Watch(t.Context(), "/meshes", nil) {
			if err != nil || e.Type == client.Lost {
				return
			}
			if e.Type == "" {
				t.Fatalf("an event of no type: %q", events)
			}
		}
		t.Fatalf("the watch ended without a word: %q", events)
	})
}
