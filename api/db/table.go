package db

import (
	"fmt"
	"iter"
	"slices"

	"github.com/tidwall/btree"
)

// degree of the trees: small nodes, because a small transaction copies whole
// nodes along its path.
const degree = 8

// row keeps a row from being copied by the tree, which copies every value that
// happens to have a method Copy. Rows are immutable and shared.
type row[T any] struct{ v T }

// entry is a row's place in an index.
type entry struct{ key, row string }

func less(a, b entry) bool {
	if a.key != b.key {
		return a.key < b.key
	}
	return a.row < b.row
}

// rows is one state of one table.
type rows[T any] struct {
	byKey   *btree.Map[string, row[T]]
	indexes []*btree.BTreeG[entry]
	reading int // iterations of the owning transaction under way
}

func (x *rows[T]) fork() *rows[T] {
	n := &rows[T]{byKey: x.byKey.Copy(), indexes: make([]*btree.BTreeG[entry], len(x.indexes))}
	for i, ix := range x.indexes {
		n.indexes[i] = ix.Copy()
	}
	return n
}

// Table is a handle: the name, the key and the indexes of rows of one type. It
// holds no rows.
type Table[T any] struct {
	schema  *Schema
	pos     int
	name    string
	one     *space
	all     Touch
	key     func(T) string
	indexes []*Index[T]
}

// Index is a handle on a second order of a table: by zero or more keys of each row.
type Index[T any] struct {
	in    *space
	name  string
	pos   int
	keys  func(T) []string
	table *Table[T]
}

// NewIndex returns an index to be given to one NewTable. keys must be pure; a key
// that it returns twice counts once.
func NewIndex[T any](name string, keys func(T) []string) *Index[T] {
	return &Index[T]{in: &space{name}, name: name, keys: keys}
}

// NewTable declares a table of rows of type T, usually a pointer. key must be pure
// and unique within the table. It panics if the schema is frozen, the name is
// taken or an index already belongs to a table: these are faults of the program.
func NewTable[T any](s *Schema, name string, key func(T) string, ix ...*Index[T]) *Table[T] {
	t := &Table[T]{schema: s, name: name, one: &space{name}, all: Touch{&space{name}, "*"}, key: key, indexes: ix}
	for i, x := range ix {
		if x.table != nil {
			panic(fmt.Sprintf("db: index %q given to tables %q and %q", x.name, x.table.name, name))
		}
		x.table, x.pos, x.in.name = t, i, name+"."+x.name
	}
	t.pos = s.add(layout{
		name: name,
		empty: func() any {
			x := &rows[T]{byKey: btree.NewMap[string, row[T]](degree)}
			for range ix {
				x.indexes = append(x.indexes, btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: degree}))
			}
			return x
		},
		fork: func(x any) any { return x.(*rows[T]).fork() },
	})
	return t
}

// Name returns the table's name.
func (t *Table[T]) Name() string { return t.name }

// in returns the table's rows in s.
func (t *Table[T]) in(s *Snapshot) *rows[T] {
	if s.schema != t.schema {
		panic(fmt.Sprintf("db: table %q is not of this database's schema", t.name))
	}
	return s.tables[t.pos].(*rows[T])
}

// owned returns rows that the transaction may change. They are copied once, and
// once more under an iteration, so that a loop may write to the table it reads.
func (t *Table[T]) owned(tx *Tx) *rows[T] {
	tx.mustBeOpen(t.name)
	x := t.in(tx.next)
	if !tx.own[t.pos] || x.reading > 0 {
		x = t.schema.tables[t.pos].fork(x).(*rows[T])
		tx.next.tables[t.pos], tx.own[t.pos] = x, true
	}
	return x
}

// scan runs f on the table's rows and keeps them from being changed meanwhile.
func (t *Table[T]) scan(s *Snapshot, f func(*rows[T])) {
	x := t.in(s)
	if s.tx != nil && s.tx.own[t.pos] {
		x.reading++
		defer func() { x.reading-- }()
	}
	f(x)
}

