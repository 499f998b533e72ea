// Package store is the durable side of a control plane: a log of records that
// every instance follows in one order.
//
// It owns what a store is ([Store]), what its stores share (how operations
// become a commit: [Resolve]; how followers read the recent past: [Log]) and
// the [Feeder], which alone carries records into the database. Whoever writes a
// durable row calls [Feeder.Apply]. It never decides what a row means, never
// reads a clock and never changes a record.
//
//	Apply(ops) ──▶ expectations hold? ──▶ commit, revision + 1 ──▶ Follow ──▶ Feeder ──▶ db.Write
//	                    │ no                                                    │
//	                    └─▶ Conflict, nothing is written                        └──▶ Wait(revision) returns
//
// # Why
//
// All that is stored fits in memory, since the database holds it anyway. So a
// store needs no queries: it gives everything, then each commit, and takes
// commits. That is small enough that a file, PostgreSQL and the API server of
// Kubernetes can each do it well, and readers never wait for a disk.
//
// A follower has no position that outlives it. It begins with all there is,
// and one that fell behind the recent past begins again; the [Feeder] compares
// with what the database has, so a new beginning changes only what differs. The
// alternative, positions kept by the store, makes a store that can strand a
// follower or must keep its past for ever.
//
// Records keep the spec byte by byte as it was written. What it means is
// computed when it enters the database, so that a newer program can read an
// older record and an older one does not destroy what it does not know.
package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"iter"
	"maps"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
)

// Revision counts the commits of a store within its epoch. The empty store is
// at revision 0.
type Revision uint64

// Record is a row as a store keeps it. Records are shared and must not be
// changed by anybody, neither after they were given to Apply nor after they
// came out of Follow.
type Record struct {
	api.ID
	Labels map[string]string
	// Created and Modified are set by the writer. A record that replaces
	// another and has no Created keeps that of the other.
	Created, Modified time.Time
	// Source and Owner are as in [api.Meta].
	Source, Owner string
	// Spec is kept byte by byte.
	Spec json.RawMessage
	// Revision is that of the last write of this record. The store sets it.
	Revision Revision
}

// Equal reports whether writing r over old would say nothing new: same ID,
// labels, source, owner and spec. Times and revisions do not count.
func (r *Record) Equal(old *Record) bool {
	return r.ID == old.ID && r.Source == old.Source && r.Owner == old.Owner &&
		maps.Equal(r.Labels, old.Labels) && bytes.Equal(r.Spec, old.Spec)
}

// Expect is what a writer believes of the record that it writes: [Any],
// [Absent] or [At] a revision.
type Expect uint64

const (
	// Any expects nothing.
	Any Expect = iota
	// Absent expects that there is no such record.
	Absent
	exact
)

// At expects the record as of its write at this revision.
func At(r Revision) Expect { return exact + Expect(r) }

// Op writes or deletes one record; for a deletion only the ID counts.
type Op struct {
	Record Record
	Delete bool
	Expect Expect
}

// Batch is what a follower receives: all that one commit changed or, if Reset
// is set, all that is stored.
type Batch struct {
	// Revision is the state that is reached with this batch.
	Revision Revision
	// Reset says that Puts is everything there is, ordered by ID: what is not in
	// it does not exist. The first batch is one, and one that follows a gap.
	Reset bool
	// Puts and Deletes name an ID at most once.
	Puts    []Record
	Deletes []api.ID
}

// Atomicity is how much of one Apply is all or nothing.
type Atomicity uint8

const (
	// BatchAtomic: all operations of one Apply are one commit, or none is made.
	BatchAtomic Atomicity = iota
	// RowAtomic: each operation is a commit of its own, in order; the first that
	// fails ends the call.
	RowAtomic
)

// Ordering says over what all followers see the same order.
type Ordering uint8

const (
	// GlobalOrder: all followers see all commits in one order.
	GlobalOrder Ordering = iota
	// KindOrder: the order is the same within each kind.
	KindOrder
)

// Guarantees is what a store promises beyond compare-and-swap of one record,
// which every store gives and which alone callers may rely on.
type Guarantees struct {
	Atomic Atomicity
	Order  Ordering
	// Durable: what Apply acknowledged survives the end of the process and of
	// the machine.
	Durable bool
}

// Store is a log of records. All methods may be called from any goroutine.
type Store interface {
	// Follow yields everything that is stored as one Reset batch, then each
	// commit in order. It reads when the consumer asks and never makes a writer
	// wait; a consumer that falls behind the store's recent past gets a Reset
	// instead of the commits it missed. The sequence ends without an error with
	// the context, and after an error, which is its last element: [ErrClosed]
	// if the store was closed.
	Follow(ctx context.Context) iter.Seq2[Batch, error]

	// Apply commits the operations if every expectation holds, and returns the
	// revision at which they are visible. Operations that change nothing
	// (the same record again, deleting what is not there) make no commit. It
	// returns once the commit is as durable as the store makes it.
	//
	// Errors: a [*Conflict] (is [ErrConflict]) if an expectation does not hold,
	// [ErrNotFound] if a deletion expects a revision of a record that is not
	// there, [ErrInvalid] for operations that no store can take,
	// [ErrUnavailable], [ErrClosed], a [*Corrupt], the error of the context (then
	// nothing was written), or that of the medium.
	Apply(ctx context.Context, ops []Op) (Revision, error)

	Guarantees() Guarantees

	// Epoch names the history that revisions count: it differs for another
	// database and for an older state that was restored.
	Epoch() string

	// Close ends all followers and releases what the store holds.
	Close() error
}

// RecordOf is the record from which the row was made.
func RecordOf(row api.Row) Record {
	m := row.Head()
	return Record{
		ID: m.ID, Labels: m.Labels, Created: m.Created, Modified: m.Modified,
		Source: m.Source, Owner: m.Owner, Spec: row.Raw(), Revision: Revision(m.Revision),
	}
}

// RecordFor is a record of a spec that the control plane itself wrote. Labels,
// times and owner are left to the caller. The spec must be one that can be
// encoded as JSON, as those of all kinds can.
func RecordFor(k api.AnyKind, id api.ID, spec any) Record {
	id.Kind = k.Info().Name
	raw, err := json.Marshal(spec)
	if err != nil {
		panic("store: spec of " + id.String() + " cannot be encoded: " + err.Error())
	}
	return Record{ID: id, Spec: raw}
}

// ByID orders records by ID: kind, mesh, zone, namespace, name.
func ByID(a, b Record) int { return compareID(a.ID, b.ID) }

func compareID(a, b api.ID) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Mesh, b.Mesh), strings.Compare(a.Zone, b.Zone),
		strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
