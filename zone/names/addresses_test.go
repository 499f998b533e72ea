package names_test

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/hostname"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/zone/names"
)

const reuseAfter = time.Hour

// instance is one of a zone, as far as names are concerned.
type instance struct {
	t      testing.TB
	db     *db.DB
	feeder *store.Feeder
	stop   func()
	log    lines

	mu      sync.Mutex
	writes  map[string]int
	applied int
	before  func([]store.Op) // is called before what the allocator stores
}

// lines is a log that is read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// late is a store of which an instance hears later than others.
type late struct {
	store.Store
	by time.Duration
}

func (l late) Follow(ctx context.Context) iter.Seq2[store.Batch, error] {
	return func(yield func(store.Batch, error) bool) {
		for b, err := range l.Store.Follow(ctx) {
			time.Sleep(l.by)
			if !yield(b, err) {
				return
			}
		}
	}
}

func newInstance(t testing.TB, s store.Store, cidr string) *instance {
	t.Helper()
	i := &instance{t: t, db: db.New(api.Schema), writes: map[string]int{}}
	log := slog.New(slog.NewTextHandler(&i.log, nil))
	i.feeder = store.NewFeeder(s, i.db, site, log)
	i.db.OnCommit(func(c db.Commit) {
		i.mu.Lock()
		defer i.mu.Unlock()
		for _, ch := range c.Changes {
			i.writes[ch.Table]++
		}
	})
	ranges := map[string]netip.Prefix{}
	for _, k := range hostname.Kinds {
		ranges[k.Info().Name] = netip.MustParsePrefix(cidr)
	}
	apply := func(ctx context.Context, ops []store.Op) (store.Revision, error) {
		i.mu.Lock()
		i.applied++
		before := i.before
		i.mu.Unlock()
		if before != nil {
			before(ops)
		}
		return i.feeder.Apply(ctx, ops)
	}
	o := names.Options{DB: i.db, Apply: apply, Site: site, Ranges: ranges, ReuseAfter: reuseAfter, Now: time.Now, Log: log}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { _ = i.feeder.Run(ctx) })
	for _, run := range []func(context.Context, names.Options) error{names.Allocate, names.Generate} {
		all.Go(func() {
			<-i.feeder.Ready()
			_ = run(ctx, o)
		})
	}
	i.stop = func() { cancel(); all.Wait() }
	t.Cleanup(i.stop)
	<-i.feeder.Ready()
	return i
}

// touched counts the changes of rows of a table since it was last asked.
func (i *instance) touched(table string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := i.writes[table]
	i.writes[table] = 0
	return n
}

func (i *instance) id(k api.AnyKind, name string) api.ID {
	return api.LocalID(k, "default", "", name, site)
}

func (i *instance) apply(op store.Op) {
	i.t.Helper()
	if _, err := i.feeder.Apply(context.Background(), []store.Op{op}); err != nil {
		i.t.Fatal(err)
	}
}

// put writes a service with the label app.
func (i *instance) put(k api.AnyKind, name, app string) {
	i.t.Helper()
	id := i.id(k, name)
	created := time.Now()
	if row, ok := k.Row(i.db.Snapshot(), id); ok {
		created = row.Head().Created
	}
	i.apply(store.Op{Record: store.Record{
		ID: id, Labels: api.ComputeLabels(k, id, map[string]string{"app": app}, site), Created: created, Modified: time.Now(),
		Spec: fmt.Appendf(nil, `{"match":{"port":80},"selector":{"meshService":{"matchLabels":{"at":"%d"}}},"ports":[{"port":80}]}`, time.Now().UnixNano()),
	}})
}

func (i *instance) generator(name, selector, template string) {
	i.t.Helper()
	id := api.LocalID(api.HostnameGenerators, "", "", name, site)
	i.apply(store.Op{Record: store.Record{
		ID: id, Labels: api.ComputeLabels(api.HostnameGenerators, id, nil, site), Created: time.Now(), Modified: time.Now(),
		Spec: fmt.Appendf(nil, `{"selector":%s,"template":%q}`, selector, template),
	}})
}

