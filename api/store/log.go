package store

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"sync"
)

// Limits bound the recent past that a [Log] keeps. Zero fields mean the
// defaults: 1024 commits, 16 MiB of specs and labels.
type Limits struct{ Commits, Bytes int }

// Log is the recent past of a store, from which its followers read. Writers
// append and go on; a follower that is behind the log reads all rows anew, so
// no follower can hold the log, and the log can strand no follower.
//
// It is kept in memory only: rows are what must survive, and after a restart
// every follower begins with a Reset.
type Log struct {
	limits Limits

	mu sync.Mutex
	// commits are in order of revision; those up to dropped are gone.
	commits []Batch
	sizes   []int
	bytes   int
	dropped Revision
	// gaps counts the calls of Gap.
	gaps uint64
	// more is closed, and replaced, when a commit is appended.
	more chan struct{}
}

// NewLog returns an empty log.
func NewLog(l Limits) *Log {
	if l.Commits <= 0 {
		l.Commits = 1024
	}
	if l.Bytes <= 0 {
		l.Bytes = 16 << 20
	}
	return &Log{limits: l, more: make(chan struct{})}
}

// Append adds commits in their order and wakes the followers. They must be
// visible to whoever reads the rows already.
func (l *Log) Append(commits ...Batch) {
	if len(commits) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range commits {
		n := 0
		for i := range b.Puts {
			n += size(&b.Puts[i])
		}
		l.commits, l.sizes, l.bytes = append(l.commits, b), append(l.sizes, n), l.bytes+n
	}
	drop := 0
	for len(l.commits)-drop > l.limits.Commits || l.bytes > l.limits.Bytes {
		l.bytes -= l.sizes[drop]
		l.dropped = l.commits[drop].Revision
		drop++
	}
	l.commits, l.sizes = slices.Delete(l.commits, 0, drop), slices.Delete(l.sizes, 0, drop)
	l.wake()
}

// Gap has every follower read all rows anew, because it is not known which
// commits happened: the medium failed while one was written.
func (l *Log) Gap() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps++
	l.wake()
}

func (l *Log) wake() {
	close(l.more)
	l.more = make(chan struct{})
}

func (l *Log) gap() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gaps
}

// after returns the commit that follows the revision. Without one it returns
// either behind, if that commit is gone or there was a gap since, or what is
// closed when one comes.
func (l *Log) after(r Revision, gaps uint64) (b Batch, ok, behind bool, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r < l.dropped || gaps != l.gaps {
		return Batch{}, false, true, nil
	}
	i, _ := slices.BinarySearchFunc(l.commits, r+1, func(b Batch, r Revision) int {
		return cmp.Compare(b.Revision, r)
	})
	if i == len(l.commits) {
		return Batch{}, false, false, l.more
	}
	return l.commits[i], true, false, nil
}

// Follow is [Store.Follow]: all returns everything that is stored, as of one
// revision; the sequence ends with the context, or with ErrClosed when closed
// is.
func (l *Log) Follow(ctx context.Context, closed <-chan struct{}, all func() (Batch, error)) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		var at Revision
		var gaps uint64
		for behind := true; ; {
			select {
			case <-ctx.Done():
				return
			case <-closed:
				yield(Batch{}, ErrClosed)
				return
			default:
			}
			var b Batch
			if behind {
				gaps = l.gap()
				var err error
				if b, err = all(); err != nil {
					yield(Batch{}, err)
					return
				}
				b.Reset = true
			} else {
				var ok bool
				var more <-chan struct{}
				if b, ok, behind, more = l.after(at, gaps); !ok {
					if behind {
						continue
					}
					select {
					case <-ctx.Done():
					case <-closed:
					case <-more:
					}
					continue
				}
			}
			if !yield(b, nil) {
				return
			}
			at, behind = b.Revision, false
		}
	}
}
