package delta_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/kds/delta"
	"pgregory.net/rapid"
)

// bench is a world, a session and a peer under one clock.
type bench struct {
	t interface {
		Helper()
		Fatalf(string, ...any)
	}
	w       world
	s       *delta.Session
	p       *peer
	now     time.Time
	version int
	nonce   int
	sent    map[string]map[string]string // what the session sent or the peer claimed: type → name → version
	rev     uint64
	tell    func(typ string, names ...string) // of what may have changed; nil: one by one
}

func (b *bench) changed(typ string, names ...string) {
	if b.tell != nil {
		b.tell(typ, names...)
		return
	}
	for _, n := range names {
		b.s.Changed(typ, n)
	}
}

func (b *bench) item(name string, refs ...string) *item {
	b.version++
	return &item{name: name, version: strconv.Itoa(b.version), refs: refs}
}

func (b *bench) put(typ string, i *item) {
	b.w.put(typ, i)
	b.changed(typ, i.name)
}

func (b *bench) del(typ, name string) {
	delete(b.w[typ], name)
	b.changed(typ, name)
}

func (b *bench) connect() {
	b.s, b.nonce = delta.New(envoyOrder()), 0
	b.sent = map[string]map[string]string{}
	for _, t := range []string{cds, eds, sds, lds, rds} {
		b.sent[t] = map[string]string{}
		for n, i := range b.p.has[t] {
			b.sent[t][n] = i.version
		}
	}
	b.p.connect(b.s)
}

// next asks for one message, checks what must hold of every message and delivers it.
func (b *bench) next() *delta.Message {
	b.t.Helper()
	m, _ := b.s.Next(b.w, b.now)
	if m == nil {
		return nil
	}
	b.nonce++
	if m.Nonce != strconv.Itoa(b.nonce) {
		b.t.Fatalf("nonce %q of message %d", m.Nonce, b.nonce)
	}
	for _, x := range m.Items {
		b.sent[m.Type][x.ItemName()] = x.ItemVersion()
		for _, c := range x.(*item).refs {
			if want := b.w[cds][c]; want != nil && !want.bad && b.sent[cds][c] != want.version {
				b.t.Fatalf("%s %s names cluster %s, which is not sent", m.Type, x.ItemName(), c)
			}
			if want := b.w[eds][c]; want != nil && !want.bad && b.p.subs[eds][c] && b.sent[eds][c] != want.version {
				b.t.Fatalf("%s %s names cluster %s, whose endpoints are not sent", m.Type, x.ItemName(), c)
			}
		}
	}
	for _, n := range m.Removed {
		delete(b.sent[m.Type], n)
		if _, there := b.w[m.Type][n]; there {
			b.t.Fatalf("%s %s is removed and exists", m.Type, n)
		}
		if m.Type == cds {
			if b.p.named()[n] {
				b.t.Fatalf("cluster %s is removed and the peer's listeners name it", n)
			}
			if since, ever := b.p.quit[n]; ever && b.now.Sub(since) < drain {
				b.t.Fatalf("cluster %s is removed %s after the last one let go of it", n, b.now.Sub(since))
			}
		}
	}
	b.p.receive(b.s, m)
	return m
}

// settle lets everything be sent, answered and drained.
func (b *bench) settle() (sent []*delta.Message) {
	b.t.Helper()
	for range 10000 {
		m, answered := b.next(), false
		if m != nil {
			sent = append(sent, m)
			continue
		}
		for _, t := range []string{rds, lds, sds, eds, cds} {
			answered = b.p.answer(b.s, t, b.now) || answered
		}
		if answered {
			continue
		}
		m, wake := b.s.Next(b.w, b.now)
		if m != nil {
			b.t.Fatalf("a message out of nothing")
		}
		if wake.IsZero() {
			return sent
		}
		if !wake.After(b.now) {
			b.t.Fatalf("woken for a time that has passed")
		}
		b.now = wake
	}
	b.t.Fatalf("does not settle")
	return nil
}

