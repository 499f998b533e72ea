package zone

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/zone/duty"
)

// restartGrace is what proxies get on top of the deregistration delay to come
// back after a start of the control plane.
const restartGrace = 30 * time.Second

// retryAfter is the wait after a deletion that the store refused.
const retryAfter = 5 * time.Second

// reaper deletes what proxies registered, their Dataplanes or the ZoneIngresses
// and ZoneEgresses that those stand for, when the proxies have been away for the
// deregistration delay. Also a proxy that registered and never
// got to connect is away.
type reaper struct {
	*zone
	delay time.Duration
	duty  *duty.Duty
	away  map[api.ID]time.Time // when they are due; of run's goroutine

	mu    sync.Mutex
	moved map[api.ID]struct{} // came, went or registered
}

// reap runs until the context ends.
func (z *zone) reap(ctx context.Context) error {
	p := &reaper{
		zone: z, delay: time.Duration(z.config.DPServer.DeregistrationDelay),
		away: map[api.ID]time.Time{}, moved: map[api.ID]struct{}{}, duty: duty.New(z.Now),
	}
	stop := z.DB.OnCommit(p.commit)
	defer stop()
	for dp := range api.Dataplanes.All(z.DB.Snapshot()) {
		if _, ok := registered(z.DB.Snapshot(), dp.ID); ok {
			p.away[dp.ID] = z.Now().Add(p.delay + restartGrace)
			p.moved[dp.ID] = struct{}{} // those that are here already
		}
	}
	return p.duty.Run(ctx, p.sweep)
}

// commit notes whom a commit is about.
func (p *reaper) commit(c db.Commit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := len(p.moved)
	for _, ch := range c.Changes {
		for _, row := range []any{ch.Old, ch.New} {
			switch row := row.(type) {
			case *api.Connection:
				p.moved[row.Proxy] = struct{}{}
			case *api.Joining:
				p.moved[row.Proxy] = struct{}{}
			case *api.Object[api.Dataplane]:
				if row.Owner == proxyOwner || row.Owner == api.ZoneProxyOwner {
					p.moved[row.ID] = struct{}{}
				}
			}
		}
	}
	if len(p.moved) > before {
		p.duty.Poke()
	}
}

// sweep looks at those that moved, deletes who is due, and returns when the next
// one is.
func (p *reaper) sweep(ctx context.Context) (next time.Time) {
	p.mu.Lock()
	moved := p.moved
	p.moved = map[api.ID]struct{}{}
	p.mu.Unlock()
	snap, now := p.DB.Snapshot(), p.Now()
	for id := range moved {
		if _, connected := api.Connections.Get(snap, id.Key()); connected {
			delete(p.away, id)
		} else if _, known := p.away[id]; !known && leaves(snap, id) {
			p.away[id] = now.Add(p.delay)
		}
	}
	for id, due := range p.away {
		if !now.Before(due) {
			delete(p.away, id)
			if err := p.remove(ctx, id); err == nil || ctx.Err() != nil {
				continue
			} else if !errors.Is(err, store.ErrConflict) { // else the change has marked it again
				p.Log.Error("a proxy that is away cannot be deleted", "mesh", id.Mesh, "proxy", id.Name, "error", err)
			}
			due = now.Add(retryAfter)
			p.away[id] = due
		}
		next = duty.Earlier(next, due)
	}
	return next
}

// leaves reports whether there is something that goes when the proxy is away.
func leaves(r db.Reader, id api.ID) bool {
	_, ok := registered(r, id)
	_, joining := api.Joinings.Get(r, id.Key())
	return joining || ok
}

// registered is what the proxy of a Dataplane registered: that, or what it stands
// for and goes with.
func registered(r db.Reader, id api.ID) (api.Row, bool) {
	dp, ok := api.Dataplanes.Get(r, id)
	if !ok || dp.Owner == proxyOwner {
		return dp, ok
	}
	row, ok := api.ZoneProxyOf(r, dp)
	return row, ok && row.Head().Owner == proxyOwner
}

// remove deletes what a proxy left, unless it has come back: while this decides,
// nobody connects.
func (p *reaper) remove(ctx context.Context, id api.ID) error {
	p.leaving.Lock()
	defer p.leaving.Unlock()
	snap := p.DB.Snapshot()
	if _, back := api.Connections.Get(snap, id.Key()); back {
		return nil
	}
	if row, ok := registered(snap, id); ok {
		op := store.Op{Record: store.RecordOf(row), Delete: true, Expect: store.At(store.Revision(row.Head().Revision))}
		if _, err := p.Feeder.Apply(ctx, []store.Op{op}); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if _, ok := api.Joinings.Get(snap, id.Key()); !ok {
		return nil
	}
	_, err := p.DB.Write(func(tx *db.Tx) error {
		api.Joinings.Delete(tx, id.Key())
		return nil
	})
	return err
}
