package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/xds/wire"
)

// report is the figures of a run, by system.
type report struct {
	options options
	systems []*figures
}

// figures of one system. Times are from the cause to each proxy's response.
type figures struct {
	name    string
	contact spread // first config; with Atoll the proxies register themselves
	first   spread // first config of proxies that are known
	changes []changed
	resync  spread
	idle    totals
	idleCPU time.Duration // of all servers of proxies
	queries int64         // run in the idle time; -1: the zones do not tell
	rss     int64         // of all servers of proxies, after the idle time
	proxies int
	faults  int
}

// changed is what was seen of one change in all rounds.
type changed struct {
	change
	times spread
	got   totals // of all rounds
	n     int    // how often it was made or undone
	cpu   time.Duration
}

// changesOf lists what is measured. The zones are the first two.
func changesOf() []change {
	holds := func(part string) func(string) bool {
		return func(name string) bool { return strings.Contains(name, part) }
	}
	every := func(name string) bool { return strings.HasPrefix(name, "kri_") }
	return []change{
		{title: "policy (routes)", typ: wire.Route, names: every, zone: -1},
		{title: "policy (clusters)", typ: wire.Cluster, names: every, zone: -1, again: true},
		{title: "endpoint, own zone", typ: wire.Endpoints, names: holds("_" + serviceName(0) + "_"), zone: 0},
		{title: "endpoint, other zone", typ: wire.Endpoints, names: holds("_" + solo + "_"), zone: 0},
	}
}

// make makes or undoes a change of [changesOf] in Atoll.
func (a *atoll) make(ctx context.Context, change int, back bool) error {
	extra := 1
	if back {
		extra = 0
	}
	switch change {
	case 0:
		return a.timeouts(ctx, 5, 15+extra)
	case 1:
		return a.timeouts(ctx, 5+extra, 15)
	case 2:
		return a.ready(ctx, a.proxy(serviceName(0)+"-000"), back)
	default:
		return a.ready(ctx, a.proxy(solo+"-"+zoneName(1)), back)
	}
}

// servers are the processes that serve proxies.
type servers []*child

func (s servers) cpu() (sum time.Duration) {
	for _, c := range s {
		sum += c.usage().cpu
	}
	return sum
}

func (s servers) rss() (sum int64) {
	for _, c := range s {
		sum += c.usage().rss
	}
	return sum
}

// rounds makes and undoes each change several times.
func (f *fleet) rounds(ctx context.Context, rounds int, serving servers, do func(change int, back bool) error) ([]changed, recorded, error) {
	var out []changed
	var rec recorded
	for i, c := range changesOf() {
		x := changed{change: c}
		var kept [2]map[*proxy][]message
		for round := range rounds {
			for dir := range 2 {
				f.recording.Store(round == 0)
				if f.expect(c) == 0 {
					return nil, nil, fmt.Errorf("%s concerns nobody", c.title)
				}
				before, cpu, begin := f.total(), serving.cpu(), time.Now()
				if err := do(i, dir == 1); err != nil {
					return nil, nil, fmt.Errorf("%s: %w", c.title, err)
				}
				s, err := f.await(ctx, begin)
				if err != nil {
					return nil, nil, fmt.Errorf("%s: %w", c.title, err)
				}
				got := f.total().since(before)
				x.times.add(s.times...)
				x.got.add(got)
				x.n++
				x.cpu += serving.cpu() - cpu
				if round == 0 {
					kept[dir] = f.recorded()
				}
			}
		}
		f.recording.Store(false)
		out, rec = append(out, x), append(rec, kept)
	}
	return out, rec, nil
}

func (t *totals) add(o totals) {
	t.messages += o.messages
	t.resources += o.resources
	t.changed += o.changed
	t.bytes += o.bytes
	t.wire += o.wire
}

