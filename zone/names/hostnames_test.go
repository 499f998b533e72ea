package names_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/hostname"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

// Host names enter as rows, of those services only that a change concerns.
func TestGenerate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New()
		i := newInstance(t, data.Open(), "241.0.0.0/8")
		names := func(k api.AnyKind, name string) string {
			synctest.Wait()
			h, ok := api.Hostnames.Get(i.db.Snapshot(), i.id(k, name).String())
			if !ok {
				return "none"
			}
			var out []string
			for _, a := range h.Addresses {
				out = append(out, a.Hostname)
			}
			for _, g := range h.Generators {
				out = append(out, g.Conditions[0].Reason)
			}
			return strings.Join(out, " ")
		}
		// touched counts the rows that a change wrote.
		touched := func(want int, what string) {
			t.Helper()
			synctest.Wait()
			if got := i.touched(api.Hostnames.Name()); got != want {
				t.Errorf("%s wrote %d rows of host names, want %d", what, got, want)
			}
		}
		for n := range 100 {
			i.put(api.MeshServices, fmt.Sprintf("s%02d", n), fmt.Sprint(n%10))
			time.Sleep(time.Second) // each is younger
		}
		touched(0, "services without a generator")
		i.generator("all", `{"meshService":{}}`, "{{ .DisplayName }}.svc.mesh.local")
		touched(100, "a generator of all")
		if got := names(api.MeshServices, "s07"); got != "s07.svc.mesh.local Generated" {
			t.Error(got)
		}
		i.generator("some", `{"meshService":{"matchLabels":{"app":"3"}}}`, "{{ .DisplayName }}.some.local")
		touched(10, "a generator of some")
		i.generator("external", `{"meshExternalService":{}}`, "{{ .DisplayName }}.ext.local")
		touched(0, "a generator of others")
		i.put(api.MeshExternalServices, "mail", "")
		touched(1, "a service")
		i.put(api.MeshServices, "s03", "3") // the same labels, written again
		touched(0, "a change of a spec")
		i.put(api.MeshServices, "s03", "4")
		touched(1, "a change of labels")
		if got := names(api.MeshServices, "s03"); got != "s03.svc.mesh.local Generated" {
			t.Error(got)
		}
		// One name for all with a label: the oldest has it. When it goes, the others
		// are told who has it now.
		i.generator("one", `{"meshService":{"matchLabels":{"app":"5"}}}`, "one.local")
		touched(10, "a generator of one name")
		if got := names(api.MeshServices, "s05"); got != "s05.svc.mesh.local one.local Generated Generated" {
			t.Error(got)
		}
		if got := names(api.MeshServices, "s15"); got != "s15.svc.mesh.local Generated Collision" {
			t.Error(got)
		}
		i.drop(api.MeshServices, "s05")
		touched(10, "the end of who had a name") // its own row and nine others
		if got := names(api.MeshServices, "s05") + ", " + names(api.MeshServices, "s15"); got != "none, s15.svc.mesh.local one.local Generated Generated" {
			t.Error(got)
		}
		i.drop(api.MeshServices, "s25")
		touched(1, "the end of who had none")
		i.drop(api.HostnameGenerators, "all")
		touched(98, "the end of a generator")
		if got := names(api.MeshServices, "s00"); got != "none" {
			t.Error(got)
		}

		// An instance that starts later finds the same.
		j := newInstance(t, data.Open(), "241.0.0.0/8")
		synctest.Wait()
		for _, k := range hostname.Kinds {
			for row := range k.AllRows(i.db.Snapshot()) {
				key := row.Head().ID.String()
				a, _ := api.Hostnames.Get(i.db.Snapshot(), key)
				b, _ := api.Hostnames.Get(j.db.Snapshot(), key)
				if text(a) != text(b) {
					t.Errorf("%s: %s, elsewhere %s", key, text(a), text(b))
				}
			}
		}
	})
}

func text(h *api.ServiceHostnames) string {
	if h == nil {
		return "none"
	}
	var out []string
	for _, g := range h.Generators {
		out = append(out, fmt.Sprint(g))
	}
	for _, a := range h.Addresses {
		out = append(out, a.Hostname, a.Generator.CoreName)
	}
	return strings.Join(out, " ")
}
