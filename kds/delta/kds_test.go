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

func kdsOrder(maxBytes int) *delta.Order {
	return &delta.Order{Kinds: []delta.Kind{{Type: "Mesh"}, {Type: "Dataplane"}}, Together: true, MaxBytes: maxBytes, AnswerEmpty: true, Extra: 1}
}

// replica is a control plane: the first state of a type replaces what it has, once it is complete.
type replica struct {
	has     map[string]map[string]string
	first   map[string]map[string]bool // names of the first state, while it is not complete
	pending map[string]*delta.Message
}

func (r *replica) receive(m *delta.Message) {
	if r.pending[m.Type] != nil {
		panic("two messages of a type in flight")
	}
	r.pending[m.Type] = m
}

func (r *replica) apply(m *delta.Message) {
	if r.has[m.Type] == nil {
		r.has[m.Type] = map[string]string{}
	}
	for _, x := range m.Items {
		r.has[m.Type][x.ItemName()] = x.ItemVersion()
	}
	for _, n := range m.Removed {
		delete(r.has[m.Type], n)
	}
	if !m.First {
		return
	}
	if r.first[m.Type] == nil {
		r.first[m.Type] = map[string]bool{}
	}
	for _, x := range m.Items {
		r.first[m.Type][x.ItemName()] = true
	}
	if m.Last {
		maps.DeleteFunc(r.has[m.Type], func(n, _ string) bool { return !r.first[m.Type][n] })
		r.first[m.Type] = nil
	}
}

// Between control planes: everything is a wildcard, removals travel with additions, a first state is cut and its last
// part is marked, a peer that says nothing about what it has gets a full state.
func TestControlPlanesEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := world{}
		r := &replica{has: map[string]map[string]string{}}
		var s *delta.Session
		version := 0
		order := kdsOrder(rapid.SampledFrom([]int{0, 250}).Draw(t, "max"))
		connect := func() {
			s = delta.New(order)
			r.first, r.pending = map[string]map[string]bool{}, map[string]*delta.Message{}
			for _, k := range []string{"Dataplane", "Mesh"} {
				if err := s.Subscribe(k, []string{delta.All}, nil, nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		connect()
		kind := rapid.SampledFrom([]string{"Mesh", "Dataplane"})
		name := rapid.SampledFrom([]string{"a.", "b.", "c.", "d.", "e.", "f."})
		answer := func(k string) bool {
			m := r.pending[k]
			if m == nil {
				return false
			}
			delete(r.pending, k)
			bad := ""
			for _, x := range m.Items {
				if x.(*item).bad {
					bad = "spec: must be good" // nameless
				}
			}
			if bad == "" { // a refused one stays out, the rest of its message comes again
				r.apply(m)
			} else if m.First {
				r.apply(&delta.Message{Type: k, First: true, Last: m.Last})
			}
			if bad != "" { // the contract's refusal subscribes again
				_ = s.Subscribe(k, []string{delta.All}, nil, nil)
			}
			if !s.Ack(k, m.Nonce, bad) {
				t.Fatal("answer not known")
			}
			return true
		}
		next := func() bool {
			m, wake := s.Next(w, time.Time{})
			if !wake.IsZero() {
				t.Fatal("nothing here takes time")
			}
			if m == nil {
				return false
			}
			size := 0
			for _, x := range m.Items {
				size += x.Size()
			}
			if order.MaxBytes > 0 && size > order.MaxBytes && len(m.Items) > 1 {
				t.Fatalf("message of %d bytes", size)
			}
			if m.First && !m.Last && len(m.Removed) > 0 {
				t.Fatal("removal before the last part")
			}
			r.receive(m)
			return true
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				version++
				k := kind.Draw(t, "kind")
				i := w.put(k, &item{name: name.Draw(t, "name"), version: strconv.Itoa(version), bad: rapid.IntRange(0, 7).Draw(t, "bad") == 0})
				s.Changed(k, i.name)
			},
			"delete": func(t *rapid.T) {
				k, n := kind.Draw(t, "kind"), name.Draw(t, "name")
				delete(w[k], n)
				s.Changed(k, n)
			},
			"next":      func(t *rapid.T) { next() },
			"answer":    func(t *rapid.T) { answer(kind.Draw(t, "kind")) },
			"reconnect": func(t *rapid.T) { connect() },
		})
		for next() || answer("Mesh") || answer("Dataplane") {
		}
		if !s.Converged() || s.Behind() != 0 || s.Draining() != 0 {
			t.Fatal("answered but not converged")
		}
		for k, items := range w {
			for n, i := range items {
				if !i.bad && r.has[k][n] != i.version {
					t.Fatalf("%s %s: replica has %q, should have %s", k, n, r.has[k][n], i.version)
				}
			}
			for n := range r.has[k] {
				if items[n] == nil {
					t.Fatalf("%s %s is left over", k, n)
				}
			}
		}
		if n := s.Leftovers(); n != len(s.Rejections()) {
			t.Fatalf("%d things left over", n)
		}
	})
}

