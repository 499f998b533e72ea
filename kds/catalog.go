package kds

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// catalog holds all rows that may leave, by their names on the wire, each
// encoded at most once per version of the row and dialect, and shared by every
// stream.
type catalog struct {
	o     Options
	way   direction
	ready chan struct{} // closed when the shelves are filled

	// What commits leave behind; the commit's goroutine does no more than this.
	noteMu sync.Mutex
	noted  map[string]map[api.ID]bool // kind → rows; true: derived parts changed
	newest *db.Snapshot
	flag   chan struct{}

	mu       sync.Mutex
	shelves  map[string]*shelf
	snapshot *db.Snapshot
	at       revision
	streams  map[*sender]struct{}
	encoded  uint64 // counter: how often a row was encoded
}

type shelf struct {
	kind    api.AnyKind
	entries map[string]*entry
	unsaid  [dialects]map[string]string // entries that a dialect cannot say → why
}

type entry struct {
	row   api.Row
	forms [dialects]form
}

// dialect is what a peer understands of what is written.
type dialect uint8

const (
	asWritten dialect = iota // all of it: it is of this project
	older                    // older forms and newer, but nothing of this project alone
	newer                    // nothing but the newer form
	dialects
)

// why begins the reason for what is not said.
func (d dialect) why() string {
	if d == newer {
		return "not sent, as it has no newer form: "
	}
	return "not sent, as a part of it would be dropped: "
}

// form is a row in a dialect.
type form struct {
	done bool
	res  *wire.Resource // until done that of the row before, if any
}

func newCatalog(o Options, way direction) *catalog {
	c := &catalog{
		o: o, way: way,
		ready:   make(chan struct{}),
		noted:   map[string]map[api.ID]bool{},
		flag:    make(chan struct{}, 1),
		shelves: map[string]*shelf{},
		streams: map[*sender]struct{}{},
	}
	for _, k := range o.Kinds {
		if way.subscribed(k.Info()) {
			c.shelves[k.Info().Name] = &shelf{kind: k, entries: map[string]*entry{}, unsaid: [dialects]map[string]string{older: {}, newer: {}}}
		}
	}
	return c
}

// run follows the database until the context ends.
func (c *catalog) run(ctx context.Context) {
	stop := c.o.DB.OnCommit(c.note)
	defer stop()
	c.fill(c.o.DB.Snapshot())
	close(c.ready)
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.flag:
			c.turn()
		}
	}
}

func (c *catalog) note(commit db.Commit) {
	c.noteMu.Lock()
	c.newest = commit.Snapshot
	relevant := false
	for _, change := range commit.Changes {
		if rev, ok := change.New.(*api.Revision); ok && rev.Source == "" {
			relevant = true
			continue
		}
		if change.Table == api.Zones.Info().Name && c.shelves[change.Table] == nil {
			c.noteRow(change.Table, api.ID{}, false) // decides what crosses
			relevant = true
			continue
		}
		if c.shelves[change.Table] == nil {
			continue
		}
		row, ok := change.New.(api.Row)
		if !ok {
			row, ok = change.Old.(api.Row)
		}
		if ok {
			c.noteRow(change.Table, row.Head().ID, false)
			relevant = true
		}
	}
	c.noteMu.Unlock()
	if relevant {
		c.wake()
	}
}

func (c *catalog) noteRow(kind string, id api.ID, derived bool) {
	if c.noted[kind] == nil {
		c.noted[kind] = map[api.ID]bool{}
	}
	c.noted[kind][id] = c.noted[kind][id] || derived
}

// touch says that what is derived for a row may be different now.
func (c *catalog) touch(id api.ID) {
	c.noteMu.Lock()
	c.noteRow(id.Kind, id, true)
	c.noteMu.Unlock()
	c.wake()
}

func (c *catalog) wake() {
	select {
	case c.flag <- struct{}{}:
	default:
	}
}

func (c *catalog) fill(s *db.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snapshot = s
	c.at = own(s)
	for _, sh := range c.shelves {
		for row := range sh.kind.AllRows(s) {
			if c.way.leaves(sh.kind, row) {
				sh.entries[c.key(sh.kind, row.Head().ID)] = &entry{row: row}
			}
		}
	}
}

// own is the revision of this control plane's own rows.
func own(s *db.Snapshot) revision {
	r, ok := api.Revisions.Get(s, "")
	if !ok {
		return revision{}
	}
	return revision{epoch: r.Epoch, counter: r.Counter}
}

