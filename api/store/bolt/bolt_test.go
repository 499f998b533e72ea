package bolt_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/bolt"
	"github.com/atoll-mesh/atoll/api/store/storetest"
)

func open(t *testing.T, path string, opts ...bolt.Option) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func suite(t *testing.T, opts ...bolt.Option) {
	storetest.Run(t, func(t *testing.T) storetest.Database {
		path := filepath.Join(t.TempDir(), "store")
		one := func(t *testing.T) []store.Store { return []store.Store{open(t, path, opts...)} }
		return storetest.Database{Instances: one(t), Reopen: one}
	})
}

func TestStore(t *testing.T) { suite(t) }

// A recent past of two commits makes nearly every batch a reset.
func TestShortPast(t *testing.T) { suite(t, bolt.WithLimits(store.Limits{Commits: 2})) }

func mesh(name, spec string) store.Op {
	return store.Op{Record: store.Record{ID: api.ID{Kind: "Mesh", Name: name}, Spec: []byte(spec)}}
}

func apply(t *testing.T, s store.Store, ops ...store.Op) store.Revision {
	t.Helper()
	rev, err := s.Apply(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func all(t *testing.T, s store.Store) store.Batch {
	t.Helper()
	for b, err := range s.Follow(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Fatal("no batch")
	return store.Batch{}
}

// Calls that wait while one is written share the next transaction, and the
// conflict of one is its own.
func TestGroupCommit(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store"))
	apply(t, s, mesh("there", `{}`))
	before := s.Groups()
	release := s.Hold()
	const writers = 100
	revisions := make([]store.Revision, writers)
	var group sync.WaitGroup
	start := func(i int) {
		group.Go(func() {
			op := mesh(fmt.Sprint("m", i), `{}`)
			if i%10 == 3 {
				op = mesh("there", `{"v":1}`)
				op.Expect = store.Absent
			}
			rev, err := s.Apply(t.Context(), []store.Op{op})
			if errors.Is(err, store.ErrConflict) != (i%10 == 3) || err != nil && i%10 != 3 {
				t.Errorf("writer %d: %v", i, err)
			}
			revisions[i] = rev
		})
	}
	start(0)
	s.AwaitQueue(0) // the first is at the file, alone
	for i := 1; i < writers; i++ {
		start(i)
	}
	s.AwaitQueue(writers - 1)
	release()
	group.Wait()
	if n := s.Groups() - before; n != 2 {
		t.Errorf("%d transactions for %d writers, want 2", n, writers)
	}
	seen := map[store.Revision]bool{}
	for i, rev := range revisions {
		if i%10 != 3 && (rev == 0 || seen[rev]) {
			t.Errorf("writer %d has revision %d, of another or none", i, rev)
		}
		seen[rev] = true
	}
	if b := all(t, s); len(b.Puts) != writers-10+1 || b.Revision != writers-10+1 {
		t.Errorf("%d rows at %d", len(b.Puts), b.Revision)
	}
}

func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path)
	_, err := bolt.Open(path)
	if !errors.Is(err, bolt.ErrLocked) || !strings.Contains(fmt.Sprint(err), path) {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

func TestNewEpoch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := open(t, path)
	epoch := s.Epoch()
	s.Close()
	s = open(t, path, bolt.WithNewEpoch())
	renewed := s.Epoch()
	s.Close()
	if renewed == epoch || open(t, path).Epoch() != renewed {
		t.Errorf("epochs %q, %q", epoch, renewed)
	}
}

func TestCreatedAlone(t *testing.T) {
	dir := t.TempDir()
	open(t, filepath.Join(dir, "store"))
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left beside the store: %v %v", entries, err)
	}
	if info, err := os.Stat(filepath.Join(dir, "store")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v %v", info.Mode(), err)
	}
	if _, err := bolt.Open(filepath.Join(dir, "none", "store")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := bolt.Open(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory: %v", err)
	}
}

// filled is a closed store of 200 records; its last page is in use.
func filled(t *testing.T) (path string, content []byte) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store")
	s := open(t, path)
	for i := range 40 {
		ops := make([]store.Op, 5)
		for j := range ops {
			ops[j] = mesh(fmt.Sprintf("m%d-%d", i, j), `{"text":"`+strings.Repeat("x", 200)+`"}`)
		}
		apply(t, s, ops...)
	}
	s.Close()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

// whole checks that a damaged file is either refused with an error that helps,
// or opened with nothing missing.
func whole(t *testing.T, what, path string) (refused bool) {
	t.Helper()
	s, err := bolt.Open(path)
	if err != nil {
		var corrupt *store.Corrupt
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: an error that does not help: %v", what, err)
		}
		return true
	}
	defer s.Close()
	if b := all(t, s); len(b.Puts) != 200 {
		t.Errorf("%s: opened with %d of 200 records", what, len(b.Puts))
	}
	return false
}

func TestTruncated(t *testing.T) {
	path, content := filled(t)
	for _, n := range []int{0, 1, 100, 4095, 4096, 8191, 8192, 12288, 16384, 20000, len(content) / 2, len(content) * 3 / 4} {
		if err := os.WriteFile(path, content[:min(n, len(content))], 0o600); err != nil {
			t.Fatal(err)
		}
		if refused := whole(t, fmt.Sprint("cut to ", n), path); !refused && n <= 16384 {
			t.Errorf("cut to %d of %d bytes: opened", n, len(content))
		}
	}
	// The same length, but the end was never written.
	for n := 0; n < len(content); n += 4096 {
		hole := append(append([]byte(nil), content[:n]...), make([]byte, len(content)-n)...)
		if err := os.WriteFile(path, hole, 0o600); err != nil {
			t.Fatal(err)
		}
		whole(t, fmt.Sprint("zero from ", n), path)
	}
}

func TestGarbage(t *testing.T) {
	path, content := filled(t)
	for _, text := range []string{"garbage", strings.Repeat("garbage ", 5000)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if !whole(t, "garbage", path) {
			t.Error("garbage was opened")
		}
	}
	refused := 0
	for n := 8192; n < len(content); n += 4096 {
		damaged := append([]byte(nil), content...)
		for i := range min(4096, len(content)-n) {
			damaged[n+i] ^= 0x5a
		}
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if whole(t, fmt.Sprintf("page %d damaged", n/4096), path) {
			refused++
		}
	}
	if refused == 0 {
		t.Error("no damaged page was noticed")
	}
}

// A record that is gone without leaving a trace is missed.
func TestLostRecord(t *testing.T) {
	path, _ := filled(t)
	change(t, path, func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("rows")).Bucket([]byte("Mesh")).Delete([]byte("\x00\x00\x00m7-3"))
	})
	if !whole(t, "a lost record", path) {
		t.Error("opened")
	}
}

