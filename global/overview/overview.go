// Package overview keeps the counts of each mesh: its proxies by state, version
// and authority, its resources by kind.
//
// It owns the rows of [api.MeshInsights], in memory. Global runs it, and a zone
// without one. It reads rows that others wrote and nothing else.
//
//	Dataplane, DataplaneInsight changed ─▶ its share of the counts is exchanged ─┐
//	any row of a mesh came or went      ─▶ the count of its kind ± 1           ─┴▶ db: MeshInsight
//
// # Why
//
// Counting anew for every change would cost a mesh for the change of a proxy. So
// each proxy's share is remembered and taken back when it changes, and the work
// follows the change. Commits that arrive while a row is written are one more
// row together: a busy mesh is counted as often as it can be, no more.
package overview

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// Options of [Run].
type Options struct {
	DB  *db.DB
	Now func() time.Time
	Log *slog.Logger
}

type feeder struct {
	o       Options
	counted map[string]bool // tables whose rows are counted
	wake    chan struct{}

	mu      sync.Mutex
	from    db.Revision // what commits up to here changed is counted already
	started bool
	early   []db.Commit // until from is known
	todo    todo

	// Of Run's goroutine alone.
	shares map[string]share // by the key of the Dataplane
	meshes map[string]*counts
}

// todo is what the next turn looks at.
type todo struct {
	proxies map[api.ID]struct{}
	meshes  map[string]struct{}
	// moved is how many rows of a kind came, less those that went, by mesh.
	moved map[string]map[string]int
}

func newTodo() todo {
	return todo{proxies: map[api.ID]struct{}{}, meshes: map[string]struct{}{}, moved: map[string]map[string]int{}}
}

func (t *todo) move(mesh, kind string, by int) {
	if t.moved[mesh] == nil {
		t.moved[mesh] = map[string]int{}
	}
	t.moved[mesh][kind] += by
	t.meshes[mesh] = struct{}{}
}

// Run counts until the context ends.
func Run(ctx context.Context, o Options) error {
	f := &feeder{
		o: o, counted: map[string]bool{}, wake: make(chan struct{}, 1), todo: newTodo(),
		shares: map[string]share{}, meshes: map[string]*counts{},
	}
	for _, k := range api.Kinds {
		if i := k.Info(); i.Scope == api.MeshScope && !i.ReadOnly && !i.Hidden {
			f.counted[i.Name] = true
		}
	}
	stop := o.DB.OnCommit(f.commit)
	defer stop()
	f.start(o.DB.Snapshot())
	for {
		f.turn()
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
	}
}

// start marks all there is, and what was committed since.
func (f *feeder) start(snap *db.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from, f.started = snap.Revision(), true
	for _, k := range api.Kinds {
		if !f.counted[k.Info().Name] {
			continue
		}
		for row := range k.AllRows(snap) {
			f.todo.move(row.Head().Mesh, k.Info().Name, 1)
		}
	}
	for dp := range api.Dataplanes.All(snap) {
		f.todo.proxies[dp.ID] = struct{}{}
	}
	for m := range api.Meshes.All(snap) {
		f.todo.meshes[m.Name] = struct{}{}
	}
	for _, c := range f.early {
		f.note(c)
	}
	f.early = nil
}

