package plan_test

import (
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// A proxy that says its administration is elsewhere would make its listener a
// gateway: it gets neither listener nor cluster, and all else.
func TestAdministrationElsewhere(t *testing.T) {
	w := newWorld(t)
	w.documents(t, "east", "type: Dataplane\nmesh: default\nname: web\nnetworking: {address: 10.0.0.1, inbound: [{port: 80, name: http}]}")
	c := connected{Name: "web", AdminPort: 9901, ReadinessPort: 9902, AdminAddress: "10.0.0.9"}
	w.connect(c)
	p, err := incr.Peek(w.engine(), plan.Proxy.Ref(c.id()))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Get(wire.Listener, "self_inbound_dp_http"); !ok {
		t.Error("the inbound is missing")
	}
	for _, name := range []string{"system_envoy_admin", "system_probe_readiness"} {
		if _, ok := p.Get(wire.Cluster, name); ok {
			t.Errorf("there is a cluster %s to an address that the proxy chose", name)
		}
	}
	ref, ok := p.Get(wire.Listener, "system_envoy_admin")
	if !ok {
		t.Fatal("nobody is told of the fault")
	}
	res, err := incr.Peek(w.engine(), ref)
	if res != nil || err == nil || !strings.Contains(err.Error(), `"10.0.0.9", which is none of 127.0.0.1`) {
		t.Errorf("listener %v, error %v", res, err)
	}
	who, err := incr.Peek(w.engine(), plan.IdentityOf.Ref(c.id()))
	if err != nil || who.Admin != "" {
		t.Errorf("a certificate is wanted for %q (%v)", who.Admin, err)
	}
}
