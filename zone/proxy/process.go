package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// process is a running Envoy.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start runs Envoy.
func (r *runner) start() (*process, error) {
	cmd := exec.Command(r.binary, r.arguments()...)
	cmd.Dir = r.dir.path
	cmd.Stdout, cmd.Stderr = r.Stdout, r.Stderr
	if r.Stdout == nil {
		cmd.Stdout = os.Stdout
	}
	if r.Stderr == nil {
		cmd.Stderr = os.Stderr
	}
	cmd.SysProcAttr = ownGroup()
	// A wrapper that left children would keep the pipes of a writer open for ever.
	cmd.WaitDelay = time.Second
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel's "parent" is the thread that started the child: were it to
		// end, Envoy would be killed. So this thread is kept until Envoy ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the status is in ProcessState
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%w could not be started: %w", ErrEnvoy, err)
	}
	r.log.Info("Envoy started", "pid", cmd.Process.Pid, "binary", r.binary, "version", r.version.Version,
		"mesh", r.subject.mesh, "name", r.subject.name, "workdir", r.dir.path)
	return p, nil
}

// signal sends to Envoy alone.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // it may have ended

// signalGroup sends to Envoy's group: Envoy may be behind a wrapper script.
func (p *process) signalGroup(s syscall.Signal) {
	select {
	case <-p.done: // the id may be another's by now
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

func (p *process) waitStatus() syscall.WaitStatus {
	w, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return w
}

func (p *process) killedBy(s syscall.Signal) bool {
	w := p.waitStatus()
	return w.Signaled() && w.Signal() == s
}

// status is what a shell would report, and in words.
func (p *process) status() (int, string) {
	if w := p.waitStatus(); w.Signaled() {
		return 128 + int(w.Signal()), fmt.Sprintf("was killed by signal %d (%s)", w.Signal(), w.Signal())
	}
	return p.cmd.ProcessState.ExitCode(), fmt.Sprintf("ended with status %d", p.cmd.ProcessState.ExitCode())
}

// envoyVersion asks the binary, which also shows that it runs on this machine.
// https://www.envoyproxy.io/docs/envoy/latest/operations/cli#cmdoption-version
func envoyVersion(ctx context.Context, binary string) (bootstrap.EnvoyVersion, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return bootstrap.EnvoyVersion{}, fmt.Errorf("%w: %s --version: %w: %s", ErrEnvoy, binary, err, exit.Stderr)
		}
		return bootstrap.EnvoyVersion{}, fmt.Errorf("%w: %s --version: %w", ErrEnvoy, binary, err)
	}
	found := regexp.MustCompile(`version: ([0-9a-f]+/([0-9]+\.[0-9]+\.[0-9]+[^/]*)/\S+)`).FindSubmatch(out)
	if found == nil {
		return bootstrap.EnvoyVersion{}, fmt.Errorf("%w: %s is not Envoy: --version prints %.200q", ErrEnvoy, binary, out)
	}
	return bootstrap.EnvoyVersion{Version: string(found[2]), Build: string(found[1]), Compatible: true}, nil
}
