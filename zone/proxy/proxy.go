// Package proxy is what runs next to an Envoy: it asks a zone for the first
// configuration, runs Envoy with it, says whether Envoy is ready, drains it and
// ends with it (`atoll dp`). It answers lookups of services' names, and passes on what Envoy cannot send by itself: access
// logs over TCP, OpenTelemetry to collectors that the environment has a say in. Metrics of Envoy and of the applications
// beside it are gathered by package metrics, below.
//
// It owns the Envoy process, the work directory with the bootstrap and sockets,
// and the readiness endpoint, which has the program's own metrics as well. `atoll dp` and the demo call [Run]. It never speaks
// xDS: Envoy does, with what the bootstrap says. It never logs a token.
//
//	definition, token, CA ─▶ POST /bootstrap ─▶ bootstrap.yaml ─▶ Envoy ─▶ its status
//	                          again on failure                      │
//	                     GET /ready ◀── administration socket ◀─────┤
//	     what is to run beside it   ◀── dynamic-config socket ◀─────┤
//	             sinks, collectors  ◀── outbox ◀── pipe, sockets ◀──┘
//
// # Why
//
// Envoy is not restarted here. A process that died may have died of its place
// (port taken, memory), and a supervisor above (systemd, Kubernetes, a terminal)
// already knows how to wait, count and report; two that restart each other's
// child hide the reason. So Run ends with Envoy's status and says why, and starting
// again begins from nothing: new bootstrap, new sockets, new process.
//
// Envoy is in a process group of its own, so that a Ctrl-C of a terminal reaches
// only this program, which then drains; and the kernel ends Envoy when this
// process is killed (Linux), so that no Envoy goes on with nobody to ask for
// its health.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

var (
	// ErrConfig: a setting, the definition, a token or a CA file is not usable.
	ErrConfig = errors.New("configuration")
	// ErrRefused: the control plane refused the bootstrap for good.
	ErrRefused = errors.New("the control plane refused the bootstrap")
	// ErrUnavailable: there was no bootstrap within the time allowed.
	ErrUnavailable = errors.New("no bootstrap from the control plane")
	// ErrEnvoy: Envoy could not be started, or ended by itself with a failure.
	ErrEnvoy = errors.New("envoy")
)

// Run runs one proxy until Envoy ends, and returns the status to exit with:
// Envoy's (128 + n if signal n killed it), or 1 with an error if Envoy was never
// started.
//
// Of c.Signals, SIGTERM and SIGINT drain and then stop Envoy; a second one ends
// the drain. SIGUSR2 starts draining only. All others go to Envoy. The end of ctx
// stops Envoy without a drain. A stop before Envoy runs is status 0.
func Run(ctx context.Context, c Config) (exit int, err error) {
	r := &runner{Config: c, log: c.Log, registry: prometheus.NewRegistry()}
	r.counters = newCounters(r.registry)
	if r.log == nil {
		r.log = slog.Default()
	}
	if err := r.prepare(); err != nil {
		return 1, errors.Join(err, r.cleanUp())
	}
	defer func() { err = errors.Join(err, r.cleanUp()) }()

	if r.version, err = envoyVersion(ctx, r.binary); err != nil {
		if ctx.Err() != nil {
			return 0, nil
		}
		return 1, err
	}
	ready, err := r.listen()
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, ready.close()) }()

	names, err := r.openNames()
	if err != nil {
		return 1, err
	}
	defer names.close()

	answer, stopped, err := r.bootstrap(ctx)
	if err != nil {
		return 1, err
	}
	if stopped {
		return 0, nil
	}
	if err := r.writeFile(bootstrapFile, string(answer.Bootstrap)); err != nil {
		return 1, err
	}
	admin, err := adminOf(answer.Bootstrap)
	if err != nil {
		return 1, err
	}
	r.admin = admin
	defer admin.close()
	end, err := r.beside(names, answer.Sidecar)
	if err != nil {
		return 1, err
	}
	defer end()
	process, err := r.start()
	if err != nil {
		return 1, err
	}
	named, stopWaiting := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		names.ready(named)
		ready.started(admin)
	})
	defer waiting.Wait()
	defer stopWaiting()
	return r.supervise(ctx, process, ready)
}

// runner is one run.
type runner struct {
	Config
	log     *slog.Logger
	binary  string
	version bootstrap.EnvoyVersion
	dir     directory
	subject subject
	caPEM   string
	token   string
	port    uint32 // of the readiness endpoint
	dnsPort uint32 // 0: names are not answered
	admin   *admin

	registry *prometheus.Registry
	counters counters
}