// Put inserts the row or replaces the one with its key. The row must never be
// changed afterwards.
func (t *Table[T]) Put(tx *Tx, r T) {
	x, key := t.owned(tx), t.key(r)
	old, had := x.byKey.Set(key, row[T]{r})
	w := write{table: t.pos, name: t.name, key: key, new: r}
	if had {
		w.old = old.v
	}
	tx.writes = append(tx.writes, w)
	tx.touch(t.all)
	tx.touch(Touch{t.one, key})
	for i, ix := range t.indexes {
		var before []string
		after := ix.keys(r)
		if had {
			before = ix.keys(old.v)
		}
		t.reindex(tx, x.indexes[i], ix, key, before, after)
	}
}

// Delete removes the row with this key and tells whether there was one.
func (t *Table[T]) Delete(tx *Tx, key string) bool {
	tx.mustBeOpen(t.name)
	if _, ok := t.in(tx.next).byKey.Get(key); !ok {
		return false
	}
	x := t.owned(tx)
	old, _ := x.byKey.Delete(key)
	tx.writes = append(tx.writes, write{table: t.pos, name: t.name, key: key, old: old.v})
	tx.touch(t.all)
	tx.touch(Touch{t.one, key})
	for i, ix := range t.indexes {
		t.reindex(tx, x.indexes[i], ix, key, ix.keys(old.v), nil)
	}
	return true
}

// reindex moves the row from its old keys to its new ones. Keys that stay are
// touched too: what is found there is another row now.
func (t *Table[T]) reindex(tx *Tx, tree *btree.BTreeG[entry], ix *Index[T], key string, before, after []string) {
	for _, k := range before {
		tx.touch(Touch{ix.in, k})
		if !slices.Contains(after, k) {
			tree.Delete(entry{k, key})
		}
	}
	for _, k := range after {
		tx.touch(Touch{ix.in, k})
		if !slices.Contains(before, k) {
			tree.Set(entry{k, key})
		}
	}
}

// Get returns the row with this key. It leaves the row's touch, also if there is
// no such row.
func (t *Table[T]) Get(r Reader, key string) (T, bool) {
	r.Read(Touch{t.one, key})
	v, ok := t.in(r.At()).byKey.Get(key)
	return v.v, ok
}

// All returns all rows, ordered by key. It leaves one touch for the whole table,
// which every write to the table changes.
func (t *Table[T]) All(r Reader) iter.Seq[T] {
	r.Read(t.all)
	s := r.At()
	return func(yield func(T) bool) {
		t.scan(s, func(x *rows[T]) {
			x.byKey.Scan(func(_ string, v row[T]) bool { return yield(v.v) })
		})
	}
}

// Len returns the number of rows. It leaves the touch of the whole table.
func (t *Table[T]) Len(r Reader) int {
	r.Read(t.all)
	return t.in(r.At()).byKey.Len()
}

// Of returns the rows under exactly this key of the index, ordered by row key. It
// leaves the touch of that index key, also if there is no row.
func (ix *Index[T]) Of(r Reader, key string) iter.Seq[T] {
	r.Read(Touch{ix.in, key})
	s := r.At()
	return func(yield func(T) bool) {
		ix.table.scan(s, func(x *rows[T]) {
			x.indexes[ix.pos].Ascend(entry{key: key}, func(e entry) bool {
				if e.key != key {
					return false
				}
				v, _ := x.byKey.Get(e.row)
				return yield(v.v)
			})
		})
	}
}

// Range returns index keys in [from, before) with their rows, ordered by index key,
// then row key. An empty before means no upper end. It leaves no touch, so it is
// for plain snapshots (listing with pages), not for queries.
func (ix *Index[T]) Range(s *Snapshot, from, before string) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		ix.table.scan(s, func(x *rows[T]) {
			x.indexes[ix.pos].Ascend(entry{key: from}, func(e entry) bool {
				if before != "" && e.key >= before {
					return false
				}
				v, _ := x.byKey.Get(e.row)
				return yield(e.key, v.v)
			})
		})
	}
}
