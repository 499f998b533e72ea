package client_test

import (
	"bufio"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api/client"
)

func TestCAFile(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"product":"` + r.URL.Path + " " + r.Header.Get("Authorization") + `"}`))
	}))
	defer s.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Options{URL: s.URL + "/base/", Token: "secret", CAFile: file})
	if err != nil {
		t.Fatal(err)
	}
	if root, err := c.Root(t.Context()); err != nil || root.Product != "/base/ Bearer secret" {
		t.Errorf("%+v, %v", root, err)
	}
	other, err := client.New(client.Options{URL: s.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Root(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Options{
		{URL: s.URL, CAFile: empty}, {URL: s.URL, CAFile: empty + ".no"}, {URL: "localhost:5681"}, {URL: ""}, {URL: "ftp://a"},
	} {
		if _, err := client.New(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestAnswersThatAreNoProblems(t *testing.T) {
	var leaked bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { leaked = true }))
	defer elsewhere.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/text":
			http.Error(w, "404: Page Not Found", http.StatusNotFound)
		case "/away":
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		case "/html":
			_, _ = w.Write([]byte("<html>"))
		case "/old":
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"title":"No","details":"because","invalid_parameters":[{"field":"a","reason":"b"},{"field":"","reason":"c"}]}`))
		}
	}))
	defer s.Close()
	c, err := client.New(client.Options{URL: s.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	var into struct{}
	for path, want := range map[string]string{
		"/text": "404 Not Found (404: Page Not Found)",
		"/away": "302 Found (",
		"/html": "control plane at " + s.URL + ": answer to GET /html: ",
		"/old":  "No (because)\n* a: b\n* c",
	} {
		if _, err := c.Do(t.Context(), "GET", path, nil, nil, &into); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if _, err := c.Do(t.Context(), "GET", "/text", nil, nil, nil); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if leaked {
		t.Error("a redirect was followed")
	}
}

// TestKeptConnectionIsClosed: a server may close a connection that it kept at any time,
// also in the moment in which the next request is on its way.
func TestKeptConnectionIsClosed(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() { // answers the first request of a connection and closes it at the second
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					requests := bufio.NewReader(conn)
					for n := range 2 {
						q, err := http.ReadRequest(requests)
						if err != nil {
							return
						}
						io.Copy(io.Discard, q.Body)
						if n == 0 {
							io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
						}
					}
				}()
			}
		}()
		c, err := client.New(client.Options{URL: "http://" + l.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			if _, err := c.Do(t.Context(), method, "/a", nil, []byte("{}"), nil); err != nil {
				t.Errorf("%s, time %d: %v", method, n, err)
			}
		}
	}
}