// commit runs for every commit: it only notes what to look at.
func (f *feeder) commit(c db.Commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.started {
		f.early = append(f.early, c)
		return
	}
	if f.note(c) {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

func (f *feeder) note(c db.Commit) (any bool) {
	if c.Snapshot.Revision() <= f.from {
		return false
	}
	for _, ch := range c.Changes {
		row, there := ch.New.(api.Row)
		old, was := ch.Old.(api.Row)
		if !there {
			row = old
		}
		if !there && !was {
			continue
		}
		m := row.Head()
		if f.counted[ch.Table] && there != was {
			by := 1
			if was {
				by = -1
			}
			f.todo.move(m.Mesh, ch.Table, by)
			any = true
		}
		switch ch.Table {
		case api.Meshes.Name:
			f.todo.meshes[m.Name] = struct{}{}
		case api.Dataplanes.Name, api.DataplaneInsights.Name:
			id := m.ID
			id.Kind = api.Dataplanes.Name
			f.todo.proxies[id] = struct{}{}
		default:
			continue
		}
		any = true
	}
	return any
}

// turn counts what changed and writes the rows that came out different.
func (f *feeder) turn() {
	f.mu.Lock()
	t := f.todo
	f.todo = newTodo()
	f.mu.Unlock()
	snap := f.o.DB.Snapshot()
	for id := range t.proxies {
		f.exchange(snap, id)
		t.meshes[id.Mesh] = struct{}{}
	}
	var puts []*api.Object[api.MeshInsight]
	var gone []api.ID
	for name := range t.meshes {
		c := f.mesh(name)
		for kind, by := range t.moved[name] {
			c.resources[kind] += by
		}
		id := api.ID{Kind: api.MeshInsights.Name, Name: name}
		have, exists := api.MeshInsights.Get(snap, id)
		mesh, ok := api.Meshes.Named(snap, "", name)
		if !ok {
			if exists {
				gone = append(gone, id)
			}
			if c.empty() {
				delete(f.meshes, name)
			}
			continue
		}
		spec := c.insight()
		if !exists || !reflect.DeepEqual(have.Spec, spec) {
			puts = append(puts, api.MeshInsights.New(api.Meta{ID: id, Core: name, Created: mesh.Created, Modified: f.o.Now()}, spec))
		}
	}
	if len(puts)+len(gone) == 0 {
		return
	}
	_, err := f.o.DB.Write(func(tx *db.Tx) error {
		for _, row := range puts {
			api.MeshInsights.PutObject(tx, row)
		}
		for _, id := range gone {
			api.MeshInsights.Remove(tx, id)
		}
		return nil
	})
	if err != nil {
		f.o.Log.Error("counts of meshes cannot be entered", "error", err)
	}
}

func (f *feeder) mesh(name string) *counts {
	if f.meshes[name] == nil {
		f.meshes[name] = newCounts()
	}
	return f.meshes[name]
}

// exchange replaces the share of a proxy.
func (f *feeder) exchange(snap *db.Snapshot, id api.ID) {
	c, key := f.mesh(id.Mesh), id.Key()
	if old, ok := f.shares[key]; ok {
		c.add(old, -1)
		delete(f.shares, key)
	}
	dp, ok := api.Dataplanes.Get(snap, id)
	if !ok {
		return
	}
	id.Kind = api.DataplaneInsights.Name
	insight, _ := api.DataplaneInsights.Get(snap, id)
	s := shareOf(dp, insight)
	f.shares[key] = s
	c.add(s, 1)
}

// share is what one proxy adds to the counts.
type share struct {
	status        string
	gateway       bool
	kumaDP, envoy string
	issued        string
	supported     []string
}

func shareOf(dp *api.Object[api.Dataplane], insight *api.Object[api.DataplaneInsight]) share {
	s := share{gateway: dp.Spec.Networking.Gateway != nil}
	if insight == nil {
		s.status = api.DataplaneStatus(&dp.Spec, nil)
		return s
	}
	s.status = api.DataplaneStatus(&dp.Spec, &insight.Spec)
	if n := len(insight.Spec.Subscriptions); n > 0 {
		if v := insight.Spec.Subscriptions[n-1].Version; v != nil {
			if v.KumaDP != nil {
				s.kumaDP = v.KumaDP.Version
			}
			if v.Envoy != nil {
				s.envoy = v.Envoy.Version
			}
		}
	}
	if m := insight.Spec.MTLS; m != nil {
		s.issued, s.supported = m.IssuedBackend, m.SupportedBackends
	}
	return s
}

// counts is a MeshInsight in the making.
type counts struct {
	standard, gateway                map[string]int // by status
	kumaDP, envoy, issued, supported map[string]map[string]int
	resources                        map[string]int
}

func newCounts() *counts {
	return &counts{
		standard: map[string]int{}, gateway: map[string]int{},
		kumaDP: map[string]map[string]int{}, envoy: map[string]map[string]int{},
		issued: map[string]map[string]int{}, supported: map[string]map[string]int{},
		resources: map[string]int{},
	}
}

func (c *counts) add(s share, by int) {
	if s.gateway {
		c.gateway[s.status] += by
	} else {
		c.standard[s.status] += by
	}
	in := func(group map[string]map[string]int, name string) {
		if name == "" {
			return
		}
		if group[name] == nil {
			group[name] = map[string]int{}
		}
		group[name][s.status] += by
		if total(group[name]) == 0 {
			delete(group, name)
		}
	}
	in(c.kumaDP, s.kumaDP)
	in(c.envoy, s.envoy)
	in(c.issued, s.issued)
	for _, name := range s.supported {
		in(c.supported, name)
	}
}

func total(by map[string]int) (n int) {
	for _, one := range by {
		n += one
	}
	return n
}

// empty reports that nothing is left of the mesh.
func (c *counts) empty() bool {
	return total(c.standard)+total(c.gateway)+total(c.resources) == 0
}

func (c *counts) insight() api.MeshInsight {
	gateway := stat(c.gateway)
	all := maps.Clone(c.standard)
	for status, n := range c.gateway {
		all[status] += n
	}
	return api.MeshInsight{
		Dataplanes:       stat(all),
		DataplanesByType: api.DataplanesByType{Standard: stat(c.standard), Gateway: gateway, GatewayDelegated: gateway},
		DPVersions:       api.DataplaneVersionStats{KumaDP: stats(c.kumaDP), Envoy: stats(c.envoy)},
		MTLS:             api.DataplaneBackendStats{IssuedBackends: stats(c.issued), SupportedBackends: stats(c.supported)},
		Resources:        resources(c.resources),
	}
}

func stat(by map[string]int) api.DataplaneStat {
	return api.DataplaneStat{
		Total: uint32(total(by)), Online: uint32(by[api.Online]),
		Offline: uint32(by[api.Offline]), PartiallyDegraded: uint32(by[api.PartiallyDegraded]),
	}
}

func stats(group map[string]map[string]int) map[string]api.DataplaneStat {
	if len(group) == 0 {
		return nil
	}
	out := map[string]api.DataplaneStat{}
	for name, by := range group {
		out[name] = stat(by)
	}
	return out
}

func resources(of map[string]int) map[string]api.ResourceStat {
	out := map[string]api.ResourceStat{}
	for kind, n := range of {
		if n != 0 {
			out[kind] = api.ResourceStat{Total: uint32(n)}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