// equal checks that both sides are the same, up to what is refused.
func (b *bench) equal() {
	b.t.Helper()
	if !b.s.Converged() || b.s.Behind() != 0 || b.s.Draining() != 0 && len(b.s.Rejections()) == 0 {
		b.t.Fatalf("answered but not converged: behind %d, draining %d", b.s.Behind(), b.s.Draining())
	}
	if b.s.Reached() != b.rev {
		b.t.Fatalf("reached %d of %d", b.s.Reached(), b.rev)
	}
	refused := map[string]string{}
	for _, r := range b.s.Rejections() {
		refused[r.Type+" "+r.Name] = r.Version
	}
	plan, bad, pinned := 0, 0, b.s.Draining()
	for _, t := range []string{cds, eds, lds, rds} {
		for n, i := range b.w[t] {
			if t != cds && t != lds && !b.p.subs[t][n] {
				continue
			}
			if i.bad {
				bad++
				if refused[t+" "+n] != i.version {
					b.t.Fatalf("%s %s is bad and not set aside", t, n)
				}
				continue
			}
			if got := b.p.has[t][n]; got == nil || got.version != i.version {
				b.t.Fatalf("%s %s: peer has %v, should have %s", t, n, got, i.version)
			}
		}
		for n := range b.p.has[t] {
			if b.w[t][n] == nil {
				pinned--
			}
		}
		held := map[string]string{}
		for n, i := range b.p.has[t] {
			held[n] = i.version
		}
		got := b.s.Held(t)
		if b.p.partial { // what a peer applied of a message that it refused, it does not say
			maps.DeleteFunc(got, func(n, _ string) bool { return refused[t+" "+n] != "" || b.w[t][n] == nil })
			maps.DeleteFunc(held, func(n, _ string) bool { return refused[t+" "+n] != "" || b.w[t][n] == nil })
		}
		if !maps.Equal(got, held) {
			b.t.Fatalf("%s: the session thinks the peer holds %v, it holds %v", t, got, held)
		}
		names := maps.Clone(b.p.subs[t])
		for n := range held {
			names[n] = true
		}
		for n := range b.w[t] { // a refused first version has a slot too
			if b.w[t][n].bad && (t == cds || t == lds) {
				names[n] = true
			}
		}
		plan += len(names)
	}
	if pinned < 0 { // more may wait: of what was refused nobody knows whether the peer has it
		b.t.Fatalf("the peer holds %d things too much that nobody will remove", -pinned)
	}
	if bad != len(refused) {
		b.t.Fatalf("%d bad ones, set aside %v", bad, refused)
	}
	if n := b.s.Leftovers(); n != bad+b.s.Draining() {
		b.t.Fatalf("a converged session holds %d things beyond its plan", n-bad)
	}
	if b.s.Plan() > plan+b.s.Draining() {
		b.t.Fatalf("plan of %d names holds %d", plan, b.s.Plan())
	}
}

func newBench(t interface {
	Helper()
	Fatalf(string, ...any)
}) *bench {
	b := &bench{t: t, w: world{}, p: newPeer(), now: time.Unix(1000, 0)}
	b.p.names = true
	return b
}

