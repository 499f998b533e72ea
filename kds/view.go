package kds

import (
	"iter"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/kds/delta"
)

// view is the catalog as one peer may see it: the source of its session.
type view struct {
	c       *catalog
	dialect dialect
	allow   func(*db.Snapshot, api.AnyKind, api.Row) bool
}

// dialectOf is what a peer understands: release 2.14 and this project know older
// forms as well.
func dialectOf(n *node) dialect {
	switch {
	case n.has(featureRevisions):
		return asWritten
	case n.has(featureOlder):
		return older
	}
	return newer
}

// forZone is what one zone may see of what leaves global.
func (c *catalog) forZone(zone string) func(*node) *view {
	return func(n *node) *view {
		producer, generators, own := n.has(featureProducer), n.has(featureHGMZ), n.has(featureRevisions)
		return &view{c: c, dialect: dialectOf(n), allow: func(s *db.Snapshot, k api.AnyKind, row api.Row) bool {
			m := row.Head()
			if k.Info().Own && !own {
				return false
			}
			if g, ok := row.Body().(*api.HostnameGenerator); ok && g.Selector.MeshMultiZoneService != nil && !generators {
				return false
			}
			if m.Source == "" {
				return true
			}
			if m.Source == zone || m.Zone == zone {
				return false
			}
			if k.Info().Policy != nil && !producer {
				return false
			}
			origin, ok := api.Zones.Get(s, zoneID(m.Source))
			return !ok || origin.Spec.IsEnabled()
		}}
	}
}

// forGlobal is what global may see of what leaves a zone: all that it knows.
func (c *catalog) forGlobal(n *node) *view {
	own := n.has(featureRevisions)
	return &view{c: c, dialect: dialectOf(n), allow: func(_ *db.Snapshot, k api.AnyKind, _ api.Row) bool { return own || !k.Info().Own }}
}

func zoneID(zone string) api.ID { return api.ID{Kind: api.Zones.Name, Name: zone} }

// Get returns the encoded row of a name; see [delta.Source].
func (v *view) Get(kind, key string) (delta.Item, bool) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	sh := v.c.shelves[kind]
	if sh == nil {
		return nil, false
	}
	e := sh.entries[key]
	if e == nil || !v.allow(v.c.snapshot, sh.kind, e.row) {
		return nil, false
	}
	if res := v.c.item(sh, key, e, v.dialect); res != nil {
		return res, true
	}
	return nil, false
}

// Names lists what the peer may see of a kind.
func (v *view) Names(kind string) iter.Seq[string] {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	var names []string
	if sh := v.c.shelves[kind]; sh != nil {
		for key, e := range sh.entries {
			if v.allow(v.c.snapshot, sh.kind, e.row) {
				names = append(names, key)
			}
		}
	}
	return slices.Values(names)
}

// unsaid lists what the peer is not told because its dialect cannot say it, of
// the kinds that it asks for.
func (v *view) unsaid(kinds map[string]bool) []Rejection {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	var out []Rejection
	for kind, sh := range v.c.shelves {
		for key, reason := range sh.unsaid[v.dialect] {
			if e := sh.entries[key]; kinds[kind] && e != nil && v.allow(v.c.snapshot, sh.kind, e.row) {
				out = append(out, Rejection{Kind: kind, Name: key, Reason: reason})
			}
		}
	}
	return out
}
