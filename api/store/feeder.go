package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// Feeder carries what a store holds into the database. It alone writes rows of
// durable kinds; everybody else calls Apply and reads the database.
//
// A record that cannot be understood stops nobody: the row that its ID had
// stays as it was, and a [Condition] says why.
type Feeder struct {
	store Store
	db    *db.DB
	site  api.Site
	log   *slog.Logger
	ready chan struct{}

	mu    sync.Mutex
	once  bool // ready is closed
	at    Revision
	ended error // why Run returned; nil while it runs or before it ran
	// waiting is ordered by revision, so that a batch wakes whom it concerns.
	waiting    []*waiter
	conditions map[api.ID]Condition
}

type waiter struct {
	until Revision
	done  chan struct{}
	err   error // set before done is closed
}

// Condition says what of a record was not understood.
type Condition struct {
	ID api.ID
	// Revision is that of the record.
	Revision Revision
	// Unknown lists paths in the spec that this program does not know.
	Unknown []string
	// Err is set if the record is not acted upon: its ID has the row of the last
	// record that was understood, or none.
	Err error
}

// ErrFieldsNotUnderstood: the record is of a kind that decides who may talk to
// whom, and has fields that this program does not know. To act on the known
// part could allow what was not meant.
var ErrFieldsNotUnderstood = errors.New("fields not understood")

// NewFeeder returns a feeder that does nothing until Run.
func NewFeeder(s Store, d *db.DB, site api.Site, log *slog.Logger) *Feeder {
	return &Feeder{
		store: s, db: d, site: site, log: log,
		ready: make(chan struct{}), conditions: map[api.ID]Condition{},
	}
}

// Run follows the store until the context ends (then it returns the context's
// error) or the store fails. It may run again after it returned.
func (f *Feeder) Run(ctx context.Context) (err error) {
	f.mu.Lock()
	f.ended = nil
	f.mu.Unlock()
	defer func() { f.end(err) }()
	for b, err := range f.store.Follow(ctx) {
		if err != nil {
			return fmt.Errorf("following the store: %w", err)
		}
		if err := f.feed(&b); err != nil {
			return err
		}
		f.reached(b.Revision)
	}
	return ctx.Err()
}

// Ready is closed when the database has a complete state.
func (f *Feeder) Ready() <-chan struct{} { return f.ready }

// Apply is [Store.Apply] and returns when the database shows it.
func (f *Feeder) Apply(ctx context.Context, ops []Op) (Revision, error) {
	rev, err := f.store.Apply(ctx, ops)
	if err != nil {
		return rev, err
	}
	return rev, f.Wait(ctx, rev)
}

// Wait returns when the database holds the state of the store at that revision
// or a later one. It fails with the context, and when Run has ended, because
// nobody would bring the revision.
func (f *Feeder) Wait(ctx context.Context, rev Revision) error {
	w, err := f.enlist(rev)
	if w == nil {
		return err
	}
	select {
	case <-w.done:
		return w.err
	case <-ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		f.waiting = slices.DeleteFunc(f.waiting, func(o *waiter) bool { return o == w })
		return fmt.Errorf("waiting for revision %d: %w", rev, ctx.Err())
	}
}

// enlist returns nil if there is nothing to wait for.
func (f *Feeder) enlist(rev Revision) (*waiter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.once && f.at >= rev:
		return nil, nil
	case f.ended != nil:
		return nil, fmt.Errorf("waiting for revision %d: the store is not followed any more: %w", rev, f.ended)
	}
	w := &waiter{until: rev, done: make(chan struct{})}
	i, _ := slices.BinarySearchFunc(f.waiting, rev+1, func(o *waiter, r Revision) int {
		if o.until < r {
			return -1
		}
		return 1
	})
	f.waiting = slices.Insert(f.waiting, i, w)
	return w, nil
}

func (f *Feeder) reached(rev Revision) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = rev
	if !f.once {
		f.once = true
		close(f.ready)
	}
	n := 0
	for n < len(f.waiting) && f.waiting[n].until <= rev {
		close(f.waiting[n].done)
		n++
	}
	f.waiting = slices.Delete(f.waiting, 0, n)
}

func (f *Feeder) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		err = ErrClosed
	}
	f.ended = err
	for _, w := range f.waiting {
		w.err = fmt.Errorf("waiting for revision %d: the store is not followed any more: %w", w.until, err)
		close(w.done)
	}
	f.waiting = nil
}

// Conditions lists the records that are not fully understood, ordered by ID.
func (f *Feeder) Conditions() []Condition {
	f.mu.Lock()
	out := slices.Collect(maps.Values(f.conditions))
	f.mu.Unlock()
	slices.SortFunc(out, func(a, b Condition) int { return compareID(a.ID, b.ID) })
	return out
}

// Condition says what of the record with this ID is not understood.
func (f *Feeder) Condition(id api.ID) (Condition, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.conditions[id]
	return c, ok
}

