// Package names keeps what names and addresses stand for in a zone.
//
// It owns three things, each with a function that a zone runs:
//
//	Resolve    rows with a host name as address ─▶ resolver, every Interval ─▶ db: Resolution
//	Allocate   service came, went ─▶ compare with its row ─▶ store: VirtualIP
//	Generate   service, HostnameGenerator changed ─▶ hostname.Directory ─▶ db: Hostnames
//
// Plans and statuses read the rows. It never serves DNS.
//
// # Why
//
// DNS is not pure, so its answers enter as rows. An answer that comes out equal is
// not written; a name that stops resolving keeps its last answer, because a
// resolver that is away must not empty the endpoints of a service.
//
// A virtual address is claimed by creating the row of that address, which a store
// lets one instance do only: two instances cannot give one address to two services,
// should they ever allocate at the same time (see api/lease). Should they give two addresses to one service, the first
// that was stored counts for everybody, and the other is given back. Where a
// service's address is looked for first follows from its ID, so that it mostly has
// the same one in a new store, too. When a service goes its row stays for
// [Options.ReuseAfter]: it has its address again if it comes back, and no caller
// that still knows the address meets somebody else.
//
// Host names follow from rows alone, so every instance finds the same, in memory.
package names

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/hostname"
	"github.com/atoll-mesh/atoll/api/store"
)

// Options of the functions that a zone runs.
type Options struct {
	DB   *db.DB
	Site api.Site
	Log  *slog.Logger

	// Lookup resolves a name; nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]string, error)
	// Interval is how often names are looked up again. Zero: 10 s.
	Interval time.Duration

	// Apply stores virtual addresses.
	Apply func(context.Context, []store.Op) (store.Revision, error)
	// Ranges are where the virtual addresses of each kind of services are taken
	// from. A service keeps an address that is outside.
	Ranges map[string]netip.Prefix
	// ReuseAfter is how long the address of a service that went is kept for it.
	ReuseAfter time.Duration
	Now        func() time.Time
}

// marks is what the next turn looks at.
type marks struct {
	wake chan struct{}

	mu  sync.Mutex
	ids map[api.ID]struct{}
}

func newMarks() *marks { return &marks{wake: make(chan struct{}, 1), ids: map[api.ID]struct{}{}} }

func (m *marks) add(ids ...api.ID) {
	if len(ids) == 0 {
		return
	}
	m.mu.Lock()
	for _, id := range ids {
		m.ids[id] = struct{}{}
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *marks) take() map[api.ID]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := m.ids
	m.ids = map[api.ID]struct{}{}
	return ids
}

// headOf is what changed if it is a row of one of the kinds; a row that went is in Old.
func headOf(c db.Change, kinds ...api.AnyKind) (*api.Meta, bool) {
	for _, k := range kinds {
		if k.Info().Name != c.Table {
			continue
		}
		row, ok := c.New.(api.Row)
		if !ok {
			row, ok = c.Old.(api.Row)
		}
		if ok {
			return row.Head(), true
		}
	}
	return nil, false
}

// servicesIn lists the services of the kinds that have names and addresses.
func servicesIn(r db.Reader) []api.ID {
	var ids []api.ID
	for _, k := range hostname.Kinds {
		for row := range k.AllRows(r) {
			ids = append(ids, row.Head().ID)
		}
	}
	return ids
}
