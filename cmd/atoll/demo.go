package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// demoOptions are the flags of `atoll demo`.
type demoOptions struct {
	check    bool
	envoy    string
	keepLogs string
}

// demoLimit bounds a whole `atoll demo --check`.
const demoLimit = 90 * time.Second

func demoCommand() *cobra.Command {
	var o demoOptions
	command := &cobra.Command{
		Use:   "demo",
		Short: "Show it: a global, two zones and a shop on this machine",
		Long: `Starts a global control plane, the zones east and west, and a shop of four
services with an Envoy next to each; then shows calls within and across zones,
policies that take effect, and what happens when parts fail. Everything runs on
loopback addresses, without privileges, in a temporary directory, and ends with
Ctrl-C.

      east                               west
  ┌──────────────────────┐           ┌───────────────────────────────────┐
  │ web ──▶ catalog      │           │      cart ──▶ catalog ×2          │
  │   └───────────────────── mTLS ──────▶ ingress ▲ └──▶ payments        │
  └──────────────────────┘           └───────────────────────────────────┘`,
		Example: `  # watch it, then try things by hand
  atoll demo

  # for a pipeline: every step is asserted; exit status 0 or 1
  atoll demo --check --keep-logs /tmp/demo-logs`,
		Args: arguments(cobra.NoArgs),
	}
	fs := command.Flags()
	fs.BoolVar(&o.check, "check", false, "play once, assert every step, end everything; exit status 1 if a step failed")
	fs.StringVar(&o.envoy, "envoy", "", "Envoy (default: on the PATH, else .tools/envoy/envoy as `make envoy` leaves it)")
	fs.StringVar(&o.keepLogs, "keep-logs", "", "directory for the logs of all parts; it is kept")
	command.RunE = stoppable(func(ctx context.Context, command *cobra.Command, _ []string) error {
		return runDemo(ctx, o, command.OutOrStdout())
	})
	return command
}

// runDemo plays the story and, unless it is only a check, stays up until the
// context ends. Everything that was started has ended when it returns.
func runDemo(ctx context.Context, o demoOptions, out io.Writer) (err error) {
	began, user := time.Now(), ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.check {
		limited, stop := context.WithTimeoutCause(ctx, demoLimit, fmt.Errorf("the story was not over within %v", demoLimit))
		defer stop()
		ctx = limited
	}
	screen := newScreen(out)
	defer screen.close()
	lab, err := newLab(o, screen, cancel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.close()) }()

	story := &story{lab: lab, screen: screen}
	if err := story.play(ctx); err != nil {
		if user.Err() != nil {
			return context.Canceled
		}
		return err
	}
	if o.check {
		screen.say("every step holds (%.1f s)", time.Since(began).Seconds())
		return nil
	}
	story.invite()
	<-ctx.Done()
	if user.Err() != nil {
		screen.say("\nending everything …")
		return nil
	}
	return story.explain(context.Cause(ctx))
}

// findDemoEnvoy returns the absolute path of Envoy.
func findDemoEnvoy(flag string) (string, error) {
	names := []string{"envoy", filepath.Join(".tools", "envoy", "envoy")}
	if own, err := os.Executable(); err == nil { // bin/atoll beside .tools
		names = append(names, filepath.Join(filepath.Dir(filepath.Dir(own)), ".tools", "envoy", "envoy"))
	}
	if flag != "" {
		names = []string{flag}
	}
	for _, name := range names {
		if found, err := exec.LookPath(name); err == nil || errors.Is(err, exec.ErrDot) {
			return filepath.Abs(found)
		}
	}
	if flag != "" {
		return "", fmt.Errorf("%s is no program that can be run (--envoy)", flag)
	}
	return "", errors.New("there is no Envoy on the PATH and none at .tools/envoy/envoy: run `make envoy`, or name one by --envoy")
}