// bootstrap asks the control plane; a signal to end, or the end of ctx, stops it.
func (r *runner) bootstrap(ctx context.Context) (answer bootstrap.Answer, stopped bool, err error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	type result struct {
		answer bootstrap.Answer
		err    error
	}
	done := make(chan result, 1)
	source, err := r.source()
	if err != nil {
		return answer, false, err
	}
	defer source.HTTP.CloseIdleConnections()
	go func() {
		a, err := source.Fetch(asking, r.request())
		done <- result{a, err}
	}()
	for {
		select {
		case got := <-done:
			if stopped = ctx.Err() != nil; stopped {
				return answer, true, nil
			}
			return got.answer, false, got.err
		case s := <-r.Signals:
			if s == syscall.SIGTERM || s == syscall.SIGINT {
				r.log.Info("stopped before Envoy was started", "signal", s)
				stop()
				<-done
				return answer, true, nil
			}
		}
	}
}

// supervise waits for the end of Envoy, and brings it about.
func (r *runner) supervise(ctx context.Context, p *process, ready *readiness) (int, error) {
	var drained <-chan time.Time // fires when the drain is over
	var killAt <-chan time.Time  // fires when Envoy had its time to stop
	ended := ctx.Done()
	asked := false // Envoy was told to stop
	var tells sync.WaitGroup
	telling, cancel := context.WithCancel(ctx)
	defer tells.Wait()
	defer cancel()
	stop := func() {
		if asked {
			return
		}
		asked = true
		drained, ended = nil, nil
		p.signalGroup(syscall.SIGTERM)
		killAt = time.After(r.StopTime)
	}
	for {
		select {
		case <-p.done:
			return r.verdict(p, asked)
		case s := <-r.Signals:
			switch s {
			case syscall.SIGTERM, syscall.SIGINT:
				if drained != nil || asked {
					r.log.Info("second signal: the drain ends now", "signal", s)
					stop()
					continue
				}
				r.log.Info("draining", "signal", s, "time", r.DrainTime)
				ready.terminating()
				drained = time.After(r.DrainTime)
				tells.Go(func() { r.drain(telling, p, true) })
			case syscall.SIGUSR2:
				r.log.Info("draining, not stopping", "signal", s)
				tells.Go(func() { r.drain(telling, p, false) })
			default:
				if n, ok := s.(syscall.Signal); ok {
					p.signal(n)
				}
			}
		case <-drained:
			stop()
		case <-ended:
			ready.terminating()
			stop()
		case <-killAt:
			r.log.Warn("Envoy did not stop in time and is killed", "time", r.StopTime)
			p.signalGroup(syscall.SIGKILL)
			killAt = nil
		}
	}
}

// drain tells Envoy to send its connections away.
func (r *runner) drain(ctx context.Context, p *process, fail bool) {
	paths := []string{"/drain_listeners?inboundonly&graceful&skip_exit"}
	if fail {
		paths = append([]string{"/healthcheck/fail"}, paths...)
	}
	for _, path := range paths {
		if err := r.admin.post(ctx, path); err != nil {
			select {
			case <-p.done: // nothing is left to drain
			default:
				r.log.Warn("Envoy could not be told to drain", "path", path, "error", err)
			}
		}
	}
}

// verdict turns the end of Envoy into a status and, if it was not asked to end
// or ended badly, an error.
func (r *runner) verdict(p *process, asked bool) (int, error) {
	status, how := p.status()
	switch {
	case asked && (p.killedBy(syscall.SIGTERM) || p.killedBy(syscall.SIGKILL)):
		return status, nil // by us: told to stop before it could listen, or too slow
	case status == 0:
		r.log.Info("Envoy ended")
		return 0, nil
	}
	return status, fmt.Errorf("%w %s (%s, bootstrap %s): its last lines of log say why; this process ends with its status, to be started again by whoever started it",
		ErrEnvoy, how, r.binary, r.file(bootstrapFile))
}

// source is where the bootstrap comes from.
func (r *runner) source() (*Source, error) {
	client, err := httpClient(r.caPEM, r.SkipVerify)
	if err != nil {
		return nil, err
	}
	return &Source{URL: r.ControlPlane, HTTP: client, Backoff: r.RetryBackoff, MaxDuration: r.RetryMaxDuration, Log: r.log}, nil
}

func (r *runner) arguments() []string {
	args := []string{
		"--config-path", r.file(bootstrapFile),
		"--drain-time-s", strconv.FormatInt(int64(max(1, (r.DrainTime+time.Second-1)/time.Second)), 10),
		"--drain-strategy", "immediate",
		"--disable-hot-restart",
		"--file-flush-interval-msec", "1000", // else lines of access logs are ten seconds late
		"--log-level", r.EnvoyLogLevel,
	}
	if r.EnvoyComponentLogLevel != "" {
		args = append(args, "--component-log-level", r.EnvoyComponentLogLevel)
	}
	if r.Concurrency > 0 {
		return append(args, "--concurrency", strconv.Itoa(r.Concurrency))
	}
	return append(args, "--cpuset-threads")
}

// findEnvoy returns the absolute path of Envoy.
func findEnvoy(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%w: %q was not found (%v): install Envoy, or name it by --binary-path", ErrConfig, name, err)
	}
	return filepath.Abs(found) // it is started in another directory
}