func (i *instance) drop(k api.AnyKind, name string) {
	i.t.Helper()
	i.apply(store.Op{Record: store.Record{ID: i.id(k, name)}, Delete: true})
}

// addresses lists the services and what they have, by name.
func (i *instance) addresses() string {
	synctest.Wait()
	var out []string
	snap := i.db.Snapshot()
	for _, k := range hostname.Kinds {
		for row := range k.AllRows(snap) {
			out = append(out, row.Head().Name+"="+strings.Join(api.VIPs(snap, row.Head().ID), "+"))
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (i *instance) address(k api.AnyKind, name string) string {
	synctest.Wait()
	return strings.Join(api.VIPs(i.db.Snapshot(), i.id(k, name)), "+")
}

func TestAllocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New()
		i := newInstance(t, data.Open(), "241.0.0.0/8")
		seen := map[string]bool{}
		for _, k := range hostname.Kinds {
			for _, name := range []string{"a", "b"} {
				i.put(k, name, "")
				got := i.address(k, name)
				if !strings.HasPrefix(got, "241.") || seen[got] {
					t.Errorf("%s %s has %q", k.Info().Name, name, got)
				}
				seen[got] = true
			}
		}
		if n := i.touched("VirtualIP"); n != 6 {
			t.Errorf("%d rows were written for 6 services", n)
		}
		// What does not concern whether a service is there changes nothing.
		before, asked := i.addresses(), i.applied
		i.put(api.MeshServices, "a", "other")
		if after := i.addresses(); after != before || i.touched("VirtualIP") != 0 || i.applied != asked {
			t.Errorf("a change of a service: %s, was %s", after, before)
		}
		// Another start over the same store, and a new store: the same addresses.
		i.stop()
		again := newInstance(t, data.Open(), "241.0.0.0/8")
		if got := again.addresses(); got != before || again.applied != 0 {
			t.Errorf("after a restart %s, was %s; %d writes", got, before, again.applied)
		}
		fresh := newInstance(t, memory.New().Open(), "241.0.0.0/8")
		for _, k := range hostname.Kinds {
			for _, name := range []string{"b", "a"} {
				fresh.put(k, name, "")
			}
		}
		if got := fresh.addresses(); got != before {
			t.Errorf("in another store %s, was %s", got, before)
		}
		// Another range is for new services only.
		again.stop()
		other := newInstance(t, data.Open(), "fd00:1::/64")
		other.put(api.MeshServices, "six", "")
		if got := other.address(api.MeshServices, "six"); !netip.MustParsePrefix("fd00:1::/64").Contains(netip.MustParseAddr(got)) {
			t.Errorf("got %s", got)
		}
		if got := other.addresses(); !strings.HasPrefix(got, before[:40]) {
			t.Errorf("after another range %s, was %s", got, before)
		}
	})
}