// Whatever is subscribed, changed, acknowledged, refused, lost and reconnected: no message breaks the order, and when
// all is answered both sides are equal.
func TestBothSidesEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t)
		b.p.names, b.p.partial = rapid.Bool().Draw(t, "names"), rapid.Bool().Draw(t, "partial")
		b.connect()
		all := []string{"a", "b", "c", "d", "e"}
		name := rapid.SampledFrom(all)
		several := func() (out []string) {
			for _, n := range all {
				if rapid.Bool().Draw(t, "also "+n) {
					out = append(out, n)
				}
			}
			return out
		}
		// A session is told one by one, or by a list that it shares with others, which concerns more than it has.
		var shared, copies [][]string
		b.tell = func(typ string, names ...string) {
			if rapid.Bool().Draw(t, "one by one") {
				for _, n := range names {
					b.s.Changed(typ, n)
				}
				return
			}
			list := append(several(), names...)
			slices.Sort(list)
			list = slices.Compact(list)
			shared, copies = append(shared, list), append(copies, slices.Clone(list))
			b.s.ChangedMany(typ, list)
		}
		evil := rapid.Custom(func(t *rapid.T) bool { return rapid.IntRange(0, 5).Draw(t, "evil") == 0 })
		refs := func() (out []string) {
			for _, c := range slices.Sorted(maps.Keys(b.w[cds])) {
				if rapid.Bool().Draw(t, "ref") {
					out = append(out, c)
				}
			}
			return out
		}
		round := func() {
			b.rev++
			b.s.Target(b.rev)
		}
		t.Repeat(map[string]func(*rapid.T){
			"cluster": func(t *rapid.T) {
				i := b.item(name.Draw(t, "name"))
				i.bad = evil.Draw(t, "bad")
				b.put(cds, i)
				round()
			},
			"endpoints": func(t *rapid.T) {
				i := b.item(name.Draw(t, "name"))
				i.bad = evil.Draw(t, "bad")
				b.put(eds, i)
				round()
			},
			"referrer": func(t *rapid.T) {
				typ := rapid.SampledFrom([]string{lds, rds}).Draw(t, "type")
				i := b.item(name.Draw(t, "name"), refs()...)
				i.bad = evil.Draw(t, "bad")
				b.put(typ, i)
				round()
			},
			"many": func(t *rapid.T) { // a policy for the mesh
				typ := rapid.SampledFrom([]string{cds, eds}).Draw(t, "type")
				names := several()
				for _, n := range names {
					if old := b.w[typ][n]; old != nil {
						i := b.item(n)
						i.bad = old.bad
						b.w.put(typ, i)
					}
				}
				b.tell(typ, names...)
				round()
			},
			"back": func(t *rapid.T) { // to what the peer has, perhaps while another version is in flight
				typ, n := rapid.SampledFrom([]string{eds, cds}).Draw(t, "type"), name.Draw(t, "name")
				if old := b.p.has[typ][n]; old != nil {
					b.put(typ, old)
					round()
				}
			},
			"delete cluster": func(t *rapid.T) {
				n := name.Draw(t, "name")
				b.del(cds, n)
				b.del(eds, n)
				for _, typ := range []string{lds, rds} {
					for _, k := range slices.Sorted(maps.Keys(b.w[typ])) {
						if old := b.w[typ][k]; slices.Contains(old.refs, n) {
							i := b.item(k, slices.DeleteFunc(slices.Clone(old.refs), func(r string) bool { return r == n })...)
							i.bad = old.bad
							b.put(typ, i)
						}
					}
				}
				round()
			},
			"delete": func(t *rapid.T) {
				b.del(rapid.SampledFrom([]string{eds, lds, rds}).Draw(t, "type"), name.Draw(t, "name"))
				round()
			},
			"route": func(t *rapid.T) {
				if n := name.Draw(t, "name"); b.p.subs[rds][n] {
					b.p.unsubscribe(b.s, rds, n)
				} else {
					b.p.subscribe(b.s, rds, n)
				}
			},
			"again": func(t *rapid.T) {
				if n := name.Draw(t, "name"); b.p.subs[eds][n] {
					b.p.subscribe(b.s, eds, n)
				}
			},
			"all":  func(t *rapid.T) { b.s.ChangedAll(rapid.SampledFrom([]string{cds, eds, lds, rds}).Draw(t, "type")) },
			"next": func(t *rapid.T) { b.next() },
			"answer": func(t *rapid.T) {
				b.p.answer(b.s, rapid.SampledFrom([]string{cds, eds, lds, rds}).Draw(t, "type"), b.now)
			},
			"stale": func(t *rapid.T) {
				if b.s.Ack(cds, "999999", "") {
					t.Fatalf("took an answer to nothing")
				}
			},
			"time": func(t *rapid.T) { b.now = b.now.Add(time.Duration(rapid.IntRange(1, 6).Draw(t, "s")) * time.Second) },
			"reconnect": func(t *rapid.T) {
				b.connect()
				b.rev++
				b.s.Target(b.rev)
			},
		})
		b.settle()
		b.equal()
		for i := range shared {
			if !slices.Equal(shared[i], copies[i]) {
				t.Fatalf("a list that others share was changed: %v, was %v", shared[i], copies[i])
			}
		}
		if b.p.partial {
			return // what a peer applied from a refused message it may hold without saying
		}
		// A reconnect sends nothing that is held.
		b.connect()
		b.s.Target(b.rev)
		for _, m := range b.settle() {
			for _, x := range m.Items {
				if !b.bad() {
					t.Fatalf("%s %s is sent again after a reconnect", m.Type, x.ItemName())
				}
			}
		}
		b.equal()
	})
}

// bad: the world has something that the peer will refuse again, together with what is sent beside it.
func (b *bench) bad() bool {
	for _, items := range b.w {
		for _, i := range items {
			if i.bad {
				return true
			}
		}
	}
	return false
}

func describe(ms []*delta.Message) (out []string) {
	for _, m := range ms {
		s := m.Type
		for _, x := range m.Items {
			s += " +" + x.ItemName()
		}
		for _, n := range m.Removed {
			s += " -" + n
		}
		out = append(out, s)
	}
	return out
}

