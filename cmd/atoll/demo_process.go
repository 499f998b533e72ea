package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/atoll-mesh/atoll/api/server"
)

// launcher starts all processes from one thread, since the kernel takes the end
// of the thread that started a child for the end of its parent.
type launcher struct{ work chan func() }

func newLauncher() *launcher {
	l := &launcher{work: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with close
		for do := range l.work {
			do()
		}
	}()
	return l
}

func (l *launcher) start(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	l.work <- func() { done <- cmd.Start() }
	return <-done
}

// close ends the thread, and with it whatever is still running.
func (l *launcher) close() { close(l.work) }

// child is a process of the demonstration.
type child struct {
	name string
	log  string // file
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	said server.Said   // its standard output

	mu       sync.Mutex
	expected bool // that it ends
}

// child starts this executable with other arguments. Its end, unless it is
// brought about here, ends the demonstration.
func (l *lab) child(name string, env []string, args ...string) (*child, error) {
	c := &child{name: name, log: l.logOf(name), done: make(chan struct{})}
	mode := os.O_CREATE | os.O_APPEND | os.O_WRONLY
	if !l.logged[name] { // of an earlier demonstration
		mode |= os.O_TRUNC
	}
	l.logged[name] = true
	log, err := os.OpenFile(c.log, mode, 0o644)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	c.cmd = exec.Command(l.exe, args...)
	c.cmd.Dir = l.dir
	c.cmd.Env = append(cleanEnvironment(os.Environ()), env...)
	c.cmd.Stdout, c.cmd.Stderr = io.MultiWriter(&c.said, log), log
	c.cmd.SysProcAttr = dieWithParent()
	c.cmd.WaitDelay = time.Second // a grandchild may hold the output open
	if err := l.launcher.start(c.cmd); err != nil {
		return nil, fmt.Errorf("%s cannot be started: %w", name, err)
	}
	go func() {
		err := c.cmd.Wait()
		_ = log.Close()
		c.said.End(fmt.Errorf("it ended (%s)", c.cmd.ProcessState))
		close(c.done)
		c.mu.Lock()
		expected := c.expected
		c.mu.Unlock()
		if !expected {
			if err == nil {
				err = fmt.Errorf("exit status 0")
			}
			l.fail(&brokenPart{c.name, fmt.Errorf("%s ended by itself: %w", c.name, err)})
		}
	}()
	return c, nil
}

// brokenPart is the end of a part that should have gone on.
type brokenPart struct {
	part string
	error
}

// cleanEnvironment is the environment without the settings of other control
// planes and proxies of this machine.
func cleanEnvironment(env []string) []string {
	var out []string
	for _, kv := range env {
		if !strings.HasPrefix(kv, "ATOLL_") && !strings.HasPrefix(kv, "KUMA_") {
			out = append(out, kv)
		}
	}
	return out
}

// told waits until the child has said the value of a label.
func (c *child) told(ctx context.Context, label string) (string, error) {
	value, err := c.said.Value(ctx, label)
	if err != nil {
		return "", &brokenPart{c.name, fmt.Errorf("%s: %w", c.name, err)}
	}
	return value, nil
}

// stopGrace is how long a child may take to end.
const stopGrace = 5 * time.Second

// stop asks the child to end, then makes it.
func (c *child) stop() error {
	c.ends()
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.done:
		return nil
	case <-time.After(stopGrace):
		c.kill()
		return &brokenPart{c.name, fmt.Errorf("%s did not end within %v of SIGTERM", c.name, stopGrace)}
	}
}

// kill ends the child's whole group at once.
func (c *child) kill() {
	c.ends()
	select {
	case <-c.done: // the id may be another's by now
	default:
		_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	}
	<-c.done
}

func (c *child) ends() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expected = true
}

// tail returns the last lines of a log.
func tail(path string, n int) string {
	body, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(body), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
