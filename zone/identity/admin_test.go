package identity_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

// certifies checks that a certificate of the administration is good for a name
// and one use, and for nothing else.
func certifies(t *testing.T, l *api.AdminLeaf, name string, use x509.ExtKeyUsage) {
	t.Helper()
	if l == nil {
		t.Fatalf("no certificate for %s", name)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(l.CA))
	c := parse(t, l.Chain)
	for _, u := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now(), DNSName: name, KeyUsages: []x509.ExtKeyUsage{u}})
		if (err == nil) != (u == use) {
			t.Errorf("certificate for %s, use %v: %v", name, u, err)
		}
	}
}

func TestAdministrationIsCertified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New(), "one")
		i.run()
		i.put(mesh)
		i.put(dataplane("cart"))
		i.put("type: Dataplane\nmesh: default\nname: named\nnetworking: {address: named.internal}")
		i.put("type: Dataplane\nmesh: default\nname: thief\nnetworking: {address: kuma-cp}")
		i.put("type: Dataplane\nmesh: default\nname: itself\nnetworking: {address: 127.0.0.1}")
		for _, name := range []string{"cart", "named", "thief", "itself"} {
			i.connect(name) // without any MeshIdentity
		}
		synctest.Wait()
		certifies(t, i.adminLeaf(""), "kuma-cp", x509.ExtKeyUsageClientAuth)
		certifies(t, i.adminLeaf("cart"), "10.0.0.1", x509.ExtKeyUsageServerAuth)
		certifies(t, i.adminLeaf("named"), "named.internal", x509.ExtKeyUsageServerAuth)
		certifies(t, i.adminLeaf("thief"), "kuma-cp", x509.ExtKeyUsageServerAuth)
		if i.adminLeaf("itself") != nil {
			t.Error("a proxy that offers nothing has a certificate")
		}

		first, own := i.adminLeaf("cart"), i.adminLeaf("")
		time.Sleep(23 * 24 * time.Hour)
		synctest.Wait()
		if i.adminLeaf("cart") != first {
			t.Error("replaced before four fifths of its life")
		}
		time.Sleep(2 * 24 * time.Hour)
		synctest.Wait()
		if second := i.adminLeaf("cart"); second == first || second.Key == first.Key || i.adminLeaf("") == own {
			t.Error("not replaced at four fifths of its life")
		}
		certifies(t, i.adminLeaf("cart"), "10.0.0.1", x509.ExtKeyUsageServerAuth)

		i.put("type: Dataplane\nmesh: default\nname: cart\nnetworking: {address: 10.0.0.2}")
		synctest.Wait()
		certifies(t, i.adminLeaf("cart"), "10.0.0.2", x509.ExtKeyUsageServerAuth)

		i.write(func(tx *db.Tx) { api.Connections.Delete(tx, proxyID("cart").Key()) })
		synctest.Wait()
		if i.adminLeaf("cart") != nil {
			t.Error("the certificate of a proxy that is gone is kept")
		}
	})
}

// One authority per zone, whoever made it; a new one reaches everybody, one that
// cannot sign nobody, and one that is deleted is made anew.
func TestAuthorityOfTheAdministration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New()
		one, two := newInstance(t, data, "one"), newInstance(t, data, "two")
		one.run()
		two.run()
		one.put(mesh)
		one.put(dataplane("cart"))
		one.connect("cart")
		synctest.Wait()
		ca := one.adminLeaf("").CA
		if other := two.adminLeaf(""); other == nil || other.CA != ca || other.Key == one.adminLeaf("").Key {
			t.Error("the instances have different authorities, or one key")
		}
		id := api.LocalID(api.GlobalSecrets, "", "", "envoy-admin-ca", site)
		set := func(data []byte) {
			t.Helper()
			op := store.Op{Record: store.Record{ID: id}, Delete: data == nil}
			if data != nil {
				spec, err := json.Marshal(api.Secret{Data: data})
				if err != nil {
					t.Fatal(err)
				}
				op.Record.Spec = spec
			}
			if _, err := one.feeder.Apply(context.Background(), []store.Op{op}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		cert, key := own(t, "mine")
		set(append(cert, key...))
		for _, l := range []*api.AdminLeaf{one.adminLeaf(""), one.adminLeaf("cart"), two.adminLeaf("")} {
			if strings.TrimSpace(l.CA) != strings.TrimSpace(string(cert)) {
				t.Errorf("%s is still certified by the older authority", l.Name)
			}
		}
		certifies(t, one.adminLeaf("cart"), "10.0.0.1", x509.ExtKeyUsageServerAuth)
		before := one.adminLeaf("cart")
		set([]byte("not PEM"))
		if one.adminLeaf("cart") != before {
			t.Error("a broken authority took the certificate")
		}
		set(nil)
		row, ok := api.GlobalSecrets.Get(one.db.Snapshot(), id)
		if !ok {
			t.Fatal("no authority after the deletion")
		}
		if block, rest := pem.Decode(row.Spec.Data); block == nil || len(rest) == 0 || !strings.HasPrefix(string(row.Spec.Data), one.adminLeaf("cart").CA) {
			t.Error("the new authority is not in use")
		}
	})
}