func expect(t *testing.T, got []*delta.Message, want ...string) {
	t.Helper()
	if d := describe(got); !slices.Equal(d, want) {
		t.Fatalf("messages:\n got %q\nwant %q", d, want)
	}
}

// shop is a peer that holds clusters a and b with endpoints, and a listener that names both.
func shop(t *testing.T) *bench {
	b := newBench(t)
	for _, n := range []string{"a", "b"} {
		b.w.put(cds, b.item(n))
		b.w.put(eds, b.item(n))
	}
	b.w.put(lds, b.item("l", "a", "b"))
	b.connect()
	b.settle()
	b.equal()
	return b
}

func TestFirstState(t *testing.T) {
	b := newBench(t)
	b.w.put(cds, b.item("a"))
	b.w.put(eds, b.item("a"))
	b.w.put(lds, b.item("l", "a"))
	b.connect()
	expect(t, b.settle(), "cds +a", "eds +a", "lds +l")
}

// A changed EDS cluster stays warming until its endpoints come again, so they follow although they are equal, before
// the answer to the cluster, and the listener that changed with them does not wait for that answer.
func TestChangedClusterRefreshesEndpoints(t *testing.T) {
	b := shop(t)
	b.put(cds, b.item("a"))
	b.put(lds, b.item("l", "a"))
	var got []*delta.Message
	for m := b.next(); m != nil; m = b.next() {
		got = append(got, m)
	}
	expect(t, got, "cds +a", "eds +a", "lds +l")
	b.settle()
	b.equal()
}