// recorded takes the messages of the last change.
func (f *fleet) recorded() map[*proxy][]message {
	out := map[*proxy][]message{}
	for _, p := range f.proxies {
		p.mu.Lock()
		if len(p.messages) > 0 {
			out[p] = p.messages
		}
		p.mu.Unlock()
	}
	return out
}

// idle watches servers to which nothing happens.
func (x *figures) watchIdle(ctx context.Context, f *fleet, serving servers, d time.Duration) error {
	before, cpu := f.total(), serving.cpu()
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return ctx.Err()
	}
	x.idle, x.idleCPU, x.rss = f.total().since(before), serving.cpu()-cpu, serving.rss()
	return nil
}

// quiet is how long nothing comes before a fleet counts as settled.
const quiet = time.Second

// live starts the proxies; the function ends them.
func (f *fleet) live(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	for _, p := range f.proxies {
		go p.live(ctx)
	}
	return func() {
		f.reset()
		cancel()
	}
}

// atoll measures Atoll, and writes what the comparators are to serve.
func (r *report) atoll(ctx context.Context, dir string) (*fleet, error) {
	a, err := startAtoll(ctx, dir, r.options)
	defer a.stop()
	if err != nil {
		return nil, err
	}
	f := a.fleet
	defer f.live(ctx)()
	x := &figures{name: "atoll", proxies: len(f.proxies)}
	progress("atoll: %d proxies register and connect", len(f.proxies))
	profiled := a.profiling(ctx, "contact")
	if x.contact, err = a.arrive(ctx); err != nil {
		return nil, err
	}
	f.reset()
	profiled()
	profiled = a.profiling(ctx, "first")
	progress("atoll: %d known proxies connect", len(f.proxies))
	if x.first, err = a.arrive(ctx); err != nil {
		return nil, err
	}
	profiled()
	progress("atoll: changes")
	profiled = a.profiling(ctx, "changes")
	var rec recorded
	if x.changes, rec, err = f.rounds(ctx, r.options.rounds, a.serving(), func(i int, back bool) error { return a.make(ctx, i, back) }); err != nil {
		return nil, err
	}
	profiled()
	for i := range a.zones {
		if err := f.writeCapture(captureFile(dir, i), i, rec); err != nil {
			return nil, err
		}
	}
	progress("atoll: idle")
	if err := a.converged(ctx); err != nil {
		return nil, err
	}
	ran, told := a.queries(ctx)
	if err := x.watchIdle(ctx, f, a.serving(), r.options.idle); err != nil {
		return nil, err
	}
	x.queries = -1
	if again, _ := a.queries(ctx); told {
		x.queries = again - ran
	}
	if a.o.profile != "" {
		if err := a.profile(ctx, "heap", "heap"); err != nil {
			return nil, err
		}
	}
	progress("atoll: restart of a zone")
	profiled()
	begin, err := a.restart(ctx, 0)
	if err != nil {
		return nil, err
	}
	if x.resync, err = f.settle(ctx, begin, quiet, func(p *proxy) bool { return p.zone == 0 }); err != nil {
		return nil, err
	}
	x.faults = f.faults
	r.systems = append(r.systems, x)
	return f, nil
}

// arrive connects all proxies at once and waits until they have everything.
func (a *atoll) arrive(ctx context.Context) (spread, error) {
	begin := time.Now()
	for i := range a.zones {
		if err := a.connect(ctx, i); err != nil {
			return spread{}, err
		}
	}
	for {
		if _, err := a.fleet.settle(ctx, begin, quiet, nil); err != nil {
			return spread{}, err
		}
		before := a.fleet.total()
		if err := a.converged(ctx); err != nil {
			return spread{}, err
		}
		s, err := a.fleet.settle(ctx, begin, quiet, nil)
		if err != nil || a.fleet.total().since(before) == (totals{wire: a.fleet.total().since(before).wire}) {
			return s, err
		}
	}
}

func (a *atoll) serving() (s servers) {
	for _, z := range a.zones {
		s = append(s, z.child)
	}
	return s
}

