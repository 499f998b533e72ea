package derive_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/zone/derive"
)

var site = api.Site{Zone: "east", Env: "universal"}

const grace = time.Hour

type instance struct {
	t      *testing.T
	db     *db.DB
	feeder *store.Feeder
	ctx    context.Context
}

func newInstance(t *testing.T, data *memory.Database) *instance {
	log := slog.New(slog.DiscardHandler)
	i := &instance{t: t, db: db.New(api.Schema)}
	i.feeder = store.NewFeeder(data.Open(), i.db, site, log)
	ctx, cancel := context.WithCancel(context.Background())
	i.ctx = ctx
	var all sync.WaitGroup
	all.Go(func() { _ = i.feeder.Run(ctx) })
	all.Go(func() {
		<-i.feeder.Ready()
		_ = derive.Run(ctx, derive.Options{DB: i.db, Apply: i.feeder.Apply, Site: site, Grace: grace, Now: time.Now, Log: log})
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	return i
}

func (i *instance) put(text string) {
	i.t.Helper()
	body, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		i.t.Fatal(err)
	}
	var r api.Report
	doc, kind := api.ParseDocument(body, &r)
	if err := r.Err(); err != nil {
		i.t.Fatal(err)
	}
	id := api.LocalID(kind, doc.Mesh, "", doc.Name, site)
	rec := store.Record{ID: id, Labels: api.ComputeLabels(kind, id, doc.Labels, site), Created: time.Now(), Modified: time.Now(), Spec: doc.Spec}
	if kind == api.AnyKind(api.Dataplanes) {
		row := kind.Decode(api.Meta{ID: id, Labels: rec.Labels}, doc.Spec, true, &r)
		rec.Labels = row.Head().Labels
	}
	if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: rec}}); err != nil {
		i.t.Fatal(err)
	}
	synctest.Wait()
}

func (i *instance) drop(k api.AnyKind, name string) {
	i.t.Helper()
	if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: store.Record{ID: api.LocalID(k, "default", "", name, site)}, Delete: true}}); err != nil {
		i.t.Fatal(err)
	}
	synctest.Wait()
}

func (i *instance) service(name string) *api.Object[api.MeshService] {
	synctest.Wait()
	o, _ := api.MeshServices.Get(i.db.Snapshot(), api.LocalID(api.MeshServices, "default", "", name, site))
	return o
}

func (i *instance) addresses() string {
	synctest.Wait()
	out := ""
	for a := range api.MeshZoneAddresses.In(i.db.Snapshot(), "default") {
		out += fmt.Sprintf("%s=%s:%d ", a.Name, a.Spec.Address, a.Spec.Port)
	}
	return out
}

func (i *instance) revision() uint64 {
	synctest.Wait()
	r, _ := api.Revisions.Get(i.db.Snapshot(), "")
	return r.Counter
}

func ports(s *api.Object[api.MeshService]) string {
	if s == nil {
		return "none"
	}
	out := ""
	for _, p := range s.Spec.Ports {
		out += fmt.Sprintf("%s/%d/%s ", p.Name, p.Port, p.AppProtocol)
	}
	return out
}

func dataplane(name, workload string, ports ...int) string {
	text := fmt.Sprintf("type: Dataplane\nmesh: default\nname: %s\nlabels: {kuma.io/workload: %s}\nnetworking:\n  address: 10.0.0.1\n  inbound:\n", name, workload)
	for _, p := range ports {
		text += fmt.Sprintf("    - {port: %d, protocol: http}\n", p)
	}
	return text
}

const mesh = "type: Mesh\nname: default"

func TestServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		i.put(dataplane("cart-1", "cart", 8080))
		s := i.service("cart")
		if ports(s) != "8080/8080/http " || s.Owner != derive.ServiceOwner || s.Label(api.LabelManagedBy) != derive.ServiceOwner {
			t.Fatalf("derived %s of %q with %v", ports(s), s.Owner, s.Labels)
		}
		at := i.revision()
		time.Sleep(time.Second)
		i.put(dataplane("cart-2", "cart", 8080))
		if n := i.revision() - at; n != 1 {
			t.Errorf("%d writes for a further proxy, want its own", n)
		}
		// Proxies disagree: what is there stays as long as somebody has it.
		time.Sleep(time.Second)
		i.put(dataplane("cart-3", "cart", 9090))
		if got := ports(i.service("cart")); got != "8080/8080/http " {
			t.Errorf("ports in conflict %s", got)
		}
		i.drop(api.Dataplanes, "cart-1")
		if got := ports(i.service("cart")); got != "8080/8080/http " {
			t.Errorf("ports in conflict %s", got)
		}
		i.drop(api.Dataplanes, "cart-2")
		if got := ports(i.service("cart")); got != "9090/9090/http " {
			t.Errorf("ports of the only one %s", got)
		}
		// A name that no service can have derives nothing, and stops nobody.
		i.put(dataplane("odd", "Not_A.Label", 80))
		i.put(dataplane("web-1", "web", 80, 81))
		if got := ports(i.service("web")); got != "80/80/http 81/81/http " {
			t.Errorf("web %s", got)
		}
	})
}

