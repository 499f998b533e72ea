package db

import "fmt"

// Tx is a write transaction. It is a Reader that sees its own writes. It is valid
// only inside the function given to Write, in that function's goroutine.
type Tx struct {
	next    *Snapshot
	own     []bool // by table position: the tree in next is this transaction's copy
	writes  []write
	touched []Touch
	seen    map[Touch]struct{}
	done    bool
}

// write is one Put or Delete, in order.
type write struct {
	table    int
	name     string
	key      string
	old, new any
}

// At returns a view of the state as this transaction leaves it so far. The view
// moves on with the transaction's writes; an iteration that has begun does not.
func (tx *Tx) At() *Snapshot { return tx.next }

// Read does nothing: a transaction is never computed again.
func (tx *Tx) Read(Touch) {}

// Write runs f on a private copy of the state and, if f returns nil and wrote
// something, publishes it as the next revision and delivers the commit. If f
// returns an error or panics nothing is published and nobody is told.
//
// It returns the new revision, or the present one if nothing changed. Writers wait
// for each other; f must not call Write on the same database.
func (d *DB) Write(f func(*Tx) error) (Revision, error) {
	rev, published, err := d.commit(f)
	if published {
		d.drain()
	}
	return rev, err
}

func (d *DB) commit(f func(*Tx) error) (rev Revision, published bool, err error) {
	d.write.Lock()
	defer d.write.Unlock()
	old := d.root.Load()
	tx, err := run(old, f)
	if err != nil {
		return old.revision, false, err
	}
	changes := tx.net()
	if len(changes) == 0 {
		return old.revision, false, nil
	}
	d.root.Store(tx.next)
	// Queued under the write lock, so that the queue is in commit order.
	d.mu.Lock()
	d.queue = append(d.queue, Commit{Snapshot: tx.next, Changes: changes, Touched: tx.touched})
	d.mu.Unlock()
	return tx.next.revision, true, nil
}

// run is the transaction of f on a private copy of the state.
func run(old *Snapshot, f func(*Tx) error) (*Tx, error) {
	tx := &Tx{own: make([]bool, len(old.tables)), seen: map[Touch]struct{}{}}
	tx.next = &Snapshot{schema: old.schema, revision: old.revision + 1, tables: append([]any(nil), old.tables...), tx: tx}
	defer func() { tx.done, tx.next.tx = true, nil }()
	return tx, f(tx)
}

// Suppose answers "what if": it runs f in a transaction that is never published
// and returns the newest state and what f would make of it. It costs what f
// writes; other writers wait meanwhile. The revision of the second state is that
// of no commit.
func (d *DB) Suppose(f func(*Tx) error) (is, would *Snapshot, err error) {
	// A copy of a tree marks the original as shared, which is a write.
	d.write.Lock()
	defer d.write.Unlock()
	is = d.root.Load()
	tx, err := run(is, f)
	if err != nil {
		return is, nil, err
	}
	return is, tx.next, nil
}

// net folds several writes to one row into one change.
func (tx *Tx) net() []Change {
	type row struct {
		table int
		key   string
	}
	changes := make([]Change, 0, len(tx.writes))
	at := make(map[row]int, len(tx.writes))
	for _, w := range tx.writes {
		r := row{w.table, w.key}
		if i, ok := at[r]; ok {
			changes[i].New = w.new
			continue
		}
		at[r] = len(changes)
		changes = append(changes, Change{Table: w.name, Key: w.key, Old: w.old, New: w.new})
	}
	kept := changes[:0]
	for _, c := range changes {
		if c.Old != nil || c.New != nil {
			kept = append(kept, c)
		}
	}
	return kept
}

func (tx *Tx) touch(t Touch) {
	if _, ok := tx.seen[t]; !ok {
		tx.seen[t] = struct{}{}
		tx.touched = append(tx.touched, t)
	}
}

func (tx *Tx) mustBeOpen(table string) {
	if tx.done {
		panic(fmt.Sprintf("db: write to table %q after its transaction ended", table))
	}
}
