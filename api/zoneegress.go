package api

// ZoneEgress is how earlier releases wrote the proxy through which a zone calls
// external services. It is kept as it is written, and stands for a Dataplane
// with a listener of type ZoneEgress in each mesh, or in the one that its label
// kuma.io/mesh names. An Envoy is in one mesh: a zone with several meshes needs
// a ZoneEgress with that label for each. It stays in its zone: peers know the
// rows that it stands for.
type ZoneEgress struct {
	// The zone that it is in, which can only be the one that it is written in.
	// Absent: that zone.
	Zone string `json:"zone,omitempty"`
	// Where it listens.
	Networking ZoneEgressNetworking `json:"networking" req:"true"`
}

// ZoneEgressNetworking is where an egress listens.
type ZoneEgressNetworking struct {
	// The IP address or DNS name on which the proxy listens; not 0.0.0.0.
	Address string `json:"address,omitempty"`
	// The port on which the proxy listens.
	Port uint32 `json:"port" req:"true" min:"1" max:"65535"`
	// Envoy's administration.
	Admin *EnvoyAdmin `json:"admin,omitempty"`
}

// ZoneEgresses are written in zones and stay there.
var ZoneEgresses = newKind(Kind[ZoneEgress]{
	Facts: Facts{
		Name: "ZoneEgress", Plural: "zoneegresses", Short: "ze", Scope: GlobalScope, Flat: true, ZoneOnly: true,
	},
	Validate: func(m *Meta, s *ZoneEgress, r *Report) {
		checkOwnZone(m, s.Zone, r)
		n := &s.Networking
		checkZoneProxy(n.Address, n.Port, n.Admin, r.At("networking"))
	},
})