// change edits a closed store behind its back.
func change(t *testing.T, path string, f func(tx *bbolt.Tx) error) {
	t.Helper()
	b, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.Update(f), b.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestCorruptRecord(t *testing.T) {
	path, content := filled(t)
	for name, f := range map[string]func(b *bbolt.Bucket, k, v []byte) error{
		"a bit":   func(b *bbolt.Bucket, k, v []byte) error { v[len(v)-1] ^= 1; return b.Put(k, v) },
		"the end": func(b *bbolt.Bucket, k, v []byte) error { return b.Put(k, v[:len(v)-1]) },
		"all":     func(b *bbolt.Bucket, k, _ []byte) error { return b.Put(k, nil) },
		"a key":   func(b *bbolt.Bucket, _, v []byte) error { return b.Put([]byte("\x00\x00\x00other"), v) },
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		change(t, path, func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("rows")).Bucket([]byte("Mesh"))
			k := []byte("\x00\x00\x00m7-3")
			v := append([]byte(nil), b.Get(k)...)
			if len(v) == 0 {
				t.Fatal("no such record")
			}
			return f(b, k, v)
		})
		_, err := bolt.Open(path)
		var corrupt *store.Corrupt
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "Mesh") {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

func TestNewerFormat(t *testing.T) {
	path, _ := filled(t)
	change(t, path, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("info"))
		return errors.Join(b.Put([]byte("format"), []byte("2")), b.Put([]byte("reader"), []byte("Atoll 7.5")))
	})
	_, err := bolt.Open(path)
	if !errors.Is(err, bolt.ErrNewer) || !strings.Contains(fmt.Sprint(err), "Atoll 7.5") || !strings.Contains(fmt.Sprint(err), path) {
		t.Errorf("got %v", err)
	}
	change(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("info")) })
	whole(t, "another bbolt file", path)
}

func TestReadOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("nothing is read-only for root")
	}
	path, _ := filled(t)
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Open(path); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

// What is acknowledged is in the file, also if nobody closes it.
func TestCopyOfAnOpenFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store"))
	for i := range 50 {
		rev := apply(t, s, mesh(fmt.Sprint("m", i), `{}`))
		if i%10 != 0 {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, "store"))
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, fmt.Sprint("copy", i))
		if err := os.WriteFile(copied, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if b := all(t, open(t, copied)); b.Revision != rev || len(b.Puts) != i+1 {
			t.Errorf("copy at %d has %d rows at %d", rev, len(b.Puts), b.Revision)
		}
	}
}

// A byte that changed anywhere behind the two head pages is noticed or harmless.
func TestFlippedBytes(t *testing.T) {
	path, content := filled(t)
	random := rand.New(rand.NewPCG(1, 2))
	for range 150 {
		damaged := slices.Clone(content)
		at := 8192 + random.IntN(len(content)-8192)
		if random.IntN(2) == 0 {
			at &^= 4095 - 127 // structure is at the beginning of pages
		}
		at = max(at, 8192)
		damaged[at] ^= byte(1 + random.IntN(255))
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		whole(t, fmt.Sprintf("byte %d changed", at), path)
	}
}
