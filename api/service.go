package api

import (
	"cmp"
	"strconv"
)

// MeshService is a service of one zone: which Dataplanes serve it, on which
// ports. Control planes make one for each workload or Kubernetes Service; write
// one to group proxies in another way.
type MeshService struct {
	// Written by the zone's control plane: Available while any proxy is healthy;
	// only then does a MeshMultiZoneService lead there.
	State string `json:"state,omitempty" enum:"Available,Unavailable" default:"Unavailable"`
	// The Dataplanes that serve it, of the same mesh and zone.
	Selector MeshServiceSelector `json:"selector,omitzero"`
	// The ports that callers use, on the service's virtual IP.
	Ports []MeshServicePort `json:"ports,omitempty"`
	// Written by the zone's control plane: the SPIFFE IDs of the proxies, which
	// callers accept and no others.
	Identities []ServiceIdentity `json:"identities,omitempty"`
}

// MeshServiceSelector selects Dataplanes, by one of its members; none selects none.
type MeshServiceSelector struct {
	// One Dataplane by name; not together with dataplaneLabels.
	DataplaneRef *NameRef `json:"dataplaneRef,omitempty"`
	// Dataplanes by their labels. Without either member nothing is selected.
	DataplaneLabels *LabelSelector `json:"dataplaneLabels,omitempty"`
	// Inbounds by their tags, the form of earlier releases; prefer
	// dataplaneLabels, which costs less. Not together with another member.
	DataplaneTags map[string]string `json:"dataplaneTags,omitempty"`
}

// Takes reports whether an inbound of a selected Dataplane is meant; nil is a
// Dataplane without inbounds.
func (s *MeshServiceSelector) Takes(dp *Object[Dataplane], in *Inbound) bool {
	return len(s.DataplaneTags) == 0 || carriesTags(dp, in, s.DataplaneTags)
}

// NameRef names a resource of the same mesh by its name at this control plane.
type NameRef struct {
	// The name by which calls of this control plane's API name it.
	Name string `json:"name,omitempty"`
}

// MeshServicePort is a port of a service.
type MeshServicePort struct {
	// The name by which policies and references (sectionName) mean the port.
	// Absent: its number as text.
	Name string `json:"name,omitempty"`
	// The number that callers use.
	Port int32 `json:"port" req:"true"`
	// The inbound behind it: an integer is its port, text its name. Absent:
	// none, nothing is reached.
	TargetPort *IntOrString `json:"targetPort,omitempty"`
	// What is spoken on the port; HTTP policies need more than tcp.
	AppProtocol string `json:"appProtocol,omitempty" enum:"tcp,http,http2,grpc" default:"tcp"`
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
	// SpiffeID; ServiceTag is of earlier releases.
	Type string `json:"type" req:"true" enum:"SpiffeID,ServiceTag"`
	// The ID, such as spiffe://default.east.mesh.local/ns/shop/sa/web.
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
		sel := s.Selector
		if sel.DataplaneRef != nil && sel.DataplaneLabels != nil {
			r.At("selector").Add("must specify only one of: dataplaneRef or dataplaneLabels")
		}
		if len(sel.DataplaneTags) > 0 && (sel.DataplaneRef != nil || sel.DataplaneLabels != nil) {
			r.At("selector.dataplaneTags").Add("must not be set together with dataplaneRef or dataplaneLabels; keep dataplaneLabels")
		}
	},
})

// MeshMultiZoneService is one service made of the MeshServices of several
// zones, with one name and one virtual IP; callers prefer the own zone and fail
// over to others. Use it for what runs in more than one zone.
type MeshMultiZoneService struct {
	// The MeshServices behind it, of all zones.
	Selector MultiZoneSelector `json:"selector" req:"true"`
	// The ports that callers use; each leads to the same port of the
	// MeshServices that have it.
	Ports []MultiZoneServicePort `json:"ports" req:"true" minItems:"1"`
}

// MultiZoneSelector selects MeshServices by labels, of which there is one at least.
type MultiZoneSelector struct {
	// Labels of the MeshServices, at least one: {kuma.io/display-name: web}.
	MeshService LabelSelector `json:"meshService" req:"true"`
}

// MultiZoneServicePort is a port that the MeshServices have in common.
type MultiZoneServicePort struct {
	// The name by which policies and references (sectionName) mean the port.
	// Absent: its number as text.
	Name string `json:"name,omitempty" minLen:"1"`
	// The number that callers use, and that the MeshServices have.
	Port int32 `json:"port" req:"true"`
	// What is spoken on the port; HTTP policies need more than tcp.
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
// for one mesh. Without it the services of the zone cannot be called from
// elsewhere.
type MeshZoneAddress struct {
	// An IP address or a DNS name that the proxies of other zones reach, such as
	// that of a load balancer.
	Address string `json:"address" req:"true" minLen:"1"`
	// The port there, which leads to a listener with type ZoneIngress.
	Port int32 `json:"port" req:"true" min:"1" max:"65535"`
}

// MeshZoneAddresses are written in zones and known in all zones.
var MeshZoneAddresses = newKind(Kind[MeshZoneAddress]{
	Facts: Facts{
		Name: "MeshZoneAddress", Plural: "meshzoneaddresses", Short: "mza", Scope: MeshScope, Flow: Up | Across,
		ZoneOnly: true,
	},
	Validate: func(_ *Meta, s *MeshZoneAddress, r *Report) { checkHost(s.Address, r.At("address")) },
})