// The address of a service that goes is kept for it, and then for nobody.
func TestAddressesAreNotReusedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New()
		i := newInstance(t, data.Open(), "241.0.0.0/30") // two addresses
		i.put(api.MeshServices, "a", "")
		i.put(api.MeshServices, "b", "")
		a, b := i.address(api.MeshServices, "a"), i.address(api.MeshServices, "b")
		if a == b || a == "" || b == "" {
			t.Fatalf("%s %s", a, b)
		}
		i.put(api.MeshServices, "c", "")
		i.put(api.MeshExternalServices, "d", "")
		i.drop(api.MeshServices, "a")
		time.Sleep(reuseAfter - time.Minute)
		if got := i.address(api.MeshServices, "c"); got != "" {
			t.Errorf("c got %s early", got)
		}
		i.put(api.MeshServices, "a", "")
		time.Sleep(2 * reuseAfter)
		if got := i.address(api.MeshServices, "a"); got != a {
			t.Errorf("a came back and has %s, had %s", got, a)
		}
		// The lack is told once, and whom it concerns.
		condition := func(name string) string {
			synctest.Wait()
			row, _ := api.MeshServices.Get(i.db.Snapshot(), i.id(api.MeshServices, name))
			s, _ := api.StatusOf(i.db.Snapshot(), row).(api.MeshServiceStatus)
			return fmt.Sprint(s.Conditions)
		}
		if got, want := condition("c"), "[{VIPAllocated False Exhausted All addresses of 241.0.0.0/30 are taken}]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got := condition("a"); got != "[]" {
			t.Errorf("of who has one: %s", got)
		}
		if n := i.log.count("no virtual address is left"); n != 2 { // one for each kind
			t.Errorf("told %d times", n)
		}
		at := time.Now()
		i.drop(api.MeshServices, "b")
		i.drop(api.MeshExternalServices, "d")
		time.Sleep(reuseAfter - time.Second)
		if got := i.address(api.MeshServices, "c"); got != "" {
			t.Errorf("c got %s after %v", got, time.Since(at))
		}
		time.Sleep(2 * time.Second)
		if got := i.address(api.MeshServices, "c"); got != b {
			t.Errorf("c has %q, want %s", got, b)
		}
		if got := condition("c"); got != "[]" {
			t.Errorf("afterwards: %s", got)
		}
		synctest.Wait()
		for e := range api.Exhaustions.All(i.db.Snapshot()) {
			t.Errorf("still told: %+v", e)
		}
		// A restart in between does not forget.
		i.drop(api.MeshServices, "c")
		synctest.Wait()
		i.stop()
		time.Sleep(reuseAfter / 2)
		next := newInstance(t, data.Open(), "241.0.0.0/30")
		next.put(api.MeshServices, "e", "")
		if got := next.address(api.MeshServices, "e"); got != "" {
			t.Errorf("e has %s", got)
		}
		time.Sleep(reuseAfter/2 + time.Second)
		if got := next.address(api.MeshServices, "e"); got != b {
			t.Errorf("e has %q, want %s", got, b)
		}
	})
}

// An address that is stored second for a service counts nowhere and is given back.
func TestSecondAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New().Open(), "241.0.0.0/8")
		i.put(api.MeshServices, "a", "")
		first := i.address(api.MeshServices, "a")
		// Lower than any that is first, so that the order of addresses would choose it.
		second := api.VirtualIPID(netip.MustParseAddr("1.0.0.1"))
		i.apply(store.Op{Record: store.RecordFor(api.VirtualIPs, second, api.VirtualIP{Address: "1.0.0.1", Service: api.ServiceID(i.id(api.MeshServices, "a"))})})
		if got := i.address(api.MeshServices, "a"); got != first {
			t.Errorf("a has %s, had %s", got, first)
		}
		if _, ok := api.VirtualIPs.Get(i.db.Snapshot(), second); ok {
			t.Error("the second address stays")
		}
	})
}

// An address that another instance gives to another service, after it was found to
// be free and before it is stored, is that service's.
func TestAddressGivenAwayMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New()
		i := newInstance(t, data.Open(), "241.0.0.0/8")
		i.put(api.MeshServices, "b", "")
		b, taken := i.id(api.MeshServices, "b"), ""
		old := i.address(api.MeshServices, "b")
		i.drop(api.MeshServices, "b")
		time.Sleep(2 * reuseAfter)
		i.mu.Lock()
		i.before = func(ops []store.Op) {
			i.mu.Lock()
			i.before = nil
			i.mu.Unlock()
			taken = ops[0].Record.Name
			service := store.Record{ID: b, Spec: []byte(`{}`)}
			address := store.RecordFor(api.VirtualIPs, ops[0].Record.ID, api.VirtualIP{Address: taken, Service: api.ServiceID(b)})
			if _, err := data.Open().Apply(context.Background(), []store.Op{{Record: service}, {Record: address}}); err != nil {
				t.Error(err)
			}
		}
		i.mu.Unlock()
		i.put(api.MeshServices, "a", "")
		time.Sleep(time.Second)
		if got := i.address(api.MeshServices, "b"); got != taken || got == old {
			t.Errorf("b has %s, was given %s", got, taken)
		}
		if got := i.address(api.MeshServices, "a"); got == "" || got == taken {
			t.Errorf("a has %q, b %s", got, taken)
		}
	})
}