// Unknown lists the paths in the spec of the record with this ID that this
// program does not know.
func (f *Feeder) Unknown(id api.ID) []string {
	c, _ := f.Condition(id)
	return c.Unknown
}

// feed is one transaction for one batch.
func (f *Feeder) feed(b *Batch) error {
	_, err := f.db.Write(func(tx *db.Tx) error {
		if b.Reset {
			f.sweep(tx, b)
		}
		for _, id := range b.Deletes {
			f.note(Condition{ID: id})
			if k, ok := durable(id.Kind); ok {
				k.Delete(tx, id)
			}
		}
		for i := range b.Puts {
			f.put(tx, &b.Puts[i])
		}
		mark := api.Mark{Epoch: f.store.Epoch(), Counter: uint64(b.Revision)}
		if had, ok := api.Revisions.Get(tx, ""); !ok || had.Mark != mark {
			api.Revisions.Put(tx, &api.Revision{Mark: mark})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing revision %d of the store: %w", b.Revision, err)
	}
	return nil
}

// sweep removes the rows of durable kinds, and the conditions, that a complete
// state does not name.
func (f *Feeder) sweep(tx *db.Tx, b *Batch) {
	named := make(map[api.ID]struct{}, len(b.Puts))
	for i := range b.Puts {
		named[b.Puts[i].ID] = struct{}{}
	}
	for _, k := range api.Kinds {
		if k.Info().Memory {
			continue
		}
		var gone []api.ID
		for row := range k.AllRows(tx) {
			if _, ok := named[row.Head().ID]; !ok {
				gone = append(gone, row.Head().ID)
			}
		}
		for _, id := range gone {
			k.Delete(tx, id)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.conditions, func(id api.ID, _ Condition) bool {
		_, ok := named[id]
		return !ok
	})
}

func (f *Feeder) put(tx *db.Tx, r *Record) {
	c := Condition{ID: r.ID, Revision: r.Revision}
	k, ok := durable(r.Kind)
	if !ok {
		c.Err = fmt.Errorf("this program keeps no durable resources of kind %q", r.Kind)
		f.note(c)
		return
	}
	old, exists := k.Row(tx, r.ID)
	if exists && same(old.Head(), r) && bytes.Equal(old.Raw(), api.Compact(r.Spec)) {
		f.keep(c)
		return
	}
	row, unknown, err := f.decode(k, r)
	c.Unknown = unknown
	switch {
	case err != nil:
		c.Err = err
	case len(c.Unknown) > 0 && guards(r.Kind):
		c.Err = fmt.Errorf("%w: %v", ErrFieldsNotUnderstood, c.Unknown)
	default:
		k.Put(tx, row)
	}
	f.note(c)
}

func (f *Feeder) decode(k api.AnyKind, r *Record) (row api.Row, unknown []string, err error) {
	m := api.Meta{
		ID: r.ID, Labels: r.Labels, Created: r.Created, Modified: r.Modified,
		Source: r.Source, Owner: r.Owner, Revision: uint64(r.Revision),
	}
	m.Core = api.CoreName(k, &m)
	var report api.Report
	row = k.Decode(m, r.Spec, false, &report)
	return row, report.Unknown(), report.Err()
}

// note keeps the condition and logs it once per revision of the record. One
// that says nothing takes the place of an older.
func (f *Feeder) note(c Condition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.Err == nil && len(c.Unknown) == 0 {
		delete(f.conditions, c.ID)
		return
	}
	old, ok := f.conditions[c.ID]
	f.conditions[c.ID] = c
	if ok && old.Revision == c.Revision {
		return
	}
	if c.Err != nil {
		f.log.Error("a stored resource is not acted upon; what its last understood version says stays",
			"resource", c.ID.String(), "revision", c.Revision, "error", c.Err)
		return
	}
	f.log.Warn("a stored resource has fields that this program does not understand; the others are acted upon",
		"resource", c.ID.String(), "revision", c.Revision, "fields", c.Unknown)
}

// keep leaves the condition of a record that is in the database already,
// unless it is that of another revision (a store went back).
func (f *Feeder) keep(c Condition) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if old, ok := f.conditions[c.ID]; ok && old.Revision != c.Revision {
		delete(f.conditions, c.ID)
	}
}

func durable(kind string) (api.AnyKind, bool) {
	k, ok := api.ByName(kind)
	return k, ok && !k.Info().Memory
}

// guards reports whether half a resource of the kind could allow more than the
// whole: permissions, identities, trust.
func guards(kind string) bool {
	switch kind {
	case "MeshTrafficPermission", "MeshIdentity", "MeshTrust", "MeshTLS":
		return true
	}
	return false
}

func same(m *api.Meta, r *Record) bool {
	return m.ID == r.ID && m.Revision == uint64(r.Revision) && m.Source == r.Source && m.Owner == r.Owner &&
		m.Created.Equal(r.Created) && m.Modified.Equal(r.Modified) && maps.Equal(m.Labels, r.Labels)
}
