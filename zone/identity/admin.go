package identity

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// adminAuthority is the authority of Envoy's administration in this zone. It is
// not one of the mesh: who holds a workload's certificate may not look into
// proxies, and a proxy without identity is administered like all others.
type adminAuthority struct {
	id        api.ID
	row       *api.Object[api.Secret] // it was parsed from
	authority *authority              // nil while there is none that can sign
	ca        string                  // its certificate, PEM; all leaves share the text
	err       error
}

// adminID names the GlobalSecret that holds certificate and key, in this order.
func adminID(site api.Site) api.ID {
	return api.LocalID(api.GlobalSecrets, "", "", "envoy-admin-ca", site)
}

// adminLife is how long a certificate of the administration is valid.
const adminLife = 30 * 24 * time.Hour

// ensureAdmin makes the authority of the zone if there is none, and parses it.
func (f *feeder) ensureAdmin(ctx context.Context, now time.Time) error {
	a := &f.admin
	row, ok := api.GlobalSecrets.Get(f.o.DB.Snapshot(), a.id)
	if !ok {
		cert, key, err := newAuthority("Envoy Admin CA", now)
		if err != nil {
			return err
		}
		op := f.create(api.GlobalSecrets, "", a.id.Name, api.Secret{Data: append(cert, key...)}, now)
		switch _, err := f.o.Apply(ctx, []store.Op{op}); {
		case errors.Is(err, store.ErrConflict): // that of the other instance comes, and is looked at
			return nil
		case err != nil:
			return fmt.Errorf("storing the authority of Envoy's administration: %w", err)
		}
		if row, ok = api.GlobalSecrets.Get(f.o.DB.Snapshot(), a.id); !ok {
			return nil // deleted again; its commit wakes
		}
	}
	if row != a.row {
		_, key := pem.Decode(row.Spec.Data)
		a.row, a.ca = row, string(row.Spec.Data[:len(row.Spec.Data)-len(key)])
		if a.authority, a.err = parseAuthority([]byte(a.ca), key); a.err != nil {
			a.err = fmt.Errorf("%s must hold a certificate and its private key, PEM: %w", a.id, a.err)
		}
	}
	return a.err
}

// adminLeafFor returns a new certificate of the administration when one is due,
// else nil.
func (f *feeder) adminLeafFor(snap *db.Snapshot, id api.ID, p *proxy, now time.Time) (*api.AdminLeaf, error) {
	ca, name := f.admin.authority, p.who.Admin
	if ca == nil || name == "" {
		p.admin = issued{}
		return nil, nil
	}
	if have, ok := api.AdminLeaves.Get(snap, id.Key()); ok && have.Name == name && p.admin.by(ca, adminLife, now) {
		p.look(p.admin.renew)
		return nil, nil
	}
	// A proxy chooses its own address, so it could choose this control plane's name
	// as well: what it gets serves and never asks.
	use := x509.ExtKeyUsageServerAuth
	if id == (api.ID{}) {
		use = x509.ExtKeyUsageClientAuth
	}
	l, err := ca.issueName(name, use, adminLife, now)
	if err != nil {
		return nil, err
	}
	p.admin = issuedBy(ca, adminLife, now)
	p.look(p.admin.renew)
	return &api.AdminLeaf{Proxy: id, Name: name, Chain: string(l.chain), Key: string(l.key), CA: f.admin.ca}, nil
}
