package incr

import (
	"testing"

	"github.com/atoll-mesh/atoll/api/db"
)

// A hold that somebody posts because of a commit is not computed on a snapshot
// from before that commit, and then once more.
func TestHoldIsNotComputedBeforeWhatItCameWith(t *testing.T) {
	schema := db.NewSchema()
	table := db.NewTable(schema, "rows", func(s string) string { return s })
	d := db.New(schema)
	e := New(d.Snapshot())
	runs := 0
	q := NewQuery("present", func(r *Run, key string) bool {
		runs++
		_, ok := table.Get(r, key)
		return ok
	}, func(a, b bool) bool { return a == b })

	e.gather() // a round begins …
	before := d.Snapshot()
	var touched []db.Touch
	defer d.OnCommit(func(c db.Commit) { touched = c.Touched })()
	if _, err := d.Write(func(tx *db.Tx) error { table.Put(tx, "proxy"); return nil }); err != nil {
		t.Fatal(err)
	}
	var got []bool
	release := Hold(e, q.Ref("proxy"), func(v bool, _ error) { got = append(got, v) })
	defer release()
	e.advance(before, nil) // … on the snapshot that it had taken
	if runs != 0 {
		t.Fatalf("the hold was computed on a snapshot from before the commit that it came with")
	}
	e.Advance(d.Snapshot(), touched)
	if runs != 1 || len(got) != 1 || !got[0] {
		t.Errorf("%d runs, values %v; want one run with the row", runs, got)
	}
}