func TestFirstStateIsCut(t *testing.T) {
	w := world{}
	for i := range 10 {
		w.put("Mesh", &item{name: fmt.Sprint(i), version: "1", size: 100})
	}
	w.put("Mesh", &item{name: "5", version: "1", size: 1000}) // larger than a message: alone
	s := delta.New(kdsOrder(300))
	must(t, s.Subscribe("Mesh", []string{delta.All}, nil, map[string]string{"old": "1", "0": "1"}))
	var got []string
	for m, _ := s.Next(w, time.Time{}); m != nil; m, _ = s.Next(w, time.Time{}) {
		got = append(got, fmt.Sprint(describe([]*delta.Message{m}), m.First, m.Last))
		if m, _ := s.Next(w, time.Time{}); m != nil {
			t.Fatal("second message in flight")
		}
		s.Ack("Mesh", m.Nonce, "")
	}
	want := []string{"[Mesh +1 +2 +3] true false", "[Mesh +4] true false", "[Mesh +5] true false", "[Mesh +6 +7 +8] true false", "[Mesh +9 -old] true true"}
	if !slices.Equal(got, want) {
		t.Fatalf("\n got %q\nwant %q", got, want)
	}
}

func TestUnknownKindIsAnsweredEmpty(t *testing.T) {
	s := delta.New(kdsOrder(0))
	must(t, s.Subscribe("ZoneIngress", []string{delta.All}, nil, nil))
	m, _ := s.Next(world{}, time.Time{})
	if m == nil || len(m.Items)+len(m.Removed) > 0 || !m.First || !m.Last {
		t.Fatalf("%+v", m)
	}
	if s.Converged() {
		t.Fatal("converged without an answer")
	}
	s.Ack("ZoneIngress", m.Nonce, "")
	must(t, s.Subscribe("ZoneIngress", []string{delta.All}, nil, nil))
	if m, _ := s.Next(world{}, time.Time{}); m != nil || !s.Converged() {
		t.Fatal("subscribing again is answered again")
	}
	if err := s.Subscribe("ZoneEgress", []string{delta.All}, nil, nil); err == nil {
		t.Fatal("a peer can make us keep any number of kinds")
	}
}

// A refused removal is set aside too, and not repeated until the name is marked.
func TestRefusedRemoval(t *testing.T) {
	w := world{}
	w.put("Mesh", &item{name: "a", version: "1"})
	s := delta.New(kdsOrder(0))
	must(t, s.Subscribe("Mesh", []string{delta.All}, nil, nil))
	m, _ := s.Next(w, time.Time{})
	s.Ack("Mesh", m.Nonce, "")
	delete(w["Mesh"], "a")
	s.Changed("Mesh", "a")
	m, _ = s.Next(w, time.Time{})
	expect(t, []*delta.Message{m}, "Mesh -a")
	s.Ack("Mesh", m.Nonce, "in use")
	if m, _ = s.Next(w, time.Time{}); m != nil {
		t.Fatal("repeated")
	}
	want := delta.Rejection{Type: "Mesh", Name: "a", Error: "in use"}
	if r := s.Rejections(); len(r) != 1 || r[0] != want || s.Held("Mesh")["a"] != "1" {
		t.Fatalf("%+v, held %v", r, s.Held("Mesh"))
	}
	s.Changed("Mesh", "a")
	m, _ = s.Next(w, time.Time{})
	expect(t, []*delta.Message{m}, "Mesh -a")
	s.Ack("Mesh", m.Nonce, "")
	if len(s.Held("Mesh")) != 0 || s.Plan() != 0 || s.Leftovers() != 0 {
		t.Fatal("not forgotten")
	}
}
