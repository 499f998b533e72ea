package derive_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

// zoneProxies lists the Dataplanes of all meshes: mesh/name(owner) and listeners.
func (i *instance) zoneProxies() string {
	synctest.Wait()
	var out []string
	for dp := range api.Dataplanes.All(i.db.Snapshot()) {
		text := fmt.Sprintf("%s/%s(%s)", dp.Mesh, dp.Name, dp.Owner)
		for _, l := range dp.Spec.Networking.Listeners {
			text += fmt.Sprintf(" %s=%s:%d", l.Type, l.Address, l.Port)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func (i *instance) want(what, want string) {
	i.t.Helper()
	if got := i.zoneProxies(); got != want {
		i.t.Errorf("%s\ngot  %s\nwant %s", what, got, want)
	}
}

const gate = "type: ZoneIngress\nname: gate\nlabels: {team: net}\nnetworking: {address: 10.0.0.9, port: 10001, admin: {port: 9902}, advertisedAddress: lb.example, advertisedPort: 443}"

func TestZoneProxiesOfEarlierReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		i.put(gate)
		const inDefault = "default/gate(zoneproxy-generator) ZoneIngress=10.0.0.9:10001"
		i.want("in the only mesh", inDefault)
		dp, _ := api.Dataplanes.Named(i.db.Snapshot(), "default", "gate")
		if dp.Label(api.LabelManagedBy) != api.ZoneProxyOwner || dp.Label("team") != "net" || dp.Label(api.LabelIngress) != "enabled" ||
			dp.Label(api.LabelMesh) != "default" || dp.Label(api.LabelZone) != "east" || dp.Spec.Networking.Admin.Port != 9902 {
			t.Errorf("%v %+v", dp.Labels, dp.Spec)
		}
		at := i.revision()
		time.Sleep(time.Hour)
		i.put(gate)
		if n := i.revision() - at; n > 1 {
			t.Errorf("%d writes for what is equal", n)
		}

		// Other meshes.
		i.put("type: Mesh\nname: shop")
		i.want("in all meshes", inDefault+"; shop/gate(zoneproxy-generator) ZoneIngress=10.0.0.9:10001")
		i.put(strings.Replace(gate, "team: net", "kuma.io/mesh: shop", 1))
		i.want("in the mesh of the label", "shop/gate(zoneproxy-generator) ZoneIngress=10.0.0.9:10001")
		i.put("type: ZoneEgress\nname: out\nlabels: {kuma.io/mesh: shop}\nnetworking: {address: 10.0.0.8, port: 10002}")
		i.want("an egress", "shop/gate(zoneproxy-generator) ZoneIngress=10.0.0.9:10001; shop/out(zoneproxy-generator) ZoneEgress=10.0.0.8:10002")
		i.drop(api.Meshes, "shop")
		i.want("the mesh is gone", "")
		i.put(gate)
		i.put("type: ZoneEgress\nname: out\nnetworking: {address: 10.0.0.8, port: 10003}")
		i.want("without labels", inDefault+"; default/out(zoneproxy-generator) ZoneEgress=10.0.0.8:10003")
		i.drop(api.ZoneEgresses, "out")
		i.want("without the egress", inDefault)

		// A Dataplane of somebody's own stands in its place.
		i.put(ingress("gate", "192.0.2.1"))
		i.want("a user's own", "default/gate() ZoneIngress=192.0.2.1:10001")
		i.drop(api.ZoneIngresses, "gate")
		i.want("a user's own stays", "default/gate() ZoneIngress=192.0.2.1:10001")
	})
}

// Other zones call what is advertised, once somebody is there.
func TestAdvertisedAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		i.put(gate)
		if got := i.addresses(); got != "" {
			t.Errorf("announced before it can be reached: %s", got)
		}
		i.connect("gate", true)
		if got := i.addresses(); got != "gate=lb.example:443 " {
			t.Errorf("connected: %s", got)
		}
		i.put(strings.Replace(gate, "lb.example", "lb2.example", 1))
		if got := i.addresses(); got != "gate=lb2.example:443 " {
			t.Errorf("moved: %s", got)
		}
		i.put(strings.Replace(gate, ", advertisedAddress: lb.example, advertisedPort: 443", "", 1))
		if got := i.addresses(); got != "" {
			t.Errorf("not advertised: %s", got)
		}
		i.put(gate)
		i.put(ingress("other", "192.0.2.1"))
		i.connect("other", true)
		if got := i.addresses(); got != "gate=lb.example:443 other=192.0.2.1:10001 " {
			t.Errorf("beside a Dataplane: %s", got)
		}
		i.drop(api.ZoneIngresses, "gate")
		if got := i.addresses(); got != "other=192.0.2.1:10001 " {
			t.Errorf("without it: %s", got)
		}
	})
}
