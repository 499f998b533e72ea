package rest

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// position is a place in a history: a revision, and whose. Durable kinds count
// in the revisions of the store, which are the same at every instance; what is
// in memory counts in commits of this instance's database.
type position struct {
	epoch    string
	revision uint64
}

// String is how clients see a position, and give it back.
func (p position) String() string { return p.epoch + ":" + strconv.FormatUint(p.revision, 10) }

// parsePosition reads what [position.String] wrote, or a revision alone.
func parsePosition(text string) (position, bool) {
	epoch, number := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		epoch, number = text[:i], text[i+1:]
	}
	n, err := strconv.ParseUint(number, 10, 63)
	return position{epoch, n}, err == nil
}

// pastLimit is how many changes are remembered per kind.
const pastLimit = 512

// recent remembers which rows changed lately, and tells watchers. It holds the
// rows as they were before, so that somebody who comes back is told exactly
// what went away.
type recent struct {
	instance string

	mu    sync.Mutex
	store api.Mark // the newest that was told
	// ambiguous: a revision alone, up to this one, may be of a history before.
	ambiguous uint64
	commit    db.Revision
	past      map[string]*past // by kind
	watchers  map[string]map[*watcher]struct{}
}

// past is the latest changes of one kind. A change is at twice the revision
// that brought it; one that brought none (a row of a durable kind that is only
// in memory) is half a revision after the one before.
type past struct {
	changes []changed
	// floor: changes up to here are forgotten.
	floor uint64
}

type changed struct {
	at  uint64
	id  api.ID
	old api.Row // nil: the row was new
}

// stale is a row that a watcher has to be told of.
type stale struct {
	id   api.ID
	core string
	// had is the row that the client has, if it may read it, so that it must hear
	// when it is gone; nil: none. Known says that this was found out.
	had   api.Row
	known bool
}

type watcher struct {
	kind, with string
	// match is cheap: every change asks every watcher of its kind.
	match func(api.Row) bool
	wake  chan struct{}

	// Guarded by recent.mu:
	dirty map[string]stale // by key of the row
	anew  bool             // what is dirty does not say all: other roles hold
}

