package store

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/atoll-mesh/atoll/api"
)

const (
	// MaxID is the most bytes that the parts of an ID may have together: what an index of every store takes.
	MaxID = 2048
	// MaxRecord is the most bytes that labels and spec of a record may have
	// together.
	MaxRecord = 64 << 20
)

// Resolve turns operations into the commit they make on top of what get
// returns. It is for stores, which call it under the lock that orders their
// commits. A batch without puts and deletes means that there is nothing to
// commit. Errors are those of [Store.Apply] and of get; nothing is to be
// written then.
func Resolve(ops []Op, next Revision, get func(api.ID) (Record, bool, error)) (Batch, error) {
	b := Batch{Revision: next}
	seen := make(map[api.ID]struct{}, len(ops))
	for i := range ops {
		op := &ops[i]
		id := op.Record.ID
		if err := check(&op.Record); err != nil {
			return Batch{}, err
		}
		if _, twice := seen[id]; twice {
			return Batch{}, fmt.Errorf("%w: %s is named twice in one batch", ErrInvalid, id)
		}
		seen[id] = struct{}{}
		old, exists, err := get(id)
		if err != nil {
			return Batch{}, err
		}
		if err := op.expected(&old, exists); err != nil {
			return Batch{}, err
		}
		switch {
		case op.Delete:
			if exists {
				b.Deletes = append(b.Deletes, id)
			}
		case exists && op.Record.Equal(&old):
		default:
			b.Puts = append(b.Puts, written(op.Record, &old, next))
		}
	}
	return b, nil
}

// Empty reports that the batch changes nothing.
func (b *Batch) Empty() bool { return !b.Reset && len(b.Puts) == 0 && len(b.Deletes) == 0 }

// written is the record as it is kept. Times lose what no medium keeps (zone
// and monotonic clock), so that all followers see the same value.
func written(r Record, old *Record, rev Revision) Record {
	if r.Created.IsZero() {
		r.Created = old.Created
	}
	r.Created, r.Modified = r.Created.UTC().Round(0), r.Modified.UTC().Round(0)
	r.Revision = rev
	return r
}

func (op *Op) expected(old *Record, exists bool) error {
	holds := true
	switch op.Expect {
	case Any:
	case Absent:
		holds = !exists
	default:
		if op.Delete && !exists {
			return fmt.Errorf("%w: %s", ErrNotFound, op.Record.ID)
		}
		holds = exists && old.Revision == Revision(op.Expect-exact)
	}
	if !holds {
		return &Conflict{ID: op.Record.ID, Expected: op.Expect, Found: old.Revision}
	}
	return nil
}

// Check refuses what some store could not keep or find again, so that all
// refuse the same. [Resolve] does it too; a store that looks records up before
// it resolves calls it first. Errors: [ErrInvalid].
func Check(ops []Op) error {
	for i := range ops {
		if err := check(&ops[i].Record); err != nil {
			return err
		}
	}
	return nil
}

func check(r *Record) error {
	id := r.ID
	switch {
	case id.Kind == "" || id.Name == "":
		return fmt.Errorf("%w: %q lacks a kind or a name", ErrInvalid, id.String())
	case !text(id.Kind, id.Mesh, id.Zone, id.Namespace, id.Name):
		return fmt.Errorf("%w: the ID %q is not UTF-8, or has a zero byte", ErrInvalid, id.String())
	case !text(r.Source, r.Owner) || !textMap(r.Labels):
		return fmt.Errorf("%w: source, owner or labels of %s are not UTF-8, or have a zero byte", ErrInvalid, id)
	case len(id.Kind)+len(id.Mesh)+len(id.Zone)+len(id.Namespace)+len(id.Name) > MaxID:
		return fmt.Errorf("%w: the ID of a %s is longer than %d bytes", ErrInvalid, id.Kind, MaxID)
	case size(r) > MaxRecord:
		return fmt.Errorf("%w: %s is larger than %d bytes", ErrInvalid, id, MaxRecord)
	case r.Created.Year() > 9999 || r.Modified.Year() > 9999 || r.Created.Year() < 0 || r.Modified.Year() < 0:
		return fmt.Errorf("%w: %s has a time out of range", ErrInvalid, id)
	}
	return nil
}

// text reports whether every store keeps these as they are.
func text(parts ...string) bool {
	for _, p := range parts {
		if strings.ContainsRune(p, 0) || !utf8.ValidString(p) {
			return false
		}
	}
	return true
}

func textMap(m map[string]string) bool {
	for k, v := range m {
		if !text(k, v) {
			return false
		}
	}
	return true
}

// size is what a record weighs in limits: its text.
func size(r *Record) int {
	n := len(r.Spec)
	for k, v := range r.Labels {
		n += len(k) + len(v)
	}
	return n
}
