package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/zone/identity"
)

var site = api.Site{Zone: "east", Env: "universal"}

// instance is one of the control plane instances over a memory database.
type instance struct {
	t      *testing.T
	name   string
	db     *db.DB
	store  *memory.Store
	feeder *store.Feeder
	engine *incr.Engine
	ctx    context.Context
	all    *sync.WaitGroup
}

// newInstance must be called in a bubble; identities are kept once run is called.
func newInstance(t *testing.T, data *memory.Database, name string) *instance {
	log := slog.New(slog.DiscardHandler)
	i := &instance{t: t, name: name, db: db.New(api.Schema), store: data.Open(), all: &sync.WaitGroup{}}
	i.feeder = store.NewFeeder(i.store, i.db, site, log)
	ctx, cancel := context.WithCancel(context.Background())
	i.ctx = ctx
	i.write(func(tx *db.Tx) { api.SettingsTable.Put(tx, &api.Settings{Site: site}) })
	i.engine = incr.New(i.db.Snapshot())
	i.all.Go(func() { _ = i.feeder.Run(ctx) })
	i.all.Go(func() { _ = i.engine.Loop(ctx, i.db) })
	t.Cleanup(func() { cancel(); i.all.Wait() })
	return i
}

func (i *instance) run() {
	o := identity.Options{
		DB: i.db, Engine: i.engine, Apply: i.feeder.Apply, Site: site, Instance: i.name,
		Now: time.Now, Log: slog.New(slog.DiscardHandler),
	}
	i.all.Go(func() { _ = identity.Run(i.ctx, o) })
}

func (i *instance) write(f func(*db.Tx)) {
	if _, err := i.db.Write(func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		panic(err)
	}
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
	if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: rec}}); err != nil {
		i.t.Fatal(err)
	}
}

func (i *instance) secret(name string, data []byte) {
	i.t.Helper()
	spec, err := json.Marshal(api.Secret{Data: data})
	if err != nil {
		i.t.Fatal(err)
	}
	rec := store.Record{ID: api.LocalID(api.Secrets, "default", "", name, site), Spec: spec}
	if _, err := i.feeder.Apply(i.ctx, []store.Op{{Record: rec}}); err != nil {
		i.t.Fatal(err)
	}
}

func proxyID(name string) api.ID { return api.LocalID(api.Dataplanes, "default", "", name, site) }

func (i *instance) connect(name string) {
	i.write(func(tx *db.Tx) {
		api.Connections.Put(tx, &api.Connection{Proxy: proxyID(name), Instance: i.name, Stream: 1, AdminPort: 9901, ReadinessPort: 9902})
	})
}

func (i *instance) leaf(name string) *api.Leaf {
	l, _ := api.Leaves.Get(i.db.Snapshot(), proxyID(name).Key())
	return l
}

// adminLeaf is the certificate of a proxy's administration; that of the control
// plane for no name.
func (i *instance) adminLeaf(name string) *api.AdminLeaf {
	id := api.ID{}
	if name != "" {
		id = proxyID(name)
	}
	l, _ := api.AdminLeaves.Get(i.db.Snapshot(), id.Key())
	return l
}

// authority is the PEM of the Secrets and of the bundles of the MeshTrust.
func (i *instance) authority() (cert, key string, bundles []string) {
	snap := i.db.Snapshot()
	if s, ok := api.Secrets.Named(snap, "default", "default-root-ca"); ok {
		cert = string(s.Spec.Data)
	}
	if s, ok := api.Secrets.Named(snap, "default", "default-private-key"); ok {
		key = string(s.Spec.Data)
	}
	if m, ok := api.MeshTrusts.Get(snap, api.LocalID(api.MeshTrusts, "default", "", "default", site)); ok {
		for _, b := range m.Spec.CABundles {
			bundles = append(bundles, b.PEM.Value)
		}
	}
	return cert, key, bundles
}

func parse(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		t.Fatalf("no PEM: %q", text)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// verify checks the leaf against authorities at the bubble's time.
func verify(t *testing.T, l *api.Leaf, bundles ...string) {
	t.Helper()
	roots := x509.NewCertPool()
	for _, b := range bundles {
		roots.AppendCertsFromPEM([]byte(b))
	}
	c := parse(t, l.Chain)
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("leaf of %s: %v", l.Proxy.Name, err)
	}
	if len(c.URIs) != 1 || c.URIs[0].String() != l.SPIFFE {
		t.Errorf("leaf says %v, want %s", c.URIs, l.SPIFFE)
	}
}

const mesh = "type: Mesh\nname: default"

