package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/atoll-mesh/atoll/xds/wire"
)

// fleet is all proxies, and what they have got together.
type fleet struct {
	proxies   []*proxy
	outbounds int
	pool      pool
	trust     *x509.CertPool

	recording atomic.Bool
	watched   sync.WaitGroup // proxies that wait for a change
	open      sync.WaitGroup // streams, and those about to open

	totals struct {
		messages, resources, changed, bytes, wire atomic.Int64
		last                                      atomic.Int64 // UnixNano of the last message
	}
	mu      sync.Mutex
	targets map[int]string // by zone; none: the zone is away
	faults  int
	fault   error
}

func newFleet(outbounds int) *fleet {
	return &fleet{outbounds: outbounds, pool: pool{all: map[uint64]*resource{}}, targets: map[int]string{}, trust: x509.NewCertPool()}
}

// totals is what the fleet has received since it began.
type totals struct{ messages, resources, changed, bytes, wire int64 }

func (f *fleet) total() totals {
	t := &f.totals
	return totals{t.messages.Load(), t.resources.Load(), t.changed.Load(), t.bytes.Load(), t.wire.Load()}
}

func (t totals) since(o totals) totals {
	return totals{t.messages - o.messages, t.resources - o.resources, t.changed - o.changed, t.bytes - o.bytes, t.wire - o.wire}
}

func (f *fleet) count(resources, changed, size int, now time.Time) {
	f.totals.messages.Add(1)
	f.totals.resources.Add(int64(resources))
	f.totals.changed.Add(int64(changed))
	f.totals.bytes.Add(int64(size))
	f.totals.last.Store(now.UnixNano())
}

// metered counts what comes over the wire: TLS, HTTP/2 and all.
type metered struct {
	net.Conn
	bytes *atomic.Int64
}

func (m metered) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.bytes.Add(int64(n))
	return n, err
}

func (f *fleet) dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return metered{c, &f.totals.wire}, nil
}

// connect sends all proxies of a zone to an address, at once.
func (f *fleet) connect(zone int, address string) {
	f.mu.Lock()
	f.targets[zone] = address
	f.mu.Unlock()
	for _, p := range f.proxies {
		if p.zone == zone {
			f.open.Add(1)
			p.target <- address
		}
	}
}

// leave tells the fleet that a zone goes away: broken streams are no faults.
func (f *fleet) leave(zone int) {
	f.mu.Lock()
	delete(f.targets, zone)
	f.mu.Unlock()
	for _, p := range f.proxies {
		if p.zone == zone {
			p.mu.Lock()
			clear(p.answered) // what the next stream has not said is missing
			p.mu.Unlock()
		}
	}
}

// wanted reports whether the proxies of a zone should be connected to an address.
func (f *fleet) wanted(zone int, address string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.targets[zone] == address
}

// reset ends all streams and lets the proxies forget what they hold.
func (f *fleet) reset() {
	f.mu.Lock()
	clear(f.targets)
	f.mu.Unlock()
	for _, p := range f.proxies {
		p.mu.Lock()
		if p.cut != nil {
			p.cut()
		}
		p.mu.Unlock()
	}
	f.open.Wait()
	for _, p := range f.proxies {
		p.forget()
	}
}

// retry is the wait before a proxy connects again after a fault.
const retry = 200 * time.Millisecond

// broken notes an unexpected end of a stream; the proxy tries again.
func (f *fleet) broken(p *proxy, address string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.targets[p.zone] != address {
		return
	}
	f.faults++
	if f.fault == nil {
		f.fault = fmt.Errorf("%s: %w", p.name, err)
	}
	time.AfterFunc(retry, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.targets[p.zone] == address {
			f.open.Add(1)
			p.target <- address
		}
	})
}

// spread is how long proxies took.
type spread struct{ times []time.Duration }

func (s *spread) add(d ...time.Duration) { s.times = append(s.times, d...) }

// at is a percentile, 0 to 1.
func (s *spread) at(share float64) time.Duration {
	if len(s.times) == 0 {
		return 0
	}
	slices.Sort(s.times)
	return s.times[min(len(s.times)-1, int(share*float64(len(s.times))))]
}

// settleTime is how long proxies may take to get everything.
const settleTime = 2 * time.Minute

// settle waits until every proxy of the zones has all it should, and nothing
// came for a while, and returns when each proxy got its last piece.
func (f *fleet) settle(ctx context.Context, since time.Time, quiet time.Duration, in func(*proxy) bool) (spread, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var missing error
		for _, p := range f.proxies {
			if missing = p.full(f.outbounds); missing != nil {
				break
			}
		}
		if missing == nil && time.Since(time.Unix(0, f.totals.last.Load())) > quiet {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			f.mu.Lock()
			defer f.mu.Unlock()
			return spread{}, fmt.Errorf("the proxies do not settle: %v (%d faults, the first: %v)", missing, f.faults, f.fault)
		}
	}
	var s spread
	for _, p := range f.proxies {
		if in == nil || in(p) {
			p.mu.Lock()
			s.add(p.progress.Sub(since))
			p.mu.Unlock()
		}
	}
	return s, nil
}

// change is something that proxies are expected to notice.
type change struct {
	title string
	typ   wire.Type
	names func(string) bool
	zone  int  // whose proxies are watched; -1: all
	again bool // resources that did not change come again with those that did
}

// expect makes proxies wait for a change, and returns how many do.
func (f *fleet) expect(c change) int {
	n := 0
	for _, p := range f.proxies {
		p.mu.Lock()
		p.messages, p.watch = nil, watch{}
		if p.callers && (c.zone < 0 || p.zone == c.zone) {
			left := 0
			for name := range p.held[c.typ] {
				if c.names(name) {
					left++
				}
			}
			if left > 0 {
				p.watch = watch{typ: c.typ, name: c.names, left: left}
				f.watched.Add(1)
				n++
			}
		}
		p.mu.Unlock()
	}
	return n
}

// await waits until all that expect the change have it, and until it is quiet.
func (f *fleet) await(ctx context.Context, since time.Time) (spread, error) {
	done := make(chan struct{})
	go func() {
		f.watched.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return spread{}, ctx.Err()
	case <-time.After(2 * time.Minute):
		n := 0
		var one *proxy
		for _, p := range f.proxies {
			p.mu.Lock()
			if p.watch.left > 0 {
				n, one = n+1, p
			}
			p.mu.Unlock()
		}
		return spread{}, fmt.Errorf("%d proxies did not get the change, one of them %s (%d faults, the first: %v)", n, one.name, f.faults, f.fault)
	}
	if _, err := f.settle(ctx, since, 300*time.Millisecond, nil); err != nil {
		return spread{}, err
	}
	var s spread
	for _, p := range f.proxies {
		p.mu.Lock()
		if !p.watch.done.IsZero() {
			s.add(p.watch.done.Sub(since))
		}
		p.mu.Unlock()
	}
	return s, nil
}
