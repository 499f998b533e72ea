package api

import (
	"cmp"
	"strconv"
)

// MeshService is a service of one zone: which Dataplanes serve it, on which ports.
type MeshService struct {
	// State and Identities are written by the zone's control plane: whether any
	// proxy is healthy, and the SPIFFE IDs of the proxies.
	State      string              `json:"state,omitempty" enum:"Available,Unavailable" default:"Unavailable"`
	Selector   MeshServiceSelector `json:"selector,omitzero"`
	Ports      []MeshServicePort   `json:"ports,omitempty"`
	Identities []ServiceIdentity   `json:"identities,omitempty"`
}

// MeshServiceSelector selects Dataplanes, by one or the other; neither selects none.
type MeshServiceSelector struct {
	_ struct{} `gone:"dataplaneTags" use:"dataplaneLabels.matchLabels"`

	DataplaneRef    *NameRef       `json:"dataplaneRef,omitempty"`
	DataplaneLabels *LabelSelector `json:"dataplaneLabels,omitempty"`
}

// NameRef names a resource of the same mesh by its name at this control plane.
type NameRef struct {
	Name string `json:"name,omitempty"`
}

// MeshServicePort is a port of a service.
type MeshServicePort struct {
	Name string `json:"name,omitempty"`
	Port int32  `json:"port" req:"true"`
	// TargetPort is the inbound: an integer its port, text its name. Absent it
	// matches no inbound.
	TargetPort  *IntOrString `json:"targetPort,omitempty"`
	AppProtocol string       `json:"appProtocol,omitempty" enum:"tcp,http,http2,grpc" default:"tcp"`
}

// Section is the name of the port, or its number as text.
func (p MeshServicePort) Section() string { return cmp.Or(p.Name, strconv.Itoa(int(p.Port))) }

// Targets reports whether the port leads to the inbound.
func (p MeshServicePort) Targets(in Inbound) bool {
	if p.TargetPort == nil {
		return false
	}
	if p.TargetPort.Text {
		return p.TargetPort.Str != "" && p.TargetPort.Str == in.Name
	}
	return p.TargetPort.Int > 0 && uint32(p.TargetPort.Int) == in.Port
}

// ServiceIdentity is whom a caller may meet behind a service.
type ServiceIdentity struct {
	Type  string `json:"type" req:"true" enum:"SpiffeID,ServiceTag"`
	Value string `json:"value" req:"true"`
}

// MeshServices are written in zones, by people or by the control plane, and
// known in all zones.
var MeshServices = newKind(Kind[MeshService]{
	Facts: Facts{
		Name: "MeshService", Plural: "meshservices", Short: "msvc", Scope: MeshScope, Flow: Up | Across,
		ZoneOnly: true, DNSName: true, Destination: true,
	},
	Validate: func(_ *Meta, s *MeshService, r *Report) {
		if s.Selector.DataplaneRef != nil && s.Selector.DataplaneLabels != nil {
			r.At("selector").Add("must specify only one of: dataplaneRef or dataplaneLabels")
		}
	},
})

// MeshMultiZoneService is one service made of the MeshServices of several zones.
type MeshMultiZoneService struct {
	Selector MultiZoneSelector      `json:"selector" req:"true"`
	Ports    []MultiZoneServicePort `json:"ports" req:"true" minItems:"1"`
}

// MultiZoneSelector selects MeshServices by labels, of which there is one at least.
type MultiZoneSelector struct {
	MeshService LabelSelector `json:"meshService" req:"true"`
}

// MultiZoneServicePort is a port that the MeshServices have in common.
type MultiZoneServicePort struct {
	Name        string `json:"name,omitempty" minLen:"1"`
	Port        int32  `json:"port" req:"true"`
	AppProtocol string `json:"appProtocol,omitempty" enum:"tcp,http,http2,grpc" default:"tcp"`
}

// Section is the name of the port, or its number as text.
func (p MultiZoneServicePort) Section() string { return cmp.Or(p.Name, strconv.Itoa(int(p.Port))) }

// MeshMultiZoneServices are written at global.
var MeshMultiZoneServices = newKind(Kind[MeshMultiZoneService]{
	Facts: Facts{
		Name: "MeshMultiZoneService", Plural: "meshmultizoneservices", Short: "mzsvc", Scope: MeshScope, Flow: Down,
		GlobalOnly: true, DNSName: true, Destination: true,
	},
	Validate: func(_ *Meta, s *MeshMultiZoneService, r *Report) {
		if len(s.Selector.MeshService.MatchLabels) == 0 {
			r.At("selector.meshService.matchLabels").Add("cannot be empty")
		}
	},
})

// MeshZoneAddress is where the ingress of a zone is reached from other zones,
// for one mesh.
type MeshZoneAddress struct {
	// Address is an IP address or a DNS name.
	Address string `json:"address" req:"true" minLen:"1"`
	Port    int32  `json:"port" req:"true" min:"1" max:"65535"`
}

// MeshZoneAddresses are written in zones and known in all zones.
var MeshZoneAddresses = newKind(Kind[MeshZoneAddress]{
	Facts: Facts{
		Name: "MeshZoneAddress", Plural: "meshzoneaddresses", Short: "mza", Scope: MeshScope, Flow: Up | Across,
		ZoneOnly: true,
	},
	Validate: func(_ *Meta, s *MeshZoneAddress, r *Report) { checkHost(s.Address, r.At("address")) },
})