// Endpoints of a new cluster exist but the peer can subscribe only after it has the cluster: the listener waits.
func TestListenerWaitsForNewClustersEndpoints(t *testing.T) {
	s := delta.New(envoyOrder())
	w := world{}
	w.put(cds, &item{name: "a", version: "1"})
	w.put(eds, &item{name: "a", version: "1"})
	w.put(lds, &item{name: "l", version: "1", refs: []string{"a"}})
	now := time.Unix(0, 0)
	must(t, s.Subscribe(cds, nil, nil, nil))
	must(t, s.Subscribe(lds, nil, nil, nil))
	m, _ := s.Next(w, now)
	expect(t, []*delta.Message{m}, "cds +a")
	if m, _ = s.Next(w, now); m != nil {
		t.Fatalf("%s overtakes endpoints", m.Type)
	}
	must(t, s.Subscribe(eds, []string{"a"}, nil, nil))
	m, _ = s.Next(w, now)
	l, _ := s.Next(w, now)
	expect(t, []*delta.Message{m, l}, "eds +a", "lds +l")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRemovalsLast(t *testing.T) {
	b := shop(t)
	start := b.now
	b.del(cds, "a")
	b.del(eds, "a")
	b.put(lds, b.item("m", "b"))
	b.del(lds, "l")
	expect(t, b.settle(), "lds +m", "lds -l", "cds -a")
	if took := b.now.Sub(start); took != 2*drain {
		t.Fatalf("drained for %s", took)
	}
	b.equal()
}

// Steady changes must not keep removals and convergence waiting for ever.
func TestSteadyChangesStarveNothing(t *testing.T) {
	b := shop(t)
	b.put(lds, b.item("l", "b"))
	b.del(cds, "a")
	b.rev = 1
	b.s.Target(1)
	removed := false
	for range 30 {
		b.put(eds, b.item("b"))
		b.rev++
		b.s.Target(b.rev)
		for m := b.next(); m != nil; m = b.next() {
			removed = removed || slices.Contains(m.Removed, "a") && m.Type == cds
		}
		b.put(eds, b.item("b")) // always something unsent when the answer comes
		for _, typ := range []string{lds, eds, cds} {
			b.p.answer(b.s, typ, b.now)
		}
		b.now = b.now.Add(time.Second)
	}
	if !removed {
		t.Fatal("the removal starved")
	}
	if lag := b.rev - b.s.Reached(); lag > 2 {
		t.Fatalf("convergence lags by %d rounds", lag)
	}
}

func TestRefusalSetsAsideTheGuilty(t *testing.T) {
	for _, names := range []bool{true, false} {
		t.Run(fmt.Sprint("named=", names), func(t *testing.T) {
			b := newBench(t)
			b.p.names = names
			for i := range 64 {
				c := b.item(fmt.Sprintf("l%02d", i))
				c.bad = i == 23 || i == 47
				b.w.put(lds, c)
			}
			b.connect()
			ms := b.settle()
			b.equal()
			var got []string
			for _, r := range b.s.Rejections() {
				got = append(got, r.Name)
			}
			if !slices.Equal(got, []string{"l23", "l47"}) {
				t.Fatalf("set aside: %v", got)
			}
			limit := 3 // the empty answer of CDS, the refused one, the rest
			if !names {
				limit = 2 + 4*6 // two halves per level and guilty one
			}
			if len(ms) > limit {
				t.Fatalf("%d messages", len(ms))
			}
			// Marked but not replaced: nothing. Replaced: sent, and forgotten.
			b.s.ChangedAll(lds)
			expect(t, b.settle())
			b.put(lds, b.item("l23"))
			expect(t, b.settle(), "lds +l23")
			if r := b.s.Rejections(); len(r) != 1 || r[0].Name != "l47" {
				t.Fatalf("set aside: %v", r)
			}
		})
	}
}

// While a listener is refused the peer serves its last good version, so what that one names stays.
func TestRefusedListenerPinsItsClusters(t *testing.T) {
	b := shop(t)
	i := b.item("l", "b")
	i.bad = true
	b.put(lds, i)
	b.del(cds, "a")
	b.settle()
	if b.p.has[cds]["a"] == nil || b.s.Draining() != 1 {
		t.Fatal("the cluster of the last good listener is removed")
	}
	b.put(lds, b.item("l", "b"))
	expect(t, b.settle(), "lds +l", "cds -a")
}

// A peer that drops a name and asks for it anew while the item is on its way takes that item. If it then refuses the
// next one it has the first, which may name what shall go.
func TestAskedAnewWhileInFlight(t *testing.T) {
	b := shop(t)
	b.p.subscribe(b.s, rds, "r")
	b.settle()
	b.put(rds, b.item("r", "a"))
	b.next()
	b.p.unsubscribe(b.s, rds, "r")
	b.p.subscribe(b.s, rds, "r")
	i := b.item("r", "b")
	i.bad = true
	b.put(rds, i)
	b.put(lds, b.item("l", "b"))
	b.del(cds, "a")
	b.settle()
	b.equal()
	if b.p.has[rds]["r"] == nil || b.p.has[cds]["a"] == nil {
		t.Fatal("the cluster of the last good route is removed")
	}
}

// Envoy applies the innocents of a message that it refuses. One of them may name what shall go, and its successor be
// refused.
func TestInnocentOfARefusedMessagePins(t *testing.T) {
	b := shop(t)
	b.p.partial = true
	bad := func(name string, refs ...string) *item {
		i := b.item(name, refs...)
		i.bad = true
		return i
	}
	b.put(lds, b.item("innocent", "a"))
	b.put(lds, bad("guilty"))
	b.next()
	b.put(lds, bad("innocent", "b"))
	b.p.answer(b.s, lds, b.now)
	b.put(lds, b.item("l", "b"))
	b.del(cds, "a")
	b.settle()
	b.equal()
}

// That a thing does not exist is an answer which can be lost in a refused message like any other, however often the
// peer asks.
func TestRefusedAnswerThatItDoesNotExist(t *testing.T) {
	b := shop(t)
	i := b.item("b")
	i.bad = true
	b.put(eds, i)
	b.del(eds, "a")
	b.p.subscribe(b.s, eds, "a")
	expect(t, []*delta.Message{b.next()}, "eds +b -a")
	b.p.subscribe(b.s, eds, "a") // while the answer is on its way
	b.p.answer(b.s, eds, b.now)
	b.p.subscribe(b.s, eds, "b")
	expect(t, []*delta.Message{b.next()}, "eds +b -a")
	b.settle()
	b.equal()
}

// What is refused after the peer dropped the name and asked for it anew is no judgement of what it gets then.
func TestAskedAnewAndRefused(t *testing.T) {
	b := newBench(t)
	i := b.item("r")
	i.bad = true
	b.w.put(rds, i)
	b.connect()
	b.settle()
	b.p.subscribe(b.s, rds, "r")
	b.next()
	b.put(rds, b.item("r"))
	b.p.unsubscribe(b.s, rds, "r")
	b.p.subscribe(b.s, rds, "r")
	b.settle()
	b.equal()
}

// Two listeners cannot have one address: the new one is refused until the old one is gone.
func TestRefusedIsTriedAgainAfterRemoval(t *testing.T) {
	b := shop(t)
	i := b.item("m", "a", "b")
	i.bad = true
	b.put(lds, i)
	b.del(lds, "l")
	for m := b.next(); m != nil; m = b.next() {
	}
	b.p.answer(b.s, lds, b.now)
	b.next()
	if len(b.s.Rejections()) != 1 {
		t.Fatal("not set aside")
	}
	i.bad = false
	expect(t, b.settle(), "lds -l", "lds +m")
	b.equal()
}

func TestNamedReadsEnvoysTexts(t *testing.T) {
	items := []delta.Item{&item{name: "a"}, &item{name: "a_b"}, &item{name: "c"}}
	for _, c := range []struct {
		text string
		want map[string]string
	}{
		{"Error adding/updating listener(s) a_b: error adding listener: 'c' has duplicate address\n", map[string]string{"a_b": "error adding listener: 'c' has duplicate address"}},
		{"Error adding/updating listener(s) a: x\na_b: y\n", map[string]string{"a": "x", "a_b": "y"}},
		{"Error adding/updating cluster(s) c: x: y, a: z", map[string]string{"c": "x: y", "a": "z"}},
		{"a wrong c", map[string]string{}},
		{"", map[string]string{}},
	} {
		if got := delta.Named(c.text, items); !maps.Equal(got, c.want) {
			t.Errorf("%q: %v", c.text, got)
		}
	}
}

// Work follows the change: one changed name of a large state costs one look and one item.
func TestCostFollowsTheChange(t *testing.T) {
	b := newBench(t)
	for i := range 10000 {
		b.w.put(lds, b.item(fmt.Sprint(i)))
	}
	b.connect()
	b.settle()
	before := b.s.Stats()
	b.put(lds, b.item("77"))
	b.s.Changed(lds, "78") // equal
	b.s.Changed(rds, "77") // not subscribed
	expect(t, b.settle(), "lds +77")
	after := b.s.Stats()
	if looks, items, messages := after.Looks-before.Looks, after.Items-before.Items, after.Messages-before.Messages; looks != 2 || items != 1 || messages != 1 {
		t.Fatalf("%d looks, %d items, %d messages", looks, items, messages)
	}
}

// A change of many names that sessions share costs each of them its looks, in the order of the list, cut where a message
// is full; what is marked meanwhile finds its place.
func TestSharedList(t *testing.T) {
	b := newBench(t)
	var names []string
	for i := range 1000 {
		n := fmt.Sprintf("%03d", i)
		names = append(names, n)
		b.w.put(lds, b.item(n))
	}
	b.connect()
	b.settle()
	before := b.s.Stats()
	for _, n := range names {
		b.w.put(lds, b.item(n)).size = 1<<20/500 + 1 // 499 in a message
	}
	b.s.ChangedMany(lds, names)
	b.s.ChangedMany(eds, names) // not subscribed
	first := b.next()
	if len(first.Items) != 499 || first.Items[0].ItemName() != "000" || first.Items[498].ItemName() != "498" {
		t.Fatalf("%d items", len(first.Items))
	}
	b.del(lds, "700")
	b.s.ChangedMany(lds, []string{"100", "700", "900"}) // 100 is in flight, and 900 waits
	b.put(lds, b.item("5000"))
	var got []string
	for _, m := range b.settle() {
		for _, x := range m.Items {
			got = append(got, x.ItemName())
		}
	}
	want := slices.Sorted(slices.Values(slices.Concat(names[499:700], names[701:], []string{"5000"})))
	if !slices.Equal(got, want) {
		t.Fatalf("sent %v", got)
	}
	after := b.s.Stats()
	if looks := after.Looks - before.Looks; looks != 1000+4 {
		t.Fatalf("%d looks", looks)
	}
	b.equal()
}

// A session that is behind holds names, not a list for each round.
func TestListsDoNotQueueUp(t *testing.T) {
	b := shop(t)
	for range 1000 {
		b.s.ChangedMany(eds, []string{"a", "b"})
	}
	if n := b.s.Behind(); n > 50 {
		t.Fatalf("behind by %d", n)
	}
	expect(t, b.settle())
	b.equal()
}

func TestNameThatDoesNotExist(t *testing.T) {
	b := newBench(t)
	b.connect()
	b.settle()
	b.p.subscribe(b.s, eds, "x")
	expect(t, b.settle(), "eds -x")
	b.s.Changed(eds, "x")
	expect(t, b.settle())
	b.put(eds, b.item("x"))
	expect(t, b.settle(), "eds +x")
}

func TestUnknownType(t *testing.T) {
	if err := delta.New(envoyOrder()).Subscribe("zds", nil, nil, nil); err == nil {
		t.Fatal("served")
	}
}
