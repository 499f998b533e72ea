package storetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

func midway(s *suite) {
	early := s.follow(0)
	var late []*follower
	var rev store.Revision
	for i := range 60 {
		rev = s.apply(i, put(record("Mesh", fmt.Sprint("m", i%7), fmt.Sprintf(`{"v":%d}`, i)), store.Any))
		if i%5 == 4 {
			rev = s.apply(i, remove(record("Mesh", fmt.Sprint("m", i%7), "").ID, store.Any))
		}
		if i%20 == 10 {
			late = append(late, s.follow(i/20))
		}
	}
	early.until(rev)
	for _, f := range late {
		f.until(rev)
		if len(f.batches) == 1 {
			s.Error("a follower that began midway saw no commit")
		}
	}
	s.agree(append([]*follower{early}, late...)...)
}

func slow(s *suite) {
	f := s.follow(1)
	const commits = 1500
	var rev store.Revision
	for i := range commits {
		rev = s.apply(0, put(record("Mesh", "m"+strconv.Itoa(i%10), fmt.Sprintf(`{"v":%d}`, i)), store.Any))
	}
	f.until(rev)
	s.agree(s.follow(0), f)
	next := s.apply(0, put(record("Mesh", "last", `{}`), store.Any))
	if f.until(next); f.batches[len(f.batches)-1].Reset {
		s.Error("a follower that caught up is reset again")
	}
}

