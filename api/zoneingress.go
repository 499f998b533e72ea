package api

// ZoneIngress is how earlier releases wrote the proxy through which other zones
// call the services of a zone. It is kept as it is written, and stands for a
// Dataplane with a listener of type ZoneIngress in each mesh, or in the one that
// its label kuma.io/mesh names, and for a MeshZoneAddress there once its Envoy
// is connected. An Envoy is in one mesh: a zone with several meshes needs a
// ZoneIngress with that label for each. It stays in its zone: peers know the
// rows that it stands for.
type ZoneIngress struct {
	// The zone that it is in, which can only be the one that it is written in.
	// Absent: that zone.
	Zone string `json:"zone,omitempty"`
	// Where it listens, and how other zones reach it.
	Networking ZoneIngressNetworking `json:"networking" req:"true"`
	// Does nothing: control planes of earlier releases noted here what could be
	// called. What can be called are the MeshServices of the zone.
	AvailableServices []AvailableService `json:"availableServices,omitempty" idle:"does nothing: what can be called are the MeshServices of the zone"`
}

// ZoneIngressNetworking is where an ingress listens and how others reach it.
type ZoneIngressNetworking struct {
	// The IP address or DNS name on which the proxy listens; not 0.0.0.0.
	Address string `json:"address,omitempty"`
	// The port on which the proxy listens.
	Port uint32 `json:"port" req:"true" min:"1" max:"65535"`
	// The IP address or DNS name that the proxies of other zones reach, such as
	// that of a load balancer; with advertisedPort. Absent: other zones do not
	// call through this ingress.
	AdvertisedAddress string `json:"advertisedAddress,omitempty"`
	// The port there, which leads to port.
	AdvertisedPort uint32 `json:"advertisedPort,omitempty" max:"65535"`
	// Envoy's administration.
	Admin *EnvoyAdmin `json:"admin,omitempty"`
}

// AvailableService is a service as earlier releases told other zones of it. It
// does nothing.
type AvailableService struct {
	// Does nothing.
	Tags map[string]string `json:"tags,omitempty"`
	// Does nothing.
	Instances uint32 `json:"instances,omitempty"`
	// Does nothing.
	Mesh string `json:"mesh,omitempty"`
	// Does nothing.
	ExternalService bool `json:"externalService,omitempty"`
}

// ZoneIngresses are written in zones and stay there.
var ZoneIngresses = newKind(Kind[ZoneIngress]{
	Facts: Facts{
		Name: "ZoneIngress", Plural: "zoneingresses", Short: "zi", Scope: GlobalScope, Flat: true, ZoneOnly: true,
	},
	Validate: func(m *Meta, s *ZoneIngress, r *Report) {
		checkOwnZone(m, s.Zone, r)
		n, at := &s.Networking, r.At("networking")
		checkZoneProxy(n.Address, n.Port, n.Admin, at)
		switch {
		case n.AdvertisedAddress == "" && n.AdvertisedPort != 0:
			at.At("advertisedAddress").Add("must be set together with advertisedPort")
		case n.AdvertisedAddress != "" && n.AdvertisedPort == 0:
			at.At("advertisedPort").Add("must be set together with advertisedAddress")
		}
		if n.AdvertisedAddress != "" {
			checkHost(n.AdvertisedAddress, at.At("advertisedAddress"))
		}
	},
})

// Advertised is where the proxies of other zones reach the ingress; ok is false
// when they do not.
func (s *ZoneIngress) Advertised() (a MeshZoneAddress, ok bool) {
	n := &s.Networking
	return MeshZoneAddress{Address: n.AdvertisedAddress, Port: int32(n.AdvertisedPort)}, n.AdvertisedAddress != "" && n.AdvertisedPort != 0
}
