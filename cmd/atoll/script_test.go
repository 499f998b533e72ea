package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/atoll-mesh/atoll/api/server"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"atoll": main, "call": call}) }

// TestScripts runs the executable itself. Beside the standard commands there are
//
//	start NAME ARGUMENTS…   runs `atoll ARGUMENTS…` until it is ready; sets NAME_API,
//	                        NAME_DP, NAME_KDS, NAME_DIAGNOSTICS and ATOLL_ADDRESS
//	halt NAME               SIGTERM; it must end with status 0
//	exits CODE COMMAND…     runs the command, which must end with the status
//	until PATTERN COMMAND…  runs the command until its output matches
//	begin NAME ARGUMENTS…   runs `atoll ARGUMENTS…` while the script goes on
//	sees NAME PATTERN       waits until its output matches
//	end NAME CODE           SIGINT; it must end with the status
//	canned FILE             serves the answers of the file (METHOD PATH, then the
//	                        body, each after a line ">>>"); sets ATOLL_ADDRESS
//	tls NAME                serves over TLS what NAME_API serves; sets NAME_TLS,
//	                        NAME_TLS_HOST and NAME_HOST; the authority is NAME.pem
//	keep NAME PATTERN       sets NAME to what the group of the pattern matched in stdout
//
// and the program `call URL`, which prints the status and the body of an answer. With
// the condition [envoy], $ENVOY is an Envoy, and $NET begins loopback addresses that
// no other script uses: $NET.1.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("ENVOY", envoy())
			e.Setenv("NET", fmt.Sprintf("127.%d.%d", 10+os.Getpid()>>8&127, os.Getpid()&255))
			return os.MkdirAll(home, 0o700)
		},
		Condition: func(name string) (bool, error) {
			if name != "envoy" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			return runtime.GOOS == "linux" && envoy() != "", nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": start, "halt": halt, "exits": exits, "until": until,
			"begin": begin, "sees": sees, "end": end, "canned": canned, "tls": overTLS, "keep": keep,
		},
	})
}

const patience = 30 * time.Second

// background is an `atoll` that runs while the script goes on.
type background struct {
	command *exec.Cmd
	said    server.Said
	stderr  *lockedBuffer
	ended   chan struct{}
	err     error
}

type serverKey string

func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME ARGUMENTS…")
	}
	name := args[0]
	b := &background{command: exec.Command("atoll", args[1:]...), stderr: &lockedBuffer{}, ended: make(chan struct{})}
	b.command.Dir = ts.MkAbs(".")
	for _, variable := range []string{"HOME", "PATH", "TMPDIR", "WORK", "ATOLL_DATA_DIR"} {
		if value := ts.Getenv(variable); value != "" {
			b.command.Env = append(b.command.Env, variable+"="+value)
		}
	}
	b.command.Stdout, b.command.Stderr = &b.said, b.stderr
	ts.Check(b.command.Start())
	ts.Defer(func() {
		b.command.Process.Kill()
		<-b.ended
	})
	go func() {
		defer close(b.ended)
		b.err = b.command.Wait()
		b.said.End(fmt.Errorf("it ended: %v", b.err))
	}()
	b.addresses(ts, name)
	b.ready(ts, ts.Getenv(name+"_DIAGNOSTICS"))
	ts.Setenv("ATOLL_ADDRESS", ts.Getenv(name+"_API"))
	running.Store(serverKey(ts.Getenv("WORK")+name), b)
}

// running finds servers by script and name: scripts run in parallel.
var running sync.Map

// addresses waits until all is said, and notes where the servers listen.
func (b *background) addresses(ts *testscript.TestScript, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	_, err := b.said.Value(ctx, "administrator's token") // the last thing said
	cancel()
	if err != nil {
		ts.Fatalf("%v\n%s", err, b.stderr)
	}
	for label, as := range map[string][2]string{
		"API": {"_API", "http://"}, "diagnostics": {"_DIAGNOSTICS", "http://"}, "dp-server": {"_DP", "https://"}, "KDS": {"_KDS", "grpcs://"},
	} {
		if address, err := b.said.Value(ctx, label); err == nil { // not every control plane has all
			ts.Setenv(name+as[0], as[1]+address)
		}
	}
}

func (b *background) ready(ts *testscript.TestScript, diagnostics string) {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		answer, err := http.Get(diagnostics + "/ready")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			ts.Fatalf("it is not ready: %v\n%s", err, b.stderr)
		}
		<-tick.C
	}
}

func halt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: halt NAME")
	}
	found, ok := running.Load(serverKey(ts.Getenv("WORK") + args[0]))
	if !ok {
		ts.Fatalf("%s is not running", args[0])
	}
	b := found.(*background)
	ts.Check(b.command.Process.Signal(syscall.SIGTERM))
	select {
	case <-b.ended:
	case <-time.After(patience):
		ts.Fatalf("%s did not end\n%s", args[0], b.stderr)
	}
	if b.err != nil {
		ts.Fatalf("%s ended with %v\n%s", args[0], b.err, b.stderr)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case err == nil && want == 0:
	case errors.As(err, &exit) && exit.ExitCode() == want:
	default:
		ts.Fatalf("want status %d: %v", want, err)
	}
}

// until waits for what control planes tell each other.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND…")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ts.Exec(args[1], args[2:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %v", patience, err)
		}
		<-tick.C
	}
}

// lockedBuffer is written by a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