func concurrent(s *suite) {
	const writers, each = 8, 25
	followers := []*follower{s.follow(0), s.follow(1)}
	type ack struct {
		id  api.ID
		rev store.Revision
	}
	acks := make([][]ack, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				r := record([]string{"Mesh", "MeshTimeout"}[w%2], fmt.Sprintf("w%d-%d", w, i), `{}`)
				rev, err := s.at(w).Apply(s.ctx, []store.Op{put(r, store.Absent)})
				if err != nil {
					s.Errorf("writer %d: %v", w, err)
					return
				}
				acks[w] = append(acks[w], ack{r.ID, rev})
				// Everybody wants this one; one gets it.
				_, err = s.at(w).Apply(s.ctx, []store.Op{put(record("Zone", fmt.Sprint("prize-", i), fmt.Sprint(w)), store.Absent)})
				if err != nil && !errors.Is(err, store.ErrConflict) {
					s.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	all.Wait()
	last := s.apply(0, put(record("Zone", "end", `{}`), store.Any))
	for _, f := range followers {
		f.until(last)
		if len(f.rows) != writers*each+each+1 {
			s.Errorf("%d rows, want %d", len(f.rows), writers*each+each+1)
		}
	}
	for w := range acks {
		for i, a := range acks[w] {
			if got := followers[0].rows[a.id].Revision; got != a.rev {
				s.Errorf("%s has revision %d, acknowledged as %d", a.id, got, a.rev)
			}
			if i > 0 && a.rev <= acks[w][i-1].rev {
				s.Errorf("writer %d: revision %d after %d", w, a.rev, acks[w][i-1].rev)
			}
		}
	}
	s.agree(append(followers, s.follow(0))...)
}

// counter adds up only if no two writers ever replaced the same revision.
func counter(s *suite) {
	const writers, each = 4, 10
	id := record("Mesh", "counter", "").ID
	s.apply(0, put(store.Record{ID: id, Spec: []byte("0")}, store.Absent))
	var all sync.WaitGroup
	for w := range writers {
		f := s.follow(w)
		all.Go(func() {
			for n := 0; n < each; {
				have := f.rows[id]
				v, err := strconv.Atoi(string(have.Spec))
				if err != nil {
					s.Error(err)
					return
				}
				rev, err := s.at(w).Apply(s.ctx, []store.Op{put(store.Record{ID: id, Spec: strconv.AppendInt(nil, int64(v)+1, 10)}, store.At(have.Revision))})
				var conflict *store.Conflict
				switch {
				case errors.As(err, &conflict):
					rev = conflict.Found
				case err != nil:
					s.Error(err)
					return
				default:
					n++
				}
				for f.at < rev {
					b, err, ok := f.next()
					if err != nil || !ok {
						s.Errorf("follow ended: %v", err)
						return
					}
					f.at, f.rows[id] = b.Revision, b.Puts[0]
				}
			}
		})
	}
	all.Wait()
	if got := string(s.follow(0).rows[id].Spec); got != strconv.Itoa(writers*each) {
		s.Errorf("the counter is %s after %d additions", got, writers*each)
	}
}

func reopened(s *suite) {
	if s.db.Reopen == nil {
		s.Skip("the store cannot be reopened")
	}
	for i := range 30 {
		s.apply(i, put(record("Mesh", fmt.Sprint("m", i%10), fmt.Sprintf(`{"v":%d}`, i)), store.Any))
	}
	rev := s.apply(0, remove(record("Mesh", "m3", "").ID, store.Any))
	before := s.follow(0)
	before.until(rev)
	want := before.history[rev]
	s.reopen()
	after := s.follow(0)
	if after.at != rev || after.history[rev] != want {
		s.Errorf("at %d:\n%swant at %d:\n%s", after.at, after.history[after.at], rev, want)
	}
	if next := s.apply(0, put(record("Mesh", "m3", `{}`), store.Absent)); next <= rev {
		s.Errorf("revision %d after %d", next, rev)
	}
}

func epochs(s *suite) {
	epoch := s.at(0).Epoch()
	if epoch == "" {
		s.Error("no epoch")
	}
	if other := s.at(1).Epoch(); other != epoch {
		s.Errorf("two instances of one database have epochs %q and %q", epoch, other)
	}
	if s.db.Reopen != nil {
		s.reopen()
		if again := s.at(0).Epoch(); again != epoch {
			s.Errorf("epoch %q, before it was closed %q", again, epoch)
		}
	}
	s.fresh()
	if another := s.at(0).Epoch(); another == epoch {
		s.Errorf("two databases have epoch %q", epoch)
	}
}

func many(s *suite) {
	const batches, each = 20, 250
	f := s.follow(1)
	var rev store.Revision
	for b := range batches {
		ops := make([]store.Op, each)
		for i := range ops {
			ops[i] = put(record("Dataplane", fmt.Sprintf("d%d-%d", b, i), `{"networking":{"address":"10.0.0.1"}}`), store.Absent)
		}
		rev = s.apply(0, ops...)
	}
	f.until(rev)
	late := s.follow(0)
	if len(late.rows) != batches*each || len(late.batches) != 1 {
		s.Errorf("%d rows in %d batches", len(late.rows), len(late.batches))
	}
	s.agree(late, f)
}

func cancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	next, stop := iter.Pull2(s.at(0).Follow(ctx))
	defer stop()
	if _, err, ok := next(); !ok || err != nil {
		s.Fatalf("no first batch: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if b, err, ok := next(); ok {
			s.Errorf("after the context: %+v, %v", b, err)
		}
	}()
	cancel()
	<-ended
	for range s.at(0).Follow(ctx) {
		s.Error("a batch for a context that has ended")
	}
}

func closing(s *suite) {
	next, stop := iter.Pull2(s.at(0).Follow(s.ctx))
	defer stop()
	if _, err, ok := next(); !ok || err != nil {
		s.Fatalf("no first batch: %v", err)
	}
	ended := make(chan error)
	go func() {
		_, err, _ := next()
		ended <- err
	}()
	if err := s.at(0).Close(); err != nil {
		s.Fatal(err)
	}
	s.fails(<-ended, store.ErrClosed)
	if err := s.at(0).Close(); err != nil {
		s.Errorf("closed twice: %v", err)
	}
	_, err := s.at(0).Apply(s.ctx, []store.Op{put(record("Mesh", "a", `{}`), store.Any)})
	s.fails(err, store.ErrClosed)
	for _, err := range s.at(0).Follow(s.ctx) {
		s.fails(err, store.ErrClosed)
	}
	if len(s.db.Instances) > 1 {
		s.apply(1, put(record("Mesh", "a", `{}`), store.Any)) // the others go on
	}
}
