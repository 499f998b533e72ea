// Package db is an in-memory database of immutable rows: tables, indexes,
// snapshots and transactions.
//
// It owns the root of a control plane's state. Anyone may read; only feeders
// (the store's follower, the link, the status collector, the reflectors) call
// Write. It never does input or output, starts no goroutine, never changes a row
// and never compares rows: a row that is put again is a change, and whoever
// feeds the database decides whether it is worth one.
//
//	Write(f) ── private copy of the touched tables ──▶ new root ──▶ Commit{Snapshot, Changes, Touched} ──▶ OnCommit
//	Snapshot() ◀── one atomic load ── root
//
// # Why
//
// Reading is what a mesh control plane does all day, so readers take no lock:
// tables are copy-on-write B-trees, a snapshot is a pointer and a transaction
// copies only the paths that it changes.
//
// A Touch is what makes incremental computation possible. A read leaves the
// touches of the spots it looked at, a write produces the touches of the spots
// it changed; where the two meet, something must be computed again. Touches are
// made per index key and not per index, so that a change costs what it concerns.
//
// Tables and indexes are declared once, in a Schema, and are positions in it, not
// places that hold rows. Handles can therefore be package-level variables that
// several databases of one process share (tests and the demo run three control
// planes), and using one writes to nothing. A handle bound to one database was
// the alternative: it would have to be handed through every pure function that
// reads.
//
// An existing in-memory database was not taken: none of them yields old row, new
// row and touched index keys of a commit at a comparable size per row.
package db

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Revision counts the transactions of one database that changed something. An
// empty database is at revision 0.
type Revision uint64

// space is what touches are keyed in: the rows of a table, the table as a whole,
// or one index. Its address is its identity.
type space struct{ name string }

// Touch names one spot of the database that a read saw or a write changed: one
// row, one key of an index, or a whole table. Touches are comparable; they are
// equal across databases of one schema.
type Touch struct {
	in  *space
	key string
}

// String returns the touch for people: table[key], table.index[key] or table[*].
func (t Touch) String() string {
	if t.in == nil {
		return "nothing"
	}
	return t.in.name + "[" + t.key + "]"
}

// Reader is anything that reads: a Snapshot, a Tx (which sees its own writes), or
// a run of a query that notes what it read.
type Reader interface {
	// At returns the state that is read.
	At() *Snapshot
	// Read notes that the spot was looked at.
	Read(Touch)
}

// Schema is a static list of tables. Any number of databases can share one; the
// first New freezes it.
type Schema struct {
	mu     sync.Mutex
	frozen bool
	tables []layout
}

// layout is what the database needs to know of a table without its row type.
type layout struct {
	name  string
	empty func() any
	fork  func(any) any
}

// NewSchema returns an empty schema.
func NewSchema() *Schema { return &Schema{} }

// add appends a table and returns its position.
func (s *Schema) add(l layout) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frozen {
		panic(fmt.Sprintf("db: table %q declared after a database was made of the schema", l.name))
	}
	if slices.ContainsFunc(s.tables, func(o layout) bool { return o.name == l.name }) {
		panic(fmt.Sprintf("db: table %q declared twice", l.name))
	}
	s.tables = append(s.tables, l)
	return len(s.tables) - 1
}

// Snapshot is one immutable state of all tables. It costs nothing to hold beyond
// the rows that newer states have replaced.
type Snapshot struct {
	schema   *Schema
	revision Revision
	tables   []any // *rows[T], by the table's position
	tx       *Tx   // set only while a transaction still changes this state
}

// Revision returns the number of the commit that made this state.
func (s *Snapshot) Revision() Revision { return s.revision }

// At returns s, so that a snapshot is a Reader.
func (s *Snapshot) At() *Snapshot { return s }

// Read does nothing: nobody recomputes what was read from a plain snapshot.
func (s *Snapshot) Read(Touch) {}

// Change is the net effect of one transaction on one row. Old is nil if the row
// is new, New is nil if it is gone; otherwise they hold the table's row type.
type Change struct {
	Table    string
	Key      string
	Old, New any
}

// Commit is what one transaction did. All of it is shared and must not be changed.
type Commit struct {
	Snapshot *Snapshot
	// Changes has one entry per row, in the order of the first write to it. A row
	// that came and went within the transaction has none.
	Changes []Change
	// Touched has each changed spot once.
	Touched []Touch
}

// DB holds the newest state. All methods may be called from any goroutine.
type DB struct {
	schema *Schema
	root   atomic.Pointer[Snapshot]

	write sync.Mutex // one transaction at a time

	deliver sync.Mutex // one delivery at a time, in commit order
	mu      sync.Mutex // guards queue and subs, for moments only
	queue   []Commit
	subs    []*subscriber
}

type subscriber struct{ f func(Commit) }

// New returns an empty database with the tables of the schema, which is frozen by it.
func New(s *Schema) *DB {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = true
	root := &Snapshot{schema: s, tables: make([]any, len(s.tables))}
	for i, l := range s.tables {
		root.tables[i] = l.empty()
	}
	d := &DB{schema: s}
	d.root.Store(root)
	return d
}

// Snapshot returns the newest state. It takes no lock.
func (d *DB) Snapshot() *Snapshot { return d.root.Load() }

// OnCommit has f called with every commit that is delivered from now on, in commit
// order, one at a time, after the commit is published and without the write lock.
// A subscriber that first subscribes and then takes a Snapshot misses nothing: what
// it is not told is in the snapshot; what it is told may be in it too, which the
// revision shows.
//
// f must not block, and must not Write to the same database: writers wait until
// their commit is delivered. After stop f is not called again; a call already under
// way is not awaited.
func (d *DB) OnCommit(f func(Commit)) (stop func()) {
	sub := &subscriber{f}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.subs = append(slices.Clone(d.subs), sub)
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.subs = slices.DeleteFunc(slices.Clone(d.subs), func(s *subscriber) bool { return s == sub })
	}
}

// drain delivers what is queued. Whoever holds the delivery lock may deliver the
// commits of others; when drain returns, the caller's own has been delivered.
func (d *DB) drain() {
	d.deliver.Lock()
	defer d.deliver.Unlock()
	for {
		d.mu.Lock()
		if len(d.queue) == 0 {
			d.queue = nil
			d.mu.Unlock()
			return
		}
		c, subs := d.queue[0], d.subs
		d.queue = d.queue[1:]
		d.mu.Unlock()
		for _, s := range subs {
			s.f(c)
		}
	}
}
