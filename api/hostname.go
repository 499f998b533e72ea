package api

import (
	"cmp"
	"fmt"
	"text/template"

	"github.com/atoll-mesh/atoll/api/db"
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

// HostnameTemplate is the template of a generator, parsed once to be rendered
// for many services. One goroutine at a time may use it.
type HostnameTemplate struct{ t *template.Template }

// ParseHostname parses the template of a generator.
func ParseHostname(text string) (HostnameTemplate, error) {
	t, err := parseTemplate(text)
	return HostnameTemplate{t}, err
}

// Render makes the host name of a service. The zone is that of the control
// plane; a service of another zone has its own in a label.
func (h HostnameTemplate) Render(service *Meta, zone string) (string, error) {
	name, err := execute(h.t, service.Labels, map[string]string{
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

// For is the selector of services of the kind, nil if there is none.
func (s *HostnameSelector) For(kind string) *LabelSelector {
	switch kind {
	case RefService:
		return s.MeshService
	case RefExternalService:
		return s.MeshExternalService
	case RefMultiZoneService:
		return s.MeshMultiZoneService
	}
	return nil
}

// ServiceHostnames is what the generators of a zone make of one service. It is
// the zone's own and shown beside the spec.
type ServiceHostnames struct {
	Service ID
	// Addresses are the names that the service has, Generators whether each
	// generator that selects it gave it one: in the order in which they are asked.
	Addresses  []ServiceAddress
	Generators []HostnameGeneratorStatus
}

// Hostnames holds a row for each service that a generator selects.
var Hostnames = db.NewTable(Schema, "hostnames", func(h *ServiceHostnames) string { return h.Service.String() })

// ServiceAddress is a name of a service.
type ServiceAddress struct {
	// The name, which leads to the service's virtual IP.
	Hostname string `json:"hostname"`
	// Who gave it: HostnameGenerator or Kubernetes.
	Origin string `json:"origin"`
	// The generator that made it.
	Generator *GeneratorRef `json:"hostnameGeneratorRef,omitempty"`
}

// HostnameGeneratorStatus is what a generator made of a service.
type HostnameGeneratorStatus struct {
	// The generator.
	Generator GeneratorRef `json:"hostnameGeneratorRef"`
	// Generated: False with the reason Collision if another service has the name,
	// with TemplateError if the template makes none of this service.
	Conditions []Condition `json:"conditions"`
}

// GeneratorRef names a HostnameGenerator.
type GeneratorRef struct {
	// Its name at this control plane.
	CoreName string `json:"coreName"`
}