func meshIdentity(expiry string) string {
	params := ""
	if expiry != "" {
		params = ", certificateParameters: {expiry: " + expiry + "}"
	}
	return "type: MeshIdentity\nmesh: default\nname: default\nspec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: {autogenerate: {enabled: true}" + params + "}}}"
}

func dataplane(name string) string {
	return fmt.Sprintf("type: Dataplane\nmesh: default\nname: %s\nnetworking: {address: 10.0.0.1, inbound: [{port: 80}]}", name)
}

func TestOneAuthorityOfTwoInstances(t *testing.T) {
	for range 20 { // who is first is chance
		synctest.Test(t, func(t *testing.T) {
			data := memory.New()
			one, two := newInstance(t, data, "one"), newInstance(t, data, "two")
			one.run()
			two.run()
			one.put(mesh)
			one.put(dataplane("cart"))
			one.put(meshIdentity(""))
			one.connect("cart")
			two.connect("cart")
			synctest.Wait()
			cert, key, bundles := one.authority()
			cert2, key2, bundles2 := two.authority()
			if cert == "" || key == "" || cert != cert2 || key != key2 {
				t.Errorf("the instances have different authorities: %q and %q", cert, cert2)
			}
			if len(bundles) != 1 || bundles[0] != cert || len(bundles2) != 1 || bundles2[0] != cert {
				t.Errorf("bundles %q and %q, want %q", bundles, bundles2, cert)
			}
			verify(t, one.leaf("cart"), cert)
			verify(t, two.leaf("cart"), cert)
			if one.leaf("cart").Key == two.leaf("cart").Key {
				t.Error("a leaf's key has left its instance")
			}
			// Nothing is written again: mesh, dataplane, identity, two secrets, trust, the administration's authority.
			at, _ := api.Revisions.Get(one.db.Snapshot(), "")
			time.Sleep(time.Hour)
			synctest.Wait()
			later, _ := api.Revisions.Get(one.db.Snapshot(), "")
			if at.Counter > 6 || later.Counter != at.Counter {
				t.Errorf("revision %d, an hour later %d; want at most 6 and no more", at.Counter, later.Counter)
			}
		})
	}
}

func TestLeavesAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New(), "one")
		i.run()
		i.put(mesh)
		i.put(dataplane("cart"))
		i.put(meshIdentity("10h"))
		i.connect("cart")
		synctest.Wait()
		first := i.leaf("cart")
		cert, _, _ := i.authority()
		if first == nil || first.SPIFFE != "spiffe://default.east.mesh.local/workload/cart" {
			t.Fatalf("leaf %+v", first)
		}
		if got := time.Until(first.NotAfter); got != 10*time.Hour {
			t.Errorf("valid for %v, want 10h", got)
		}
		verify(t, first, cert)

		time.Sleep(8*time.Hour - time.Second)
		synctest.Wait()
		if i.leaf("cart") != first {
			t.Error("replaced before four fifths of its life")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		second := i.leaf("cart")
		if second == first || second.Key == first.Key {
			t.Error("not replaced at four fifths of its life")
		}
		verify(t, second, cert)
		for range 10 { // and so on: there is always one that is valid
			time.Sleep(5 * time.Hour)
			synctest.Wait()
			verify(t, i.leaf("cart"), cert)
		}

		before := i.leaf("cart")
		i.put(meshIdentity("1h"))
		synctest.Wait()
		if l := i.leaf("cart"); l == before || time.Until(l.NotAfter) != time.Hour {
			t.Errorf("after the expiry changed the leaf is valid for %v, want 1h", time.Until(l.NotAfter))
		}
		before = i.leaf("cart")
		i.put(dataplane("other")) // nobody's business here
		i.connect("other")
		synctest.Wait()
		if i.leaf("cart") != before || i.leaf("other") == nil {
			t.Error("another proxy's leaf was replaced, or the new proxy has none")
		}
		i.write(func(tx *db.Tx) { api.Connections.Delete(tx, proxyID("cart").Key()) })
		synctest.Wait()
		if i.leaf("cart") != nil {
			t.Error("the leaf of a proxy that is gone is kept")
		}
	})
}

