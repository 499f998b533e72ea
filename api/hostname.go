package api

// HostnameGenerator gives services names for DNS.
type HostnameGenerator struct {
	// Selector has exactly one member.
	Selector HostnameSelector `json:"selector,omitzero"`
	// Template is a Go template over the service.
	Template  string             `json:"template" req:"true" minLen:"1"`
	Extension *HostnameExtension `json:"extension,omitempty"`
}

// HostnameSelector selects services of one kind.
type HostnameSelector struct {
	MeshService          *LabelSelector `json:"meshService,omitempty"`
	MeshExternalService  *LabelSelector `json:"meshExternalService,omitempty"`
	MeshMultiZoneService *LabelSelector `json:"meshMultiZoneService,omitempty"`
}

// HostnameExtension is opaque to the control plane.
type HostnameExtension struct {
	Type   string         `json:"type" req:"true" minLen:"1"`
	Config map[string]any `json:"config,omitempty"`
}

// HostnameGenerators are written anywhere.
var HostnameGenerators = newKind(Kind[HostnameGenerator]{
	Facts: Facts{
		Name: "HostnameGenerator", Plural: "hostnamegenerators", Short: "hg", Scope: GlobalScope, Flow: Down | Up,
	},
	Validate: validateHostnameGenerator,
})