// step is one random event of a service, at one of two instances.
type step struct {
	service, at int
	drop        bool
	then        int // 0: go on, 1: the other has not heard of it, 2: all is quiet, 3: much later
}

// Two instances over one store, of which one is always behind, end with the same
// addresses, each given once, and a service keeps what it has.
func TestRacingInstances(t *testing.T) {
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, 7).Draw(t, "service"), rapid.IntRange(0, 1).Draw(t, "at"), rapid.IntRange(0, 2).Draw(t, "drop") == 0, rapid.IntRange(0, 3).Draw(t, "then")}
	}), 1, 40)
	rapid.Check(t, func(rt *rapid.T) {
		lag := time.Duration(rapid.IntRange(0, 50).Draw(rt, "lag")) * time.Millisecond
		plan, wrong := steps.Draw(rt, "steps"), ""
		synctest.Test(t, func(t *testing.T) { wrong = race(t, plan, lag) })
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func race(t *testing.T, plan []step, lag time.Duration) (wrong string) {
	const cidr, room = "241.0.0.0/29", 6 // for 8 services
	data := memory.New()
	both := []*instance{newInstance(t, data.Open(), cidr), newInstance(t, late{data.Open(), lag}, cidr)}
	had := map[string]string{}
	for _, s := range append(plan, step{then: 3}) {
		name := fmt.Sprint("s", s.service)
		if s.drop {
			both[s.at].drop(api.MeshServices, name)
			delete(had, name) // it may come back after its address went to another
		} else {
			both[s.at].put(api.MeshServices, name, "")
		}
		switch s.then {
		case 0:
			continue
		case 1:
			time.Sleep(lag / 2)
			continue
		case 2:
			time.Sleep(time.Second)
		case 3:
			time.Sleep(2 * reuseAfter)
		}
		if had, wrong = judge(both, had, room); wrong != "" {
			return wrong
		}
	}
	return ""
}

// judge compares what both instances say with each other and with what services had.
func judge(both []*instance, had map[string]string, room int) (now map[string]string, wrong string) {
	if a, b := both[0].addresses(), both[1].addresses(); a != b {
		return nil, fmt.Sprintf("the instances do not agree:\n%s\n%s", a, b)
	}
	owner, rows := map[string]string{}, map[api.ID]string{}
	now = map[string]string{}
	for v := range api.VirtualIPs.All(both[0].db.Snapshot()) {
		if other := rows[api.ID(v.Spec.Service)]; other != "" {
			return nil, fmt.Sprintf("%s has %s and %s", v.Spec.Service.Name, other, v.Name)
		}
		rows[api.ID(v.Spec.Service)] = v.Name
	}
	for one := range strings.FieldsSeq(both[0].addresses()) {
		name, address, _ := strings.Cut(one, "=")
		switch {
		case address == "" && len(rows) < room:
			return nil, fmt.Sprintf("%s has none while %d of %d are taken", name, len(rows), room)
		case address != "" && owner[address] != "":
			return nil, fmt.Sprintf("%s is of %s and of %s", address, owner[address], name)
		case had[name] != "" && had[name] != address:
			return nil, fmt.Sprintf("%s had %s, has %s", name, had[name], address)
		}
		owner[address], now[name] = name, address
	}
	return now, ""
}

// Many services at once cost few writes.
func TestAllocateManyAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New()
		var ops []store.Op
		for n := range 1000 {
			id := api.LocalID(api.MeshServices, "default", "", fmt.Sprint("s", n), site)
			ops = append(ops, store.Op{Record: store.RecordFor(api.MeshServices, id, api.MeshService{})})
		}
		if _, err := data.Open().Apply(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
		i, j := newInstance(t, data.Open(), "241.0.0.0/8"), newInstance(t, late{data.Open(), 5 * time.Millisecond}, "241.0.0.0/8")
		time.Sleep(10 * time.Second)
		if a := i.addresses(); a != j.addresses() || strings.Contains(a, "= ") {
			t.Error("not every service has an address")
		}
		if n := i.applied + j.applied; n > 20 {
			t.Errorf("%d writes were tried for 1,000 services of two instances", n)
		}
	})
}
