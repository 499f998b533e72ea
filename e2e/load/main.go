// Command load measures Atoll under many proxies, beside two comparators.
//
// It owns the load run behind `make bench`: it starts a global and its zones as
// processes of their own, opens streams to them as Envoys would, measures, and
// does the same, with the resources captured from Atoll, against
//
//   - the prepared floor: bytes encoded before, spliced on a signal;
//   - the minimal server: go-control-plane's snapshot cache, one snapshot per
//     node, set anew for each node that a change concerns.
//
// Nothing imports it. It never checks what a resource means, only that each
// proxy got it, when, and that nothing else was sent.
//
//	this process: N proxies ──TLS, delta ADS──▶ zone processes ──KDS──▶ global process
//	       │ captured resources                ▶ floor processes
//	       └────────── a file per zone ───────▶ minimal processes
//
// Each proxy is a workload of one service and calls all other services (or
// -outbounds of them), half of them in other zones, and the one multi-zone
// service: with 100 services about 100 clusters. No two services have the same
// list, so there are as many classes of proxies as services. Beside the N
// proxies each zone has an ingress and one proxy of the multi-zone service.
//
// # Why
//
// A figure alone says little about another machine; a ratio to the same bytes
// sent by a program that does nothing else does. Servers run in processes of
// their own because memory and CPU are then the kernel's figures. Proxies are
// goroutines that read frames without decoding what they have seen before,
// because on few cores an expensive client would hide the server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options of a run.
type options struct {
	proxies, services, zones, outbounds, rounds int
	idle                                        time.Duration
	json                                        bool
	profile                                     string
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "child" {
		if err := serveChild(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.proxies, "n", 1000, "proxies")
	flag.IntVar(&o.services, "services", 100, "services")
	flag.IntVar(&o.zones, "zones", 2, "zones")
	flag.IntVar(&o.outbounds, "outbounds", 0, "services that each proxy calls; 0: all but its own")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each change is made and undone")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "how long to watch idle servers")
	flag.BoolVar(&o.json, "json", false, "print the figures as JSON")
	flag.StringVar(&o.profile, "profile", "", "directory for CPU and heap profiles of the zones")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.zones < 2 || o.services < o.zones || o.proxies < o.services {
		return errors.New("want two zones or more, a service for each, and a proxy for each service")
	}
	if o.outbounds <= 0 || o.outbounds >= o.services {
		o.outbounds = o.services - 1
	}
	if err := moreFiles(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "atoll-load-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &report{options: o}
	f, err := r.atoll(ctx, dir)
	if err != nil {
		return fmt.Errorf("atoll: %w", err)
	}
	for _, kind := range []string{"floor", "minimal"} {
		if err := r.comparator(ctx, dir, kind, f); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return r.print(os.Stdout)
}

// moreFiles raises the limit of open files to what is allowed: a proxy is a
// connection, and children inherit the limit.
func moreFiles() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	l.Cur = l.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	return nil
}