// A leaf, and above all its key, is in no record of the store.
func TestLeavesAreNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := memory.New()
		i := newInstance(t, data, "one")
		i.run()
		i.put(mesh)
		i.put(dataplane("cart"))
		i.put(meshIdentity(""))
		i.connect("cart")
		synctest.Wait()
		var secrets [][]byte
		for _, key := range []string{i.leaf("cart").Key, i.adminLeaf("cart").Key, i.adminLeaf("").Key} {
			block, _ := pem.Decode([]byte(key))
			for _, form := range []any{block.Bytes, key, []byte(key)} { // base64 or text, as any field of a record would have it
				secret, err := json.Marshal(form)
				if err != nil {
					t.Fatal(err)
				}
				secrets = append(secrets, secret)
			}
		}
		kinds := map[string]int{}
		for b, err := range data.Open().Follow(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range b.Puts {
				kinds[r.Kind]++
				for _, secret := range secrets {
					if strings.Contains(string(r.Spec), strings.Trim(string(secret), `"`)) {
						t.Errorf("%s holds the key of a leaf", r.ID)
					}
				}
			}
			break
		}
		want := map[string]int{"Mesh": 1, "Dataplane": 1, "MeshIdentity": 1, "Secret": 2, "MeshTrust": 1, "GlobalSecret": 1}
		if fmt.Sprint(kinds) != fmt.Sprint(want) {
			t.Errorf("stored are %v, want %v", kinds, want)
		}
	})
}

// own is an authority that a user brings.
func own(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10000 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
}

func TestAuthorityOfTheUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New(), "one")
		i.run()
		i.put(mesh)
		i.put(dataplane("cart"))
		i.put("type: MeshIdentity\nmesh: default\nname: default\nspec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: {ca: {certificate: {type: Secret, secretRef: {kind: Secret, name: my-ca}}, privateKey: {type: Secret, secretRef: {kind: Secret, name: my-key}}}}}}")
		i.connect("cart")
		synctest.Wait()
		if i.leaf("cart") != nil {
			t.Error("a leaf without an authority")
		}
		cert, key := own(t, "one")
		i.secret("my-ca", cert)
		i.secret("my-key", key)
		synctest.Wait()
		generated, _, bundles := i.authority()
		if generated != "" || len(bundles) != 1 || bundles[0] != string(cert) {
			t.Fatalf("generated %q, bundles %q; want none and the user's", generated, bundles)
		}
		first := i.leaf("cart")
		verify(t, first, string(cert))

		// A new authority is added to the trust; the older stays, since leaves of it are in use.
		cert2, key2 := own(t, "two")
		i.secret("my-ca", cert2)
		i.secret("my-key", key2)
		synctest.Wait()
		time.Sleep(10 * time.Second) // between the two Secrets nothing could be signed
		synctest.Wait()
		if _, _, bundles = i.authority(); len(bundles) != 2 || bundles[0] != string(cert) || bundles[1] != string(cert2) {
			t.Errorf("bundles %q, want the first and the second", bundles)
		}
		second := i.leaf("cart")
		if second == first {
			t.Fatal("the leaf is still of the older authority")
		}
		verify(t, second, string(cert2))
		verify(t, first, bundles...)

		// An authority that cannot sign leaves the leaf as it is.
		i.secret("my-ca", []byte("not PEM"))
		synctest.Wait()
		if at, _ := api.Revisions.Get(i.db.Snapshot(), ""); at.Counter != 11 {
			t.Errorf("revision %d, want that of the user's last write", at.Counter)
		}
		if i.leaf("cart") != second {
			t.Error("a broken authority took the leaf")
		}
		if _, _, bundles := i.authority(); len(bundles) != 2 {
			t.Errorf("a broken authority is published: %q", bundles)
		}
	})
}

// A MeshTrust that a user wrote is the user's; one identity that cannot be
// served does not keep another from its authority.
func TestForeignTrustStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInstance(t, memory.New(), "one")
		cert, _ := own(t, "mine")
		quoted, err := json.Marshal(string(cert))
		if err != nil {
			t.Fatal(err)
		}
		i.put(mesh)
		i.put("type: MeshTrust\nmesh: default\nname: default\nspec: {trustDomain: mine, caBundles: [{type: Pem, pem: {value: " + string(quoted) + "}}]}")
		i.put(`{"type":"MeshIdentity","mesh":"default","name":"a-broken","spec":{"spiffeID":{"trustDomain":"{{ label \"absent\" }}"},"selector":{},"provider":{"type":"Bundled","bundled":{"autogenerate":{"enabled":true}}}}}`)
		i.put(meshIdentity(""))
		i.run()
		synctest.Wait()
		ca, _, bundles := i.authority()
		if ca == "" {
			t.Error("no authority: another identity stood in its way")
		}
		if len(bundles) != 1 || bundles[0] != string(cert) {
			t.Errorf("the user's MeshTrust became %q", bundles)
		}
	})
}