// follow begins to remember. It lasts as long as the database.
func follow(d *db.DB, instance string) *recent {
	c := &recent{instance: instance, past: map[string]*past{}, watchers: map[string]map[*watcher]struct{}{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	d.OnCommit(c.told)
	snap := d.Snapshot()
	c.store, c.commit = markOf(snap), snap.Revision()
	for _, k := range api.Kinds {
		p := &past{floor: 2*c.store.Counter + 1}
		if k.Info().Memory {
			p.floor = 2 * uint64(c.commit)
		}
		c.past[k.Info().Name] = p
	}
	return c
}

func markOf(r db.Reader) api.Mark {
	if own, ok := api.Revisions.Get(r, ""); ok {
		return own.Mark
	}
	return api.Mark{}
}

// told takes one commit.
func (c *recent) told(commit db.Commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	mark := markOf(commit.Snapshot)
	durable := 2 * mark.Counter
	switch {
	case mark.Epoch != c.store.Epoch: // another history: nobody can resume from before
		c.ambiguous = max(c.ambiguous, c.store.Counter, mark.Counter)
		for _, k := range api.Kinds {
			if !k.Info().Memory {
				*c.past[k.Info().Name] = past{floor: durable}
			}
		}
	case mark == c.store:
		durable++
	}
	loaded := mark.Epoch != c.store.Epoch
	c.store, c.commit = mark, commit.Snapshot.Revision()
	if slices.ContainsFunc(commit.Changes, isRole) {
		c.judgeAnew()
	}
	for _, change := range commit.Changes {
		p, ok := c.past[change.Table]
		if !ok {
			continue // a feed, no kind
		}
		old, _ := change.Old.(api.Row)
		row, _ := change.New.(api.Row)
		k, _ := api.ByName(change.Table) // it has a past
		memory := k.Info().Memory
		at := durable
		if memory {
			at = 2 * uint64(c.commit)
		}
		if memory || !loaded {
			p.add(changed{at, cmp.Or(row, old).Head().ID, old})
		}
		for w := range c.watchers[change.Table] {
			w.told(change, old, row)
		}
	}
}

func isRole(change db.Change) bool {
	return change.Table == api.AccessRoles.Name || change.Table == api.AccessRoleBindings.Name
}

// judgeAnew has all who watch begin again, and lets nobody resume from before:
// what they may see is not what they might have seen. The caller holds the lock.
func (c *recent) judgeAnew() {
	for _, k := range api.Kinds {
		name := k.Info().Name
		*c.past[name] = past{floor: 2 * c.at(name).revision}
		for w := range c.watchers[name] {
			w.anew = true
			w.rouse()
		}
	}
}

func (p *past) add(one changed) {
	if len(p.changes) == pastLimit {
		p.floor = p.changes[pastLimit/2-1].at
		p.changes = slices.Delete(p.changes, 0, pastLimit/2)
	}
	p.changes = append(p.changes, one)
}

func (w *watcher) told(change db.Change, old, row api.Row) {
	if change.Table == w.with {
		// A part of the document: whether its row is watched shows when it is sent.
		head := cmp.Or(row, old).Head()
		w.mark(change.Key, stale{id: head.ID, core: head.Core})
		return
	}
	head := cmp.Or(row, old).Head()
	if old != nil && !w.match(old) {
		old = nil
	}
	if old != nil || row != nil && w.match(row) {
		w.mark(change.Key, stale{id: head.ID, core: head.Core, had: old, known: true})
	}
}

func (w *watcher) mark(key string, one stale) {
	// What the client has is what was there before the first of several changes.
	if before, ok := w.dirty[key]; ok && before.known {
		one.had, one.known = before.had, true
	}
	w.dirty[key] = one
	w.rouse()
}

func (w *watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// join begins to tell a watcher.
func (c *recent) join(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kind := range []string{w.kind, w.with} {
		if c.watchers[kind] == nil {
			c.watchers[kind] = map[*watcher]struct{}{}
		}
		c.watchers[kind][w] = struct{}{}
	}
}

func (c *recent) leave(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kind := range []string{w.kind, w.with} {
		delete(c.watchers[kind], w)
	}
}

// take returns what the watcher has to be told, ordered by key, and the
// position that is complete when it was; anew: everything. A snapshot that is
// taken after it shows all of it, or something newer.
func (c *recent) take(w *watcher) (told []stale, at position, anew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	anew, w.anew = w.anew, false
	keys := make([]string, 0, len(w.dirty))
	for key := range w.dirty {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	out := make([]stale, len(keys))
	for i, key := range keys {
		out[i] = w.dirty[key]
	}
	clear(w.dirty)
	return out, c.at(w.kind), anew
}

// at is the position of a kind; the caller holds the lock.
func (c *recent) at(kind string) position {
	if k, ok := api.ByName(kind); ok && k.Info().Memory {
		return position{c.instance, uint64(c.commit)}
	}
	return position{c.store.Epoch, c.store.Counter}
}

// resume marks what changed since the position. It reports false when that is
// not known: the position is too old, of another history, or yet to come
// (newest is what the database shows).
func (c *recent) resume(w *watcher, from position, newest api.Mark) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, _ := api.ByName(w.kind)
	limit := newest.Counter
	if k.Info().Memory {
		if from.epoch == "" {
			return false // a number alone could be that of another instance
		}
		limit = uint64(c.commit)
	}
	if from.epoch == "" && from.revision <= c.ambiguous && c.ambiguous > 0 {
		return false
	}
	now, p := c.at(w.kind), c.past[w.kind]
	if from.epoch != "" && from.epoch != now.epoch || from.revision > limit || 2*from.revision < p.floor {
		return false
	}
	i, _ := slices.BinarySearchFunc(p.changes, 2*from.revision+1, func(one changed, at uint64) int { return cmp.Compare(one.at, at) })
	for _, one := range p.changes[i:] {
		// What the row is now decides at sending; core is only for one that is gone.
		entry := stale{id: one.id, known: true}
		if one.old != nil {
			entry.core = one.old.Head().Core
			if w.match(one.old) {
				entry.had = one.old
			}
		}
		w.mark(one.id.Key(), entry)
	}
	return true
}
