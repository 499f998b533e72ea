package identity_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

// Under a Mesh in the form of earlier releases proxies have the IDs that they
// had then, from the authority that it names.
func TestMeshOfEarlierReleases(t *testing.T) {
	for _, c := range []struct{ sort, backend string }{
		{"builtin", "{name: ca-1, type: builtin, dpCert: {rotation: {expiration: 1d}}}"},
		{"provided", "{name: ca-1, type: provided, dpCert: {rotation: {expiration: 1d}}, conf: {cert: {secret: c}, key: {secret: k}}}"},
	} {
		t.Run(c.sort, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				i := newInstance(t, memory.New(), "one")
				cert, key := own(t, "company")
				i.secret("c", cert)
				i.secret("k", key)
				i.put("type: Mesh\nname: default\nmtls: {enabledBackend: ca-1, backends: [" + c.backend + "]}")
				i.run()
				synctest.Wait()
				m, _ := api.Meshes.Named(i.db.Snapshot(), "", "default")
				for _, row := range api.MeshRows(m, site) {
					if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: store.RecordOf(row), Expect: store.Absent}}); err != nil {
						t.Fatal(err)
					}
				}
				i.put("type: Dataplane\nmesh: default\nname: cart-1\nnetworking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: cart}}]}")
				i.connect("cart-1")
				synctest.Wait()

				trust, ok := api.MeshTrusts.Get(i.db.Snapshot(), api.LocalID(api.MeshTrusts, "default", "", "mtls-ca-1", site))
				if !ok || trust.Spec.TrustDomain != "default" || len(trust.Spec.CABundles) != 1 {
					t.Fatalf("trust %+v", trust)
				}
				ca := trust.Spec.CABundles[0].PEM.Value
				if (ca == string(cert)) != (c.sort == "provided") {
					t.Errorf("the authority is the user's own: %v", ca == string(cert))
				}
				leaf := i.leaf("cart-1")
				if leaf == nil {
					t.Fatal("no leaf")
				}
				verify(t, leaf, ca)
				if leaf.SPIFFE != "spiffe://default/cart" {
					t.Errorf("ID %s", leaf.SPIFFE)
				}
				if life := time.Until(leaf.NotAfter); life != 24*time.Hour {
					t.Errorf("valid for %v", life)
				}
			})
		})
	}
}