func (c *catalog) key(k api.AnyKind, id api.ID) string {
	return wireName(c.way.name(k, id), id.Mesh)
}

// turn brings the shelves up to the newest commit and tells the streams.
func (c *catalog) turn() {
	c.noteMu.Lock()
	noted, newest := c.noted, c.newest
	c.noted = map[string]map[api.ID]bool{}
	c.noteMu.Unlock()

	c.mu.Lock()
	if newest != nil {
		c.snapshot = newest
	}
	changed := map[string][]string{}
	var again []string
	for kind, ids := range noted {
		sh := c.shelves[kind]
		if sh == nil { // Zone rows: what crosses may be allowed or not now
			for name, other := range c.shelves {
				if other.kind.Info().Flow.Has(api.Across) {
					again = append(again, name)
				}
			}
			continue
		}
		for id, derived := range ids {
			key := c.key(sh.kind, id)
			if c.put(sh, key, id, derived) {
				changed[kind] = append(changed[kind], key)
			}
		}
		if keys := changed[kind]; keys != nil {
			slices.Sort(keys)
			changed[kind] = slices.Compact(keys) // a Secret may take the name of another on the wire
		}
	}
	before := c.at
	c.at = own(c.snapshot)
	now := c.at
	var streams []*sender
	if len(changed) > 0 || len(again) > 0 || now != before {
		for s := range c.streams {
			streams = append(streams, s)
		}
	}
	c.mu.Unlock()

	for _, s := range streams {
		if before.epoch != "" && before.epoch != now.epoch {
			s.end(ErrEpoch)
			continue
		}
		s.mark(changed, again, now)
	}
}

// put renews one entry and reports whether it may be different.
func (c *catalog) put(sh *shelf, key string, id api.ID, derived bool) bool {
	old := sh.entries[key]
	row, ok := sh.kind.Row(c.snapshot, id)
	if !ok || !c.way.leaves(sh.kind, row) {
		delete(sh.entries, key)
		sh.forget(key)
		return old != nil
	}
	if old != nil && old.row == row && !derived {
		return false
	}
	sh.forget(key)
	e := &entry{row: row}
	if old != nil {
		for d, f := range old.forms {
			e.forms[d].res = f.res
		}
	}
	sh.entries[key] = e
	return true
}

// forget lets go of why the entry was not said.
func (sh *shelf) forget(key string) {
	for _, why := range sh.unsaid {
		delete(why, key)
	}
}

// item returns the encoded row; nil if the dialect cannot say it. A row that
// cannot be encoded keeps its last good form, so that the peer neither loses it
// nor waits for it.
func (c *catalog) item(sh *shelf, key string, e *entry, d dialect) *wire.Resource {
	f := &e.forms[d]
	if f.done {
		return f.res
	}
	f.done = true
	log := c.o.Log.With(slog.String("kind", sh.kind.Info().Name), slog.String("name", key))
	p, err := c.way.pack(c.snapshot, sh.kind, e.row)
	if err == nil && d != asWritten {
		spec, none := p.spec, sh.kind.Known(p.spec)
		if none == nil && d == newer {
			spec, none = sh.kind.Newer(e.row.Head(), p.spec)
		}
		switch {
		case none == nil && !bytes.Equal(spec, p.spec):
			p.spec = spec
		case none == nil || sh.kind.Info().Policy == nil: // what is no policy is there to be seen
			f.res = c.item(sh, key, e, asWritten)
			return f.res
		default:
			log.Warn("a policy is not sent to control planes that would drop a part of it", "reason", none)
			f.res, sh.unsaid[d][key] = nil, d.why()+none.Error()
			return nil
		}
	}
	var res *wire.Resource
	var lost []string
	if err == nil {
		c.encoded++
		res, lost, err = encode(sh.kind, p)
	}
	switch {
	case err != nil:
		log.Error("row cannot be sent to other control planes", "error", err)
		return f.res
	case len(lost) > 0:
		log.Warn("fields of a row cannot be sent to other control planes", "fields", lost)
	}
	if f.res == nil || f.res.Version != res.Version {
		f.res = res
	}
	return f.res
}

// attach enters a stream: from now on it is told of every change.
func (c *catalog) attach(s *sender) revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[s] = struct{}{}
	return c.at
}

func (c *catalog) detach(s *sender) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
}
