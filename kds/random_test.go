package kds_test

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
)

// step is one random event of a federation.
type step struct {
	what  int // 0..5 write, 6 delete, 7 cut, 8 join, 9 restart, 10 let time pass
	where int // 0 global, 1 east, 2 west
	name  int
	value int
}

// TestHealed writes, deletes, cuts and restarts at random. Once the network is
// whole, every control plane has exactly what it should have.
func TestHealed(t *testing.T) {
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, 10).Draw(t, "what"), rapid.IntRange(0, 2).Draw(t, "where"), rapid.IntRange(0, 3).Draw(t, "name"), rapid.IntRange(1, 4).Draw(t, "value")}
	}), 1, 40)
	rapid.Check(t, func(rt *rapid.T) {
		var wrong []string
		plan := steps.Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) { wrong = live(t, plan) })
		if len(wrong) > 0 {
			rt.Fatal(wrong)
		}
	})
}

func live(t *testing.T, plan []step) (wrong []string) {
	f := newFederation(t, "east", "west")
	defer f.close()
	names := []string{"", "east", "west"}
	at := func(i int) *plane {
		if i == 0 {
			return f.global
		}
		return f.zones[names[i]]
	}
	for _, s := range plan {
		p, name := at(s.where), fmt.Sprintf("n%d", s.name)
		switch s.what {
		case 7, 8:
			if s.where > 0 {
				f.net.part(names[s.where], s.what == 7)
			}
		case 9:
			p.stop()
			p.start()
			if <-p.feeder.Ready(); s.where == 0 {
				f.serve(nil)
			} else {
				f.link(names[s.where], nil)
			}
		case 10:
			time.Sleep(time.Duration(s.value) * 700 * time.Millisecond)
		default:
			k, spec := api.AnyKind(api.MeshTimeouts), timeout(s.value)
			if s.where > 0 && s.value%2 == 0 {
				k, spec = api.MeshServices, serviceSpec
			}
			if s.what == 6 {
				p.remove(api.LocalID(k, "default", "", name, p.site))
			} else {
				p.put(k, "default", name, spec, api.LabelOrigin, map[bool]string{true: "global", false: "zone"}[s.where == 0], "v", fmt.Sprint(s.value))
			}
		}
	}
	f.net.part("east", false)
	f.net.part("west", false)
	time.Sleep(2 * time.Minute)
	synctest.Wait()

	own := func(i int, k api.AnyKind) map[string]string { return contents(at(i), k, "") }
	for i := 1; i <= 2; i++ {
		want := own(i, api.MeshTimeouts)
		if got := contents(f.global, api.MeshTimeouts, names[i]); !maps.Equal(got, want) {
			wrong = append(wrong, fmt.Sprintf("policies of %s at global: %v, want %v", names[i], got, want))
		}
		if got := contents(f.global, api.MeshServices, names[i]); !maps.Equal(got, own(i, api.MeshServices)) {
			wrong = append(wrong, fmt.Sprintf("services of %s at global: %v", names[i], got))
		}
		if got, want := contents(at(i), api.MeshTimeouts, api.Global), own(0, api.MeshTimeouts); !maps.Equal(got, want) {
			wrong = append(wrong, fmt.Sprintf("policies of global in %s: %v, want %v", names[i], got, want))
		}
		if got, want := contents(at(i), api.MeshServices, api.Global), own(3-i, api.MeshServices); !maps.Equal(got, want) {
			wrong = append(wrong, fmt.Sprintf("services of the other zone in %s: %v, want %v", names[i], got, want))
		}
		st, here := f.status(names[i]), f.links[names[i]].Status()
		if st.Behind+here.Behind > 0 || here.Applied != here.Received || !st.Connected || st.Applied != st.Received {
			wrong = append(wrong, fmt.Sprintf("%s is not in step: %+v, %+v", names[i], st, here))
		}
	}
	return wrong
}

// contents is what a control plane holds of one source: ID → spec and label.
func contents(p *plane, k api.AnyKind, source string) map[string]string {
	out := map[string]string{}
	for row := range k.AllRows(p.db.Snapshot()) {
		if m := row.Head(); m.Source == source {
			out[m.ID.String()] = string(row.Raw()) + m.Label("v")
		}
	}
	return out
}
