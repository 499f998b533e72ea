package api

import (
	"cmp"
	"fmt"
)

// HostnameGenerator gives services of one kind a name in DNS, made from a
// template; proxies resolve it to the service's virtual IP. All generators that
// select a service give it a name; of two services that would get the same one
// the older has it.
type HostnameGenerator struct {
	// The services that get a name; exactly one member.
	Selector HostnameSelector `json:"selector,omitzero"`
	// A Go template of the name: "{{ .DisplayName }}.{{ .Zone }}.mesh.local". It
	// knows .Name, .DisplayName, .Namespace, .Mesh, .Zone and label "key".
	Template string `json:"template" req:"true" minLen:"1"`
	// For names that another program provides.
	Extension *HostnameExtension `json:"extension,omitempty"`
}

// HostnameSelector selects services of one kind.
type HostnameSelector struct {
	// MeshServices with these labels; {} is all of them.
	MeshService *LabelSelector `json:"meshService,omitempty"`
	// MeshExternalServices with these labels; {} is all of them.
	MeshExternalService *LabelSelector `json:"meshExternalService,omitempty"`
	// MeshMultiZoneServices with these labels; {} is all of them.
	MeshMultiZoneService *LabelSelector `json:"meshMultiZoneService,omitempty"`
}

// HostnameExtension is opaque to the control plane.
type HostnameExtension struct {
	// Which program it is for.
	Type string `json:"type" req:"true" minLen:"1"`
	// Settings of that program.
	Config map[string]any `json:"config,omitempty"`
}

// HostnameGenerators are written anywhere.
var HostnameGenerators = newKind(Kind[HostnameGenerator]{
	Facts: Facts{
		Name: "HostnameGenerator", Plural: "hostnamegenerators", Short: "hg", Scope: GlobalScope, Flow: Down | Up,
	},
	Validate: validateHostnameGenerator,
})

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
