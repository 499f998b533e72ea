package plan

import (
	"bytes"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// bundleName is the secret by which proxies know whom to trust.
const bundleName = "system_trust_bundle"

// who is the identity of a proxy.
type who struct {
	// Identity is the MeshIdentity that selects it; the zero ID: none.
	Identity api.ID
	// ID is its SPIFFE ID: also set where certificates come from elsewhere.
	ID string
	// SPIFFE is ID, if this control plane issues its certificate.
	SPIFFE string
	// Secret is the name of the certificate for Envoy.
	Secret string
	// Workload says that the ID is derived from the workload.
	Workload bool
}

// identity is who a proxy is. A proxy that no MeshIdentity selects, or whose ID
// cannot be rendered, has none and speaks plaintext.
var identity = incr.NewQuery("identity", func(r *incr.Run, proxy api.ID) who {
	dp, ok := api.Dataplanes.Get(r, proxy)
	if !ok {
		return who{}
	}
	mid := api.SelectIdentity(api.MeshIdentities.In(r, proxy.Mesh), dp.Labels)
	if mid == nil {
		return who{}
	}
	id, err := api.SPIFFEID(mid, dp, siteZone(r, dp))
	if err != nil {
		r.Fail(err)
		return who{}
	}
	w := who{Identity: mid.ID, ID: id.String(), Workload: id.FromWorkload}
	if p := mid.Spec.Provider; p != nil && p.Type == "Bundled" {
		w.SPIFFE = w.ID
		w.Secret = api.MeshIdentities.KRI(mid.ID, "")
	}
	return w
}, func(a, b who) bool { return a == b })

// siteZone is the zone a Dataplane lives in.
func siteZone(r db.Reader, dp *api.Object[api.Dataplane]) string {
	if dp.Zone != "" {
		return dp.Zone
	}
	return settings(r).Site.Zone
}

// Identity is what the rest of the control plane asks of [identity]: whom to
// issue certificates for, and under which MeshIdentity.
type Identity struct {
	Of       api.ID // the MeshIdentity
	SPIFFE   string // empty: no certificate of ours
	Workload bool   // the ID is derived from the workload
	Admin    string // the address at which it offers Envoy's administration; empty: nowhere
}

// IdentityOf is the identity of a proxy.
var IdentityOf = incr.NewQuery("identity-of", func(r *incr.Run, proxy api.ID) Identity {
	w := identity.Get(r, proxy)
	return Identity{Of: w.Identity, SPIFFE: w.SPIFFE, Workload: w.Workload, Admin: adminOffer(r, proxy)}
}, func(a, b Identity) bool { return a == b })

// secretBytes is a proxy's certificate; nil until one is issued.
var secretBytes = incr.NewQuery("encode.secret", func(r *incr.Run, proxy api.ID) *wire.Resource {
	leaf, ok := api.Leaves.Get(r, proxy.Key())
	w := identity.Get(r, proxy)
	if !ok || leaf.Identity != w.Identity || leaf.SPIFFE != w.SPIFFE {
		return nil
	}
	return encode(r, wire.Secret, w.Secret, envoy.Secret, ir.Secret{Name: w.Secret, Chain: leaf.Chain, Key: leaf.Key})
}, sameBytes)

// trust is the authorities that proxies of a mesh believe, by trust domain.
var trust = incr.NewQuery("trust", func(r *incr.Run, mesh string) []ir.TrustDomain {
	bundles := map[string]*bytes.Buffer{}
	for t := range api.MeshTrusts.In(r, mesh) {
		b := bundles[t.Spec.TrustDomain]
		if b == nil {
			b = &bytes.Buffer{}
			bundles[t.Spec.TrustDomain] = b
		}
		for _, ca := range t.Spec.CABundles {
			b.WriteString(strings.TrimRight(ca.PEM.Value, "\n") + "\n")
		}
	}
	domains := make([]ir.TrustDomain, 0, len(bundles))
	for name, b := range bundles {
		domains = append(domains, ir.TrustDomain{Name: name, PEM: b.String()})
	}
	slices.SortFunc(domains, func(a, b ir.TrustDomain) int { return strings.Compare(a.Name, b.Name) })
	return domains
}, slices.Equal[[]ir.TrustDomain])

// trustDomains is the names of [trust]: listeners name domains, not keys, so a
// rotated authority changes the bundle alone.
var trustDomains = incr.NewQuery("trust-domains", func(r *incr.Run, mesh string) []string {
	var names []string
	for _, d := range trust.Get(r, mesh) {
		names = append(names, d.Name)
	}
	return names
}, slices.Equal[[]string])

// bundleBytes is the trust bundle of a mesh; nil while nobody is trusted.
var bundleBytes = incr.NewQuery("encode.bundle", func(r *incr.Run, mesh string) *wire.Resource {
	domains := trust.Get(r, mesh)
	if len(domains) == 0 {
		return nil
	}
	return encode(r, wire.Secret, bundleName, envoy.TrustBundle, ir.TrustBundle{Name: bundleName, Domains: domains})
}, sameBytes)
