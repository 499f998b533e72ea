package api

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"strings"
	"text/template"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// LabelServiceAccount is the service account of the pod of a Dataplane.
const LabelServiceAccount = "k8s.kuma.io/service-account"

// Workload names the workload of a proxy: what its identity and its generated
// service are named after.
func Workload(dp *Object[Dataplane]) string {
	tag := ""
	if g := dp.Spec.Networking.Gateway; g != nil {
		tag = g.Tags[LabelService]
	}
	return cmp.Or(dp.Labels[LabelWorkload], dp.Labels[LabelService], tag, dp.Name)
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
		"Workload":       Workload(dp),
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

// render executes a template over named texts; `label "k"` is a label, and an
// error when it is absent, as is a name that does not exist.
func render(text string, labels, vars map[string]string) (string, error) {
	t, err := parseTemplate(text, labels)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	if err := t.Execute(&out, vars); err != nil {
		return "", err
	}
	return out.String(), nil
}

func parseTemplate(text string, labels map[string]string) (*template.Template, error) {
	return template.New("").Option("missingkey=error").Funcs(template.FuncMap{
		"label": func(key string) (string, error) {
			if v, ok := labels[key]; ok {
				return v, nil
			}
			return "", fmt.Errorf("there is no label %q", key)
		},
	}).Parse(text)
}

// checkTemplate notes why a template cannot work: its syntax, and names that it
// will not be given. Labels are not known yet, so that any is accepted.
func checkTemplate(text string, vars []string, r *Report) (rendered string, ok bool) {
	t, err := parseTemplate(text, nil)
	if err != nil {
		r.Add("must be a Go template: %v", err)
		return "", false
	}
	stub := map[string]string{}
	for _, name := range vars {
		stub[name] = "x"
	}
	t.Funcs(template.FuncMap{"label": func(string) string { return "x" }})
	var out strings.Builder
	if err := t.Execute(&out, stub); err != nil {
		r.Add("cannot be rendered: %v; known here: .%s and label \"key\"", err, strings.Join(vars, ", ."))
		return "", false
	}
	return out.String(), true
}

func validateIdentity(_ *Meta, s *MeshIdentity, r *Report) {
	if t := s.SpiffeID; t != nil {
		at := r.At("spiffeID")
		if t.TrustDomain != "" {
			if out, ok := checkTemplate(t.TrustDomain, []string{"Mesh", "Zone"}, at.At("trustDomain")); ok {
				if _, err := spiffeid.TrustDomainFromString(out); err != nil {
					at.At("trustDomain").Add("must render to a trust domain: %v", err)
				}
			}
		}
		if t.Path != "" {
			vars := []string{"Mesh", "Zone", "TrustDomain", "Namespace", "ServiceAccount", "Workload"}
			if out, ok := checkTemplate(t.Path, vars, at.At("path")); ok {
				if err := spiffeid.ValidatePath(out); err != nil {
					at.At("path").Add("must render to the path of a SPIFFE ID: %v", err)
				}
			}
		}
	}
	p := s.Provider
	if p == nil {
		return
	}
	at := r.At("provider")
	switch {
	case p.Type == "Bundled" && p.Bundled == nil:
		at.At("bundled").Add("must be defined")
	case p.Type == "Spire" && p.Spire == nil:
		at.At("spire").Add("must be defined")
	case p.Type == "Extension" && p.Extension == nil:
		at.At("extension").Add("must be defined")
	}
	if p.Bundled != nil {
		p.Bundled.check(at.At("bundled"))
	}
	if p.Spire != nil && p.Spire.Agent != nil {
		checkNotNegative(p.Spire.Agent.Timeout, at.At("spire.agent.timeout"))
	}
}

func (b *BundledProvider) check(r *Report) {
	auto := b.Autogenerates()
	switch ca := r.At("ca"); {
	case auto && b.CA != nil:
		ca.Add("shouldn't be defined once using autogenerated")
	case !auto && b.CA == nil:
		ca.Add("must be defined")
	case b.CA != nil:
		for _, part := range []struct {
			field  string
			source *SecureDataSource
		}{{"certificate", b.CA.Certificate}, {"privateKey", b.CA.PrivateKey}} {
			if part.source == nil {
				ca.At(part.field).Add("must be defined")
			} else {
				part.source.check(ca.At(part.field))
			}
		}
	}
	if b.CertificateParameters != nil {
		checkNotNegative(b.CertificateParameters.Expiry, r.At("certificateParameters.expiry"))
	}
}

func validateTrust(_ *Meta, s *MeshTrust, r *Report) {
	if _, err := spiffeid.TrustDomainFromString(s.TrustDomain); err != nil {
		r.At("trustDomain").Add("must be a trust domain: %v", err)
	}
	for i, ca := range s.CABundles {
		if reason := checkCertificates(ca.PEM.Value); reason != "" {
			r.Index("caBundles", i).At("pem.value").Add("%s", reason)
		}
	}
}

func validateHostnameGenerator(_ *Meta, s *HostnameGenerator, r *Report) {
	n := 0
	for _, sel := range []*LabelSelector{s.Selector.MeshService, s.Selector.MeshExternalService, s.Selector.MeshMultiZoneService} {
		if sel != nil {
			n++
		}
	}
	if n != 1 {
		r.At("selector").Add("exact one selector (meshService, meshExternalService, meshMultiZoneService) must be defined")
	}
	at := r.At("template")
	if out, ok := checkTemplate(s.Template, hostnameVars, at); ok && (len(out) > 253 || !dnsSubdomain.MatchString(out)) {
		at.Add("must render to a lowercase RFC 1123 subdomain, got %q", out)
	}
}

var hostnameVars = []string{"Name", "DisplayName", "Namespace", "Mesh", "Zone"}

// Hostname renders the host name that a generator gives to a service. The zone
// is that of the control plane; a service of another zone has its own in a label.
func Hostname(template string, service *Meta, zone string) (string, error) {
	name, err := render(template, service.Labels, map[string]string{
		"Name": service.Core, "DisplayName": service.Name, "Namespace": service.Labels[LabelNamespace],
		"Mesh": service.Mesh, "Zone": cmp.Or(service.Labels[LabelZone], zone),
	})
	switch {
	case err != nil:
		return "", err
	case len(name) > 253 || !dnsSubdomain.MatchString(name):
		return "", fmt.Errorf("%q is no lowercase RFC 1123 subdomain", name)
	}
	return name, nil
}
