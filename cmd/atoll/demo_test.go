package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/deploy/demo"
)

// envoy is the Envoy that tests run; empty: there is none.
func envoy() string {
	for _, path := range []string{os.Getenv("ATOLL_ENVOY"), "envoy", filepath.Join("..", "..", ".tools", "envoy", "envoy")} {
		if found, err := exec.LookPath(path); err == nil {
			if found, err = filepath.Abs(found); err == nil {
				return found
			}
		}
	}
	return ""
}

// demoCommandLine is `atoll demo` with a real Envoy and a temporary directory of
// its own; both are left out where there is no Envoy.
func demoCommandLine(t *testing.T) (command *exec.Cmd, dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the demonstration needs Linux")
	}
	envoy := envoy()
	if envoy == "" {
		t.Skip("no Envoy in $ATOLL_ENVOY, on PATH or in .tools/envoy (`make envoy` fetches it)")
	}
	// t.TempDir is too long: the path of a socket may have 107 bytes.
	dir, err := os.MkdirTemp("", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	command = exec.CommandContext(t.Context(), "atoll", "demo", "--envoy", envoy)
	command.Env = append(os.Environ(), "TMPDIR="+dir)
	command.SysProcAttr = dieWithParent()
	return command, dir
}

// processesOf lists the command lines that name the directory.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err == nil && bytes.Contains(body, []byte(dir)) { // an error: it has ended
			out = append(out, string(bytes.ReplaceAll(body, []byte{0}, []byte{' '})))
		}
	}
	return out
}

// A demonstration that is killed leaves no process behind.
func TestDemoKilled(t *testing.T) {
	command, dir := demoCommandLine(t)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "3/") { // everything runs
	}
	if len(processesOf(t, dir)) < 10 {
		t.Errorf("only these run: %q", processesOf(t, dir))
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // it was killed
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for len(processesOf(t, dir)) > 0 {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("still running:\n%s", strings.Join(processesOf(t, dir), "\n"))
		}
	}
}

// The documents of deploy/demo are complete: everything that they refer to in
// braces is given, and every document is valid.
func TestDemoDocuments(t *testing.T) {
	ports := demoPorts{Inbound: 1001, Service: 1002, Catalog: 1003, Cart: 1004, Payments: 1005}.variables()
	ports["name"], ports["address"], ports["patience"], ports["life"] = "one", "127.1.2.3", "1s", "1h"
	files, err := demo.Files.ReadDir(".")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		body, err := demo.Files.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), f.Name())
		if err := os.WriteFile(path, []byte(replaceVariables(string(body), ports, map[string]bool{})), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (&written{paths: []string{path}}).read(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
}

// A service passes on what it was told by the one it called, refusals too.
func TestDemoServices(t *testing.T) {
	net, err := newLoopback()
	if err != nil {
		t.Skip(err)
	}
	start := func(service string) *app {
		address, err := net.address()
		if err != nil {
			t.Fatal(err)
		}
		a, err := newApp(service, service+"-1", "east", address, net.ports)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.close)
		return a
	}
	web, cart := start("web"), start("cart")
	web.upstreams = map[string]string{"cart": cart.url}
	for _, c := range []struct {
		path   string
		status int
		text   string
	}{
		{"/call/cart", http.StatusOK, `"instance": "cart-1"`},
		{"/call/cart?slow=1ms", http.StatusOK, `"instance": "cart-1"`},
		{"/call/cart/call/nobody", http.StatusNotFound, "cart calls no such service"},
		{"/call/cart?slow=soon", http.StatusBadRequest, "invalid duration"},
		{"/call/cart/call/catalog", http.StatusBadGateway, "cart-1 cannot call catalog"},
	} {
		status, body, err := fetchReply(t.Context(), http.DefaultClient, web.url+c.path)
		if err != nil || status != c.status || !strings.Contains(string(body), c.text) {
			t.Errorf("%s: %d %s %v, want %d %s", c.path, status, body, err, c.status, c.text)
		}
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("X-Forwarded-Client-Cert", "By=spiffe://a/b;Hash=00;URI=spiffe://shop.west.mesh.local/workload/cart")
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got reply
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got.Caller != spiffe("west", "cart") {
		t.Errorf("caller %q, %v", got.Caller, err)
	}
}

func TestDemoScreenPlain(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.begin(1, 2, "first")
	s.waiting("nothing to see")
	s.fact("%d found", 3)
	s.end(nil)
	s.begin(2, 2, "second")
	s.end(context.Canceled)
	s.close()
	want := `^1/2  first\n     3 found\n     ✓ \d+\.\d s\n2/2  second\n     ✗ failed after \d+\.\d s\n$`
	if !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("got %q, want %s", out.String(), want)
	}
}

// What a killed demonstration left is removed by a later one; what one that runs
// has is not.
func TestDemoDirectories(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dead, lock, err := newDemoDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil { // as the end of a process does
		t.Fatal(err)
	}
	live, held, err := newDemoDir()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	old := time.Now().Add(-2 * demoYoung)
	for _, dir := range []string{dead, live} {
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	_, third, err := newDemoDir()
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("%s was not removed: %v", dead, err)
	}
	if _, err := os.Stat(live); err != nil {
		t.Errorf("%s is in use: %v", live, err)
	}
}