// queriesMetric counts the queries that a zone's engine has run.
const queriesMetric = "atoll_engine_queries_run_total"

// queries is how many queries the zones have run, as their metrics tell.
func (a *atoll) queries(ctx context.Context) (sum int64, told bool) {
	for _, z := range a.zones {
		body, err := z.diagnose(ctx, "/metrics")
		if err != nil {
			return 0, false
		}
		for line := range strings.Lines(string(body)) {
			fields := strings.Fields(line)
			if len(fields) != 2 || !strings.HasPrefix(fields[0], queriesMetric) {
				continue
			}
			if n, err := strconv.ParseFloat(fields[1], 64); err == nil {
				sum, told = sum+int64(n), true
			}
		}
	}
	return sum, told
}

// profiling takes a CPU profile of the first zone while something happens.
func (a *atoll) profiling(ctx context.Context, name string) (wait func()) {
	if a.o.profile == "" {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.profile(ctx, name, "profile?seconds=10"); err != nil {
			progress("profile: %v", err)
		}
	}()
	return func() { <-done }
}

func captureFile(dir string, zone int) string {
	return filepath.Join(dir, zoneName(zone)+".capture")
}

// comparator measures a comparator with the fleet that Atoll served.
func (r *report) comparator(ctx context.Context, dir, kind string, f *fleet) error {
	x := &figures{name: kind, proxies: len(f.proxies)}
	var serving servers
	defer func() {
		for _, c := range serving {
			c.stop()
		}
	}()
	configs := make([]comparatorConfig, r.options.zones)
	for i := range configs {
		certs := filepath.Join(dir, zoneName(i))
		configs[i] = comparatorConfig{
			Address: "127.0.0.1:0", Capture: captureFile(dir, i),
			CertFile: filepath.Join(certs, "server.crt"), KeyFile: filepath.Join(certs, "server.key"),
		}
	}
	config := func(i int) string { return filepath.Join(dir, fmt.Sprintf("%s-%d.json", kind, i)) }
	addresses := make([]string, len(configs))
	for i, c := range configs {
		s, err := start(kind, config(i), c)
		if err != nil {
			return err
		}
		serving = append(serving, s)
		if _, err := s.said.Value(ctx, "ready"); err != nil {
			return err
		}
		if addresses[i], err = s.said.Value(ctx, "dp-server"); err != nil {
			return err
		}
	}
	f.faults, f.fault = 0, nil
	defer f.live(ctx)()
	progress("%s: %d proxies connect", kind, len(f.proxies))
	begin := time.Now()
	for i, address := range addresses {
		f.connect(i, address)
	}
	var err error
	if x.contact, err = f.settle(ctx, begin, quiet, nil); err != nil {
		return err
	}
	x.first = x.contact
	progress("%s: changes", kind)
	if x.changes, _, err = f.rounds(ctx, r.options.rounds, serving, func(change int, back bool) error {
		line := fmt.Sprintf("%d 0", change)
		if back {
			line = fmt.Sprintf("%d 1", change)
		}
		for _, s := range serving {
			if err := s.tell(line); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	progress("%s: idle", kind)
	if err := x.watchIdle(ctx, f, serving, r.options.idle); err != nil {
		return err
	}
	progress("%s: restart", kind)
	f.leave(0)
	serving[0].stop()
	f.leave(0) // after the last words of the old process
	begin = time.Now()
	again, err := start(kind, config(0), configs[0])
	if err != nil {
		return err
	}
	serving[0] = again
	if addresses[0], err = again.said.Value(ctx, "dp-server"); err != nil {
		return err
	}
	f.connect(0, addresses[0])
	if x.resync, err = f.settle(ctx, begin, quiet, func(p *proxy) bool { return p.zone == 0 }); err != nil {
		return err
	}
	x.faults = f.faults
	r.systems = append(r.systems, x)
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