func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		i.put(dataplane("cart-1", "cart", 8080))
		i.drop(api.Dataplanes, "cart-1")
		if s := i.service("cart"); s == nil || s.Label(api.LabelGraceSince) == "" {
			t.Fatal("without proxies: not marked, or gone at once")
		}
		time.Sleep(grace / 2)
		i.put(dataplane("cart-2", "cart", 8080))
		if s := i.service("cart"); s.Label(api.LabelGraceSince) != "" {
			t.Error("with a proxy: still marked")
		}
		time.Sleep(2 * grace)
		if i.service("cart") == nil {
			t.Fatal("gone although it has a proxy")
		}
		i.drop(api.Dataplanes, "cart-2")
		time.Sleep(grace / 2)
		i.put(dataplane("web-1", "web", 80)) // what happens to others does not make it forgotten
		time.Sleep(grace/2 - 2*time.Second)
		if i.service("cart") == nil {
			t.Error("gone before the grace was over")
		}
		time.Sleep(4 * time.Second)
		if i.service("cart") != nil {
			t.Error("there after the grace")
		}
		at := i.revision()
		time.Sleep(10 * grace)
		if n := i.revision() - at; n != 0 {
			t.Errorf("%d writes while nothing happened", n)
		}
	})
}

func TestServiceWrittenByHandStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		i.put("type: MeshService\nmesh: default\nname: cart\nspec: {selector: {dataplaneLabels: {matchLabels: {app: x}}}, ports: [{port: 1, name: mine, appProtocol: tcp}]}")
		i.put(dataplane("cart-1", "cart", 8080))
		i.drop(api.Dataplanes, "cart-1")
		time.Sleep(2 * grace)
		if got := ports(i.service("cart")); got != "mine/1/tcp " {
			t.Errorf("the user's service became %s", got)
		}
		i.put(dataplane("cart-1", "cart", 8080))
		i.drop(api.MeshServices, "cart") // now there is room for the derived one
		if got := ports(i.service("cart")); got != "8080/8080/http " {
			t.Errorf("after the user's service was deleted: %s", got)
		}
		i.drop(api.MeshServices, "cart") // a derived one that somebody deletes comes back
		if got := ports(i.service("cart")); got != "8080/8080/http " {
			t.Errorf("after the derived service was deleted: %s", got)
		}
	})
}

func ingress(name, address string) string {
	return fmt.Sprintf("type: Dataplane\nmesh: default\nname: %s\nnetworking: {address: 10.0.0.9, listeners: [{type: ZoneIngress, name: in, address: %s, port: 10001}]}", name, address)
}

func (i *instance) connect(name string, yes bool) {
	id := api.LocalID(api.Dataplanes, "default", "", name, site)
	if _, err := i.db.Write(func(tx *db.Tx) error {
		if yes {
			api.Connections.Put(tx, &api.Connection{Proxy: id, Instance: "one", Stream: 1})
		} else {
			api.Connections.Delete(tx, id.Key())
		}
		return nil
	}); err != nil {
		i.t.Fatal(err)
	}
}

func TestZoneAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New())
		i.put(mesh)
		i.put(ingress("gate", "192.0.2.1"))
		if got := i.addresses(); got != "" {
			t.Errorf("announced before it can be reached: %s", got)
		}
		i.connect("gate", true)
		if got := i.addresses(); got != "gate=192.0.2.1:10001 " {
			t.Errorf("connected: %s", got)
		}
		i.connect("gate", false) // losing sight of it changes nothing
		if got := i.addresses(); got != "gate=192.0.2.1:10001 " {
			t.Errorf("out of sight: %s", got)
		}
		i.put(ingress("gate", "192.0.2.2"))
		if got := i.addresses(); got != "gate=192.0.2.2:10001 " {
			t.Errorf("moved: %s", got)
		}
		i.put("type: MeshZoneAddress\nmesh: default\nname: mine\nspec: {address: lb.example, port: 443}")
		if got := i.addresses(); got != "mine=lb.example:443 " {
			t.Errorf("beside one written by hand: %s", got)
		}
		i.connect("gate", true)
		i.drop(api.MeshZoneAddresses, "mine")
		if got := i.addresses(); got != "gate=192.0.2.2:10001 " {
			t.Errorf("after the one written by hand went: %s", got)
		}
		i.drop(api.Dataplanes, "gate")
		if got := i.addresses(); got != "" {
			t.Errorf("without the ingress: %s", got)
		}
	})
}

// Two instances derive the same rows at once: who is second writes nothing.
func TestTwoInstancesDoNotFight(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			data := memory.New()
			one, two := newInstance(t, data), newInstance(t, data)
			one.put(mesh)
			one.put(dataplane("cart-1", "cart", 8080))
			one.put(dataplane("web-1", "web", 80))
			two.put(ingress("gate", "192.0.2.1"))
			one.connect("gate", true) // only one instance has its stream
			if got := one.revision(); got != 4+5 {
				t.Errorf("revision %d, want 4 writes of users, 3 derived services and 2 workloads", got)
			}
			two.drop(api.Dataplanes, "cart-1")
			at := one.revision()
			time.Sleep(grace + 2*time.Second)
			if one.service("cart") != nil || two.service("cart") != nil {
				t.Error("the service outlives its grace")
			}
			if n := one.revision() - at; n != 1 {
				t.Errorf("%d writes to delete it, want 1", n)
			}
			if one.addresses() != two.addresses() || one.addresses() == "" {
				t.Errorf("addresses %q and %q", one.addresses(), two.addresses())
			}
			at = one.revision()
			time.Sleep(10 * grace)
			if n := one.revision() - at; n != 0 {
				t.Errorf("%d writes while nothing happened", n)
			}
		})
	}
}
