package api

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// LabelServiceAccount is the service account of the pod of a Dataplane.
const LabelServiceAccount = "k8s.kuma.io/service-account"

// Workload is a set of proxies with one task: those whose label
// kuma.io/workload has the same value. Control planes make one for each; it
// says nothing by itself, what is known of its proxies is its status.
type Workload struct{}

// Workloads are made by the control plane of a zone, one for each value of the
// label kuma.io/workload.
var Workloads = newKind(Kind[Workload]{
	Facts: Facts{
		Name: "Workload", Plural: "workloads", Short: "wl", Scope: MeshScope, Flow: Up, ZoneOnly: true,
	},
})

// WorkloadOf names the workload of a proxy: what its identity and its generated
// service are named after.
func WorkloadOf(dp *Object[Dataplane]) string {
	tag := ""
	if g := dp.Spec.Networking.Gateway; g != nil {
		tag = g.Tags[LabelService]
	}
	for _, in := range dp.Spec.Networking.Inbound {
		tag = cmp.Or(tag, in.Tags[LabelService])
	}
	return cmp.Or(dp.Labels[LabelWorkload], dp.Labels[LabelService], tag, dp.Name)
}

// TagProxyType is a tag that every proxy has without saying so, with one of
// these values.
const (
	TagProxyType = "kuma.io/proxy-type"
	ProxySidecar = "sidecar"
	ProxyGateway = "gateway"
)

// Tag is the value of one tag of an inbound, or of the proxy if in is nil, by
// which older forms select it: what its tags say, else the labels, else what
// follows from the Dataplane. Of its zone what the control plane knows is true:
// nobody may pass for a proxy of another one.
func Tag(dp *Object[Dataplane], in *Inbound, name string) string {
	gateway := dp.Spec.Networking.Gateway
	switch {
	case name == TagProxyType && gateway != nil:
		return ProxyGateway
	case name == TagProxyType:
		return ProxySidecar
	case name == LabelZone && dp.Zone != "":
		return dp.Zone
	}
	var written, follows string
	switch {
	case in != nil:
		written = in.Tags[name]
	case gateway != nil:
		written = gateway.Tags[name]
	}
	switch name {
	case LabelService:
		follows = WorkloadOf(dp)
	case LabelDisplayName:
		follows = dp.Name
	case LabelProtocol:
		if in != nil {
			follows = in.AppProtocol()
		}
	}
	return cmp.Or(written, dp.Labels[name], follows)
}

// HasTags reports whether the proxy carries all the tags: one of its inbounds
// does, or itself if it has none.
func HasTags(dp *Object[Dataplane], tags map[string]string) bool {
	inbounds := dp.Spec.Networking.Inbound
	for i := range inbounds {
		if carriesTags(dp, &inbounds[i], tags) {
			return true
		}
	}
	return len(inbounds) == 0 && carriesTags(dp, nil, tags)
}

func carriesTags(dp *Object[Dataplane], in *Inbound, tags map[string]string) bool {
	for name, value := range tags {
		if Tag(dp, in, name) != value {
			return false
		}
	}
	return true
}

// SelectIdentity returns the identity that applies to a proxy with the labels:
// of those that select it the one with the most labels, then the first by name;
// nil when there is none.
func SelectIdentity(all iter.Seq[*Object[MeshIdentity]], labels map[string]string) *Object[MeshIdentity] {
	var best *Object[MeshIdentity]
	bestLabels := 0
	for mid := range all {
		sel := mid.Spec.Selector
		if sel == nil || sel.Dataplane == nil || !HasLabels(labels, sel.Dataplane.MatchLabels) {
			continue
		}
		n := len(sel.Dataplane.MatchLabels)
		if best == nil || n > bestLabels || n == bestLabels && cmp.Or(cmp.Compare(mid.Name, best.Name), cmp.Compare(mid.ID.Key(), best.ID.Key())) < 0 {
			best, bestLabels = mid, n
		}
	}
	return best
}

// SPIFFE is the ID of a workload (SPIFFE-ID, section 2).
type SPIFFE struct {
	TrustDomain, Path string
	// FromWorkload says that the ID depends on the workload name: then a proxy
	// must prove that name with its token.
	FromWorkload bool
}

func (s SPIFFE) String() string { return "spiffe://" + s.TrustDomain + s.Path }

// Templates of MeshIdentity when it has none of its own.
const (
	DefaultTrustDomain    = "{{ .Mesh }}.{{ .Zone }}.mesh.local"
	DefaultKubernetesPath = "/ns/{{ .Namespace }}/sa/{{ .ServiceAccount }}"
	DefaultUniversalPath  = "/workload/{{ .Workload }}"
)

// ErrSPIFFE is the class of errors of IDs that cannot be rendered.
var ErrSPIFFE = errors.New("no SPIFFE ID")

// TrustDomain renders the trust domain of an identity in a zone.
func TrustDomain(mid *Object[MeshIdentity], zone string) (string, error) {
	text := DefaultTrustDomain
	if t := mid.Spec.SpiffeID; t != nil && t.TrustDomain != "" {
		text = t.TrustDomain
	}
	out, err := render(text, mid.Labels, map[string]string{"Mesh": mid.Mesh, "Zone": zone})
	if err == nil {
		_, err = spiffeid.TrustDomainFromString(out)
	}
	if err != nil {
		return "", fmt.Errorf("%w: trust domain of %s: %w", ErrSPIFFE, mid.ID, err)
	}
	return out, nil
}

// SPIFFEID renders the ID of a proxy of the zone under an identity.
func SPIFFEID(mid *Object[MeshIdentity], dp *Object[Dataplane], zone string) (SPIFFE, error) {
	domain, err := TrustDomain(mid, zone)
	if err != nil {
		return SPIFFE{}, err
	}
	text := DefaultUniversalPath
	if dp.Labels[LabelEnv] == "kubernetes" || dp.Labels[LabelServiceAccount] != "" {
		text = DefaultKubernetesPath
	}
	if t := mid.Spec.SpiffeID; t != nil && t.Path != "" {
		text = t.Path
	}
	vars := map[string]string{
		"Mesh": dp.Mesh, "Zone": zone, "TrustDomain": domain,
		"Namespace":      cmp.Or(dp.Namespace, dp.Labels[LabelNamespace]),
		"ServiceAccount": dp.Labels[LabelServiceAccount],
		"Workload":       WorkloadOf(dp),
	}
	path, err := render(text, dp.Labels, vars)
	if err == nil {
		_, err = spiffeid.FromString("spiffe://" + domain + path)
	}
	if err != nil {
		return SPIFFE{}, fmt.Errorf("%w: %s under %s: %w", ErrSPIFFE, dp.ID, mid.ID, err)
	}
	return SPIFFE{TrustDomain: domain, Path: path, FromWorkload: dependsOnWorkload(text)}, nil
}

func dependsOnWorkload(path string) bool {
	return strings.Contains(path, ".Workload") || strings.Contains(path, LabelWorkload)
}
