package api

import (
	"cmp"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Dataplane is a proxy: the address of a workload, what it listens on and what
// it calls. On Kubernetes the control plane writes it for each pod; elsewhere
// the proxy brings it when it starts. A zone proxy is a Dataplane with
// listeners.
type Dataplane struct {
	_ struct{} `gone:"probes" use:"networking.inbound[].serviceProbe"`
	_ struct{} `gone:"metrics" use:"MeshMetric"`

	// How the proxy is reached and what it reaches.
	Networking Networking `json:"networking" req:"true"`
}

// Networking is how a proxy is reached and what it reaches.
type Networking struct {
	_ struct{} `gone:"advertisedAddress" use:"MeshZoneAddress"`
	_ struct{} `gone:"ingress" use:"networking.listeners with type ZoneIngress"`

	// The IP address or DNS name under which other proxies reach it; not
	// 0.0.0.0.
	Address string `json:"address,omitempty"`
	// Envoy's administration.
	Admin *EnvoyAdmin `json:"admin,omitempty"`
	// Ports of the workload that others may call.
	Inbound []Inbound `json:"inbound,omitempty"`
	// Local ports through which the workload calls services; not needed with
	// transparent proxying.
	Outbound []Outbound `json:"outbound,omitempty"`
	// Marks the proxy of a gateway of your own, such as an ingress controller;
	// it has no inbounds and no listeners.
	Gateway *Gateway `json:"gateway,omitempty"`
	// Says that the host redirects traffic to the proxy, so that services are
	// called by name and port. Absent: it does not.
	TransparentProxying *TransparentProxying `json:"transparentProxying,omitempty"`
	// Makes it a zone proxy: where it takes traffic from other zones, or to them
	// and to external services.
	Listeners []ZoneListener `json:"listeners,omitempty"`
}

// EnvoyAdmin is Envoy's own administration.
type EnvoyAdmin struct {
	// The port of Envoy's administration on 127.0.0.1. Absent: that of the
	// control plane's settings, 9901 unless changed.
	Port uint32 `json:"port,omitempty" max:"65535"`
}

// Inbound is a port of the workload.
type Inbound struct {
	// The section by which policies (sectionName) and services (targetPort) mean
	// it. Absent: the port as text.
	Name string `json:"name,omitempty"`
	// The IP address on which the proxy listens. Absent: networking.address.
	Address string `json:"address,omitempty"`
	// The port on which the proxy listens for others; with transparent proxying
	// that of the workload.
	Port uint32 `json:"port" req:"true" min:"1" max:"65535"`
	// The port on which the workload itself listens. Absent: port.
	ServicePort uint32 `json:"servicePort,omitempty" max:"65535"`
	// The IP address on which the workload itself listens. Absent: the address
	// of the inbound.
	ServiceAddress string `json:"serviceAddress,omitempty"`
	// What the workload speaks: http, http2, grpc or tcp; also read: tls, mysql.
	// HTTP policies need more than tcp. Absent: the tag kuma.io/protocol, else
	// tcp.
	Protocol string `json:"protocol,omitempty"`
	// Tags of earlier releases, which older forms of policies select by. Labels
	// of the Dataplane replace them.
	Tags map[string]string `json:"tags,omitempty"`
	// NotReady gets no traffic; Ignored belongs to no service either, but has an
	// identity.
	State string `json:"state,omitempty" enum:"Ready,NotReady,Ignored" default:"Ready"`
	// Health as it is known from elsewhere. Absent: healthy.
	Health *Health `json:"health,omitempty"`
	// How the proxy checks its workload; with it the inbound is not ready until
	// the first good answer.
	ServiceProbe *ServiceProbe `json:"serviceProbe,omitempty"`
}

// Health is what is known of a workload from elsewhere.
type Health struct {
	// false keeps traffic away. Absent: false.
	Ready bool `json:"ready,omitempty"`
}

// ServiceProbe is how the proxy checks its workload. An inbound with a probe is
// not ready until the first answer.
type ServiceProbe struct {
	// Time between two checks. Absent: that of the control plane, 1s unless
	// changed.
	Interval *ProtoDuration `json:"interval,omitempty"`
	// How long an answer may take. Absent: that of the control plane, 2s unless
	// changed.
	Timeout *ProtoDuration `json:"timeout,omitempty"`
	// Failed checks in a row before the inbound is not ready. Absent: 1.
	UnhealthyThreshold *uint32 `json:"unhealthyThreshold,omitempty"`
	// Good checks in a row before it is ready again. Absent: 1.
	HealthyThreshold *uint32 `json:"healthyThreshold,omitempty"`
	// Checks that the port accepts connections, the only sort there is: {}.
	TCP *TCPProbe `json:"tcp,omitempty"`
}

// TCPProbe checks that the port accepts connections.
type TCPProbe struct{}

// Outbound is a local port behind which a service is.
type Outbound struct {
	_ struct{} `gone:"tags" use:"backendRef"`

	// The IP address on which the proxy listens for the workload. Absent:
	// 127.0.0.1.
	Address string `json:"address,omitempty"`
	// The port that the workload calls.
	Port uint32 `json:"port" req:"true" min:"1" max:"65535"`
	// The service behind it.
	BackendRef OutboundBackendRef `json:"backendRef" req:"true"`
}

// OutboundBackendRef names a port of a service by the name of the service at
// this control plane or by labels.
type OutboundBackendRef struct {
	// The kind of the service: of one zone, outside of the mesh, or of several
	// zones.
	Kind string `json:"kind" req:"true" enum:"MeshService,MeshExternalService,MeshMultiZoneService"`
	// The name by which calls of this control plane's API name the service.
	Name string `json:"name,omitempty"`
	// The port of the service, by number; not needed for a MeshExternalService.
	Port uint32 `json:"port,omitempty" max:"65535"`
	// Labels that the service carries, in place of name; of several that do the
	// oldest is taken, and without any nothing listens.
	Labels map[string]string `json:"labels,omitempty"`
	// Older means the first port of the service, if there is no Port.
	Older *OlderRef `json:"older,omitempty" meant:"true"`
}

// Gateway marks the proxy of a gateway of the user's own: traffic into it is
// not in the mesh.
type Gateway struct {
	// DELEGATED is a gateway of your own, which calls services through the
	// proxy.
	Type string `json:"type,omitempty" enum:"DELEGATED" default:"DELEGATED"`
	// Tags of earlier releases, with kuma.io/service if there are any. Labels of
	// the Dataplane are enough.
	Tags map[string]string `json:"tags,omitempty"`
}

// TransparentProxying says that the host redirects traffic to the proxy.
type TransparentProxying struct {
	_ struct{} `gone:"reachableServices" use:"reachableBackends"`
	_ struct{} `gone:"redirectPortInboundV6" use:"ipFamilyMode"`

	// The port of the proxy to which the host redirects incoming connections;
	// what the proxy says of itself when it starts goes before it. Absent: they
	// are not redirected.
	RedirectPortInbound uint32 `json:"redirectPortInbound,omitempty" max:"65535"`
	// The port of the proxy to which the host redirects outgoing connections;
	// what the proxy says of itself when it starts goes before it. Absent: they
	// are not redirected.
	RedirectPortOutbound uint32 `json:"redirectPortOutbound,omitempty" max:"65535"`
	// Which addresses the host redirects. Absent: both families.
	IPFamilyMode string `json:"ipFamilyMode,omitempty" enum:"UnSpecified,DualStack,IPv4,IPv6"`
	// Services, by the label kuma.io/service of their Dataplanes, whose members
	// can be called by their own addresses, without TLS; [*] is all.
	DirectAccessServices []string `json:"directAccessServices,omitempty"`
	// The only services that the proxy is configured for, which keeps it small
	// in a large mesh. Absent: all.
	ReachableBackends *ReachableBackends `json:"reachableBackends,omitempty"`
}

// ReachableBackends are the only services the proxy calls.
type ReachableBackends struct {
	// The services; absent or []: none.
	Refs []ReachableBackendRef `json:"refs,omitempty"`
}

// ReachableBackendRef names a service by name and namespace or by labels.
type ReachableBackendRef struct {
	// The kind of the service.
	Kind string `json:"kind" req:"true" enum:"MeshService,MeshExternalService,MeshMultiZoneService"`
	// The name of one service; not together with labels.
	Name string `json:"name,omitempty"`
	// Its namespace on Kubernetes; only together with name.
	Namespace string `json:"namespace,omitempty"`
	// One of its ports, by number. Absent: all.
	Port *uint32 `json:"port,omitempty" min:"1" max:"65535"`
	// Labels that services carry, in place of name; all that do are reachable.
	Labels map[string]string `json:"labels,omitempty"`
}

// ZoneListener is where a zone proxy takes traffic from or to other zones.
type ZoneListener struct {
	// ZoneIngress takes calls from other zones to services of this zone;
	// ZoneEgress takes calls of this zone to external services.
	Type string `json:"type" req:"true" enum:"ZoneIngress,ZoneEgress" enumFrom:"1"`
	// The IP address or DNS name on which the proxy listens; for others to
	// reach, MeshZoneAddress says where.
	Address string `json:"address,omitempty"`
	// The port on which the proxy listens.
	Port uint32 `json:"port" req:"true" min:"1" max:"65535"`
	// The section by which policies mean it. Absent: the port as text.
	Name string `json:"name,omitempty"`
	// NotReady gets no traffic.
	State string `json:"state,omitempty" enum:"Ready,NotReady" default:"Ready"`
}

// Dataplanes are written in zones and reported to global.
var Dataplanes = newKind(Kind[Dataplane]{
	Facts: Facts{
		Name: "Dataplane", Plural: "dataplanes", Short: "dp", Scope: MeshScope, Flow: Up,
		Flat: true, ZoneOnly: true,
	},
	Upgrade: upgradeOutbounds,
	Default: func(s *Dataplane) {
		for i, in := range s.Networking.Inbound {
			s.Networking.Inbound[i].Protocol = strings.ToLower(cmp.Or(in.Protocol, in.Tags[LabelProtocol]))
			if in.ServiceProbe != nil && in.Health == nil {
				s.Networking.Inbound[i].Health = &Health{}
			}
		}
	},
	Label:    dataplaneLabels,
	Validate: validateDataplane,
	Share: func(s, with *Dataplane) {
		if slices.EqualFunc(s.Networking.Outbound, with.Networking.Outbound, Outbound.equal) {
			s.Networking.Outbound = with.Networking.Outbound
		}
	},
})

// dataplaneLabels adds the workload, by which services and identities find the
// proxy, and which kinds of zone proxy it is. What earlier releases called the
// type of a proxy goes: it would go on saying so of a proxy that has changed.
func dataplaneLabels(m *Meta, s *Dataplane) map[string]string {
	labels := maps.Clone(m.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if labels[LabelWorkload] == "" && (len(s.Networking.Inbound) > 0 || s.Networking.Gateway != nil) {
		labels[LabelWorkload] = WorkloadOf(&Object[Dataplane]{Meta: *m, Spec: *s})
	}
	for _, name := range []string{LabelIngress, LabelEgress, TagProxyType} {
		delete(labels, name)
	}
	for _, l := range s.Networking.Listeners {
		switch l.Type {
		case "ZoneIngress":
			labels[LabelIngress] = "enabled"
		case "ZoneEgress":
			labels[LabelEgress] = "enabled"
		}
	}
	return labels
}

// Section is the name by which policies and services name the inbound.
func (in Inbound) Section() string { return cmp.Or(in.Name, strconv.Itoa(int(in.Port))) }

// AppProtocol is the protocol in the words of services: tcp, http, http2 or grpc.
func (in Inbound) AppProtocol() string {
	switch in.Protocol {
	case "http", "http2", "grpc":
		return in.Protocol
	}
	return "tcp"
}

// Healthy reports whether the inbound may get traffic.
func (in Inbound) Healthy() bool {
	return (in.State == "" || in.State == "Ready") && (in.Health == nil || in.Health.Ready)
}

// Section is the name by which policies name the listener.
func (l ZoneListener) Section() string { return cmp.Or(l.Name, strconv.Itoa(int(l.Port))) }

// Ready reports whether the listener may get traffic.
func (l ZoneListener) Ready() bool { return l.State == "" || l.State == "Ready" }

var (
	tagName  = regexp.MustCompile(`^[a-zA-Z0-9.\-_:/]*$`)
	tagValue = regexp.MustCompile(`^[a-zA-Z0-9.\-_:]*$`)
)

func validateDataplane(_ *Meta, s *Dataplane, r *Report) {
	n, at := &s.Networking, r.At("networking")
	checkAddress(n.Address, at.At("address"))
	if n.Gateway != nil {
		n.Gateway.check(at.At("gateway"))
		if len(n.Inbound) > 0 {
			at.At("inbound").Add("inbound cannot be defined for gateways")
		}
		if len(n.Listeners) > 0 {
			at.At("listeners").Add("listeners cannot be defined for gateways")
		}
	}
	for i, in := range n.Inbound {
		in.check(at.Index("inbound", i))
	}
	for i, out := range n.Outbound {
		out.check(at.Index("outbound", i))
	}
	n.checkAdmin(at)
	n.checkListeners(at)
	if tp := n.TransparentProxying; tp != nil && tp.ReachableBackends != nil {
		for i, ref := range tp.ReachableBackends.Refs {
			ref.check(at.At("transparentProxying.reachableBackends").Index("refs", i))
		}
	}
}

func checkAddress(s string, r *Report) {
	if s == "" {
		r.Add("address can't be empty")
		return
	}
	checkHost(s, r)
}

// checkAdmin: Envoy's administration listens on the loopback address.
func (n *Networking) checkAdmin(r *Report) {
	if n.Admin == nil || n.Admin.Port == 0 {
		return
	}
	for _, in := range n.Inbound {
		if in.Port == n.Admin.Port && cmp.Or(in.Address, n.Address) == "127.0.0.1" {
			r.At("admin.port").Add("must differ from the port of inbound %s on 127.0.0.1", in.Section())
		}
	}
	for i, out := range n.Outbound {
		if out.Port == n.Admin.Port && cmp.Or(out.Address, "127.0.0.1") == "127.0.0.1" {
			r.At("admin.port").Add("must differ from the port of outbound[%d] on 127.0.0.1", i)
		}
	}
}

func (n *Networking) checkListeners(r *Report) {
	names := map[string]bool{}
	taken := map[string]bool{}
	socket := func(address string, port uint32) string {
		return net.JoinHostPort(address, strconv.Itoa(int(port)))
	}
	for _, in := range n.Inbound {
		names[in.Section()] = true
		taken[socket(cmp.Or(in.Address, n.Address), in.Port)] = true
	}
	types := map[string]string{}
	for i, l := range n.Listeners {
		at := r.Index("listeners", i)
		checkAddress(l.Address, at.At("address"))
		if names[l.Section()] {
			at.At("name").Add("name %q is already used by another inbound or listener", l.Section())
		}
		names[l.Section()] = true
		key := socket(l.Address, l.Port)
		switch other, again := types[key]; {
		case taken[key]:
			at.At("port").Add("%s collides with an inbound listener", key)
		case again && other != l.Type:
			at.At("port").Add("%s is used by listeners of different types", key)
		case again:
			at.At("port").Add("%s is already used by another listener", key)
		}
		types[key] = l.Type
	}
}

func (in *Inbound) check(r *Report) {
	checkIP(in.Address, r.At("address"))
	checkIP(in.ServiceAddress, r.At("serviceAddress"))
	checkTags(in.Tags, r)
	switch strings.ToLower(in.Protocol) {
	case "", "grpc", "http", "http2", "tcp", "tls", "mysql":
	default:
		r.At("protocol").Add("has an invalid value %q. Allowed values: grpc, http, http2, tcp", in.Protocol)
	}
	if p := in.ServiceProbe; p != nil {
		at := r.At("serviceProbe")
		positive := func(field string, bad bool) {
			if bad {
				at.At(field).Add("must be greater than 0")
			}
		}
		positive("interval", p.Interval != nil && p.Interval.Duration <= 0)
		positive("timeout", p.Timeout != nil && p.Timeout.Duration <= 0)
		positive("unhealthyThreshold", p.UnhealthyThreshold != nil && *p.UnhealthyThreshold == 0)
		positive("healthyThreshold", p.HealthyThreshold != nil && *p.HealthyThreshold == 0)
	}
}

func (out Outbound) equal(o Outbound) bool {
	a, b := out.BackendRef, o.BackendRef
	return out.Address == o.Address && out.Port == o.Port &&
		a.Kind == b.Kind && a.Name == b.Name && a.Port == b.Port && maps.Equal(a.Labels, b.Labels)
}

func (out *Outbound) check(r *Report) {
	checkIP(out.Address, r.At("address"))
	ref, at := out.BackendRef, r.At("backendRef")
	if ref.Name == "" && len(ref.Labels) == 0 {
		at.Add("either 'name' or 'labels' must be set")
	}
	if ref.Port == 0 && ref.Kind != RefExternalService && ref.Older == nil {
		at.At("port").Add("port must be in the range [1, 65535]")
	}
}

func (g *Gateway) check(r *Report) {
	if len(g.Tags) == 0 {
		return
	}
	if g.Tags[LabelService] == "" {
		r.Key("tags", LabelService).Add("tag has to exist")
	}
	checkTags(g.Tags, r)
	if p := g.Tags[LabelProtocol]; p != "" && p != "tcp" {
		r.Key("tags", LabelProtocol).Add("other values than TCP are not allowed")
	}
}

func checkTags(tags map[string]string, r *Report) {
	for _, name := range sortedKeys(tags) {
		value, at := tags[name], r.Key("tags", name)
		switch {
		case value == "":
			at.Add("tag value cannot be empty")
		case !tagName.MatchString(name):
			at.Add("tag name must consist of alphanumeric characters, dots, dashes, slashes, colons and underscores")
		case !tagValue.MatchString(value):
			at.Add("tag value must consist of alphanumeric characters, dots, dashes, colons and underscores")
		}
	}
}

func (ref *ReachableBackendRef) check(r *Report) {
	switch {
	case ref.Name != "" && len(ref.Labels) > 0:
		r.Add("either 'name' or 'labels' must be set, not both")
	case ref.Name == "" && len(ref.Labels) == 0:
		r.Add("either 'name' or 'labels' must be set")
	case ref.Namespace != "" && ref.Name == "":
		r.At("name").Add("must be set when namespace is set")
	}
}
