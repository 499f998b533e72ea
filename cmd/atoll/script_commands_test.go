package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// commandsBegun are commands by script and name: scripts run in parallel.
var commandsBegun sync.Map

// begun is a command that runs while the script goes on.
type begun struct {
	command *exec.Cmd
	output  *lockedBuffer
	ended   chan error
}

func begin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: begin NAME ARGUMENTS…")
	}
	b := &begun{command: exec.Command("atoll", args[1:]...), output: &lockedBuffer{}, ended: make(chan error, 1)}
	b.command.Dir = ts.MkAbs(".")
	b.command.Env = environment(ts)
	b.command.Stdout, b.command.Stderr = b.output, b.output
	ts.Check(b.command.Start())
	go func() { b.ended <- b.command.Wait() }()
	ts.Defer(func() { b.command.Process.Kill() })
	commandsBegun.Store(serverKey(ts.Getenv("WORK")+args[0]), b)
}

// environment is what the script has set, as far as commands look at it.
func environment(ts *testscript.TestScript) []string {
	var out []string
	for _, name := range []string{"HOME", "PATH", "TMPDIR", "WORK", "ATOLL_DATA_DIR", "ATOLL_ADDRESS", "ATOLL_TOKEN_FILE", "ATOLL_MESH"} {
		if value := ts.Getenv(name); value != "" {
			out = append(out, name+"="+value)
		}
	}
	return out
}

func begunOf(ts *testscript.TestScript, name string) *begun {
	found, ok := commandsBegun.Load(serverKey(ts.Getenv("WORK") + name))
	if !ok {
		ts.Fatalf("%s was not begun", name)
	}
	return found.(*begun)
}

func sees(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sees NAME PATTERN")
	}
	b := begunOf(ts, args[0])
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !pattern.MatchString(b.output.String()) {
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not say %s within %s:\n%s", args[0], args[1], patience, b.output)
		}
		<-tick.C
	}
}

func end(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: end NAME CODE")
	}
	b := begunOf(ts, args[0])
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(b.command.Process.Signal(syscall.SIGINT))
	select {
	case err = <-b.ended:
	case <-time.After(patience):
		ts.Fatalf("%s did not end:\n%s", args[0], b.output)
	}
	if code := b.command.ProcessState.ExitCode(); code != want {
		ts.Fatalf("%s ended with %d (%v), want %d:\n%s", args[0], code, err, want, b.output)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".out"), []byte(b.output.String()), 0o600))
}

// canned stands in for a control plane that gives certain answers.
func canned(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: canned FILE")
	}
	answers := map[string]string{}
	for part := range strings.SplitSeq(ts.ReadFile(args[0]), ">>> ") {
		if request, body, ok := strings.Cut(part, "\n"); ok {
			answers[strings.TrimSpace(request)] = body
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := r.Method + " " + r.URL.EscapedPath()
		body, ok := answers[asked+"?"+r.URL.RawQuery]
		if !ok {
			body, ok = answers[asked]
		}
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			body = `{"status":404,"title":"Could not retrieve a resource","detail":"Not found"}`
		}
		if status, rest, ok := strings.Cut(body, " "); ok && len(status) == 3 {
			if code, err := strconv.Atoi(status); err == nil {
				w.WriteHeader(code)
				body = rest
			}
		}
		_, _ = w.Write([]byte(body)) // the command went away
	}))
	ts.Defer(s.Close)
	ts.Setenv("ATOLL_ADDRESS", s.URL)
}

// overTLS puts TLS before a control plane.
func overTLS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tls NAME")
	}
	behind, err := url.Parse(ts.Getenv(args[0] + "_API"))
	ts.Check(err)
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(behind) }})
	s.Config.ErrorLog = nil
	s.StartTLS()
	ts.Defer(s.Close)
	ts.Setenv(args[0]+"_TLS", s.URL)
	ts.Setenv(args[0]+"_TLS_HOST", strings.TrimPrefix(s.URL, "https://"))
	ts.Setenv(args[0]+"_HOST", behind.Host)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pem"), text, 0o600))
}

// keep notes a name that only the control plane knows.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keep NAME PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	found := pattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("stdout has no %s", args[1])
	}
	ts.Setenv(args[0], found[1])
}

// call is a program that makes one request.
func call() {
	answer, err := (&http.Client{Timeout: 5 * time.Second}).Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
	_, _ = io.Copy(os.Stdout, answer.Body) // the script asks for what it needs
}
