package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

const passthroughPrefix = "meshpassthrough_"

// unmatchedBody is what a caller reads whose request is for no host that a policy
// names.
const unmatchedBody = "no MeshPassthrough lets requests for this host leave the mesh\n"

var passthroughSet = newPolicySet("passthroughs", api.MeshPassthroughs, func(s *api.MeshPassthrough) *api.TargetRef { return s.TargetRef })

// passthroughFor is what a class of proxies may call beside services.
var passthroughFor = newOwnPolicy("passthrough-for", passthroughSet, passthroughConf, func(rule policy.Rule[api.PassthroughConf]) passthrough {
	switch conf := rule.Conf; {
	case len(rule.Steps) == 0 || conf.PassthroughMode == "All":
		return passthrough{All: true}
	case conf.PassthroughMode == "None":
		return passthrough{}
	default:
		return passthrough{Matches: inOrder(conf.AppendMatch)}
	}
})

func passthroughConf(s *api.MeshPassthrough) api.PassthroughConf { return s.Default }

// passthrough is what passes: all, or what matches.
type passthrough struct {
	All     bool
	Matches []leaving // the more specific first
}

// leaving is a destination outside of the mesh.
type leaving struct {
	api.PassthroughMatch
	prefix netip.Prefix // of an IP or CIDR
}

// inOrder puts what is said more exactly first: TLS, which nothing else is mistaken
// for; addresses before names, so that a connection to an address that may be called
// in any case is not held to a list of names; then longer prefixes, more labels,
// certain ports; and of one destination its requests, if they can be told apart.
func inOrder(list []api.PassthroughMatch) []leaving {
	var out []leaving
	for _, m := range list {
		m.Value = strings.ToLower(m.Value)
		o := leaving{PassthroughMatch: m}
		switch m.Type {
		case "IP":
			ip, _ := netip.ParseAddr(m.Value) // validation has read it
			o.prefix = netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen())
		case "CIDR":
			prefix, _ := netip.ParsePrefix(m.Value)
			o.prefix = prefix.Masked()
		}
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b leaving) int {
		return cmp.Or(
			first(a.Protocol == "tls", b.Protocol == "tls"),
			first(a.Type != "Domain", b.Type != "Domain"),
			-cmp.Compare(a.prefix.Bits(), b.prefix.Bits()),
			first(!a.wildcard(), !b.wildcard()),
			-cmp.Compare(strings.Count(a.Value, "."), strings.Count(b.Value, ".")),
			first(a.Value != "*", b.Value != "*"),
			cmp.Compare(a.Value, b.Value),
			-cmp.Compare(a.Port, b.Port),
			first(isHTTP(a.Protocol), isHTTP(b.Protocol)),
			cmp.Compare(rank(a.Protocol), rank(b.Protocol)),
			cmp.Compare(a.Protocol, b.Protocol),
		)
	})
	return slices.CompactFunc(out, func(a, b leaving) bool { return a.name() == b.name() })
}

// first orders what is so before what is not.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (o leaving) wildcard() bool { return strings.HasPrefix(o.Value, "*") }

// label is the protocol in names: of plain connections there is one sort.
func (o leaving) label() string {
	if o.Protocol == "mysql" {
		return "tcp"
	}
	return o.Protocol
}

// name is that of the destination's cluster.
func (o leaving) name() string {
	return fmt.Sprintf("%s%s_%s_%s", passthroughPrefix, o.label(), o.Value, portText(o.Port))
}

func portText(port uint32) string {
	if port == 0 {
		return "*"
	}
	return fmt.Sprint(port)
}

// upstream is what is spoken to the destination.
func (o leaving) upstream() ir.Protocol {
	switch o.Protocol {
	case "http":
		return ir.HTTP1
	case "http2", "grpc":
		return ir.HTTP2
	}
	return ir.Bytes
}

// byName reports whether requests are told apart by their host.
func (o leaving) byName() bool { return o.Type == "Domain" && isHTTP(o.Protocol) }

// outsideCluster is a cluster for a destination outside.
type outsideCluster struct {
	Name     string
	Protocol ir.Protocol
}

// passthroughKey is a class of proxies, and the family of addresses that it calls.
type passthroughKey struct {
	Class policy.Class
	IPv6  bool
}

// passthroughClusters is what a class names for what may pass: it changes less often
// than what policies say.
var passthroughClusters = incr.NewQuery("passthrough-clusters", func(r *incr.Run, k passthroughKey) []outsideCluster {
	allowed := passthroughFor.Get(r, k.Class)
	if allowed.All {
		return nil // it is named in any case
	}
	out := convert(allowed.of(k.IPv6), func(o leaving) outsideCluster { return outsideCluster{o.name(), o.upstream()} })
	if len(out) == 0 {
		out = append(out, outsideCluster{Name: noDestinationName(ir.Outbound)})
	}
	return out
}, slices.Equal[[]outsideCluster])

// of is what matches of one family of addresses.
func (p passthrough) of(v6 bool) []leaving {
	return slices.DeleteFunc(slices.Clone(p.Matches), func(o leaving) bool { return o.Type != "Domain" && o.prefix.Addr().Is6() != v6 })
}

// serverFirst is the ports on which a client waits for the server.
func (p passthrough) serverFirst() []uint32 {
	var ports []uint32
	for _, o := range p.Matches {
		if o.Protocol == "mysql" {
			ports = append(ports, o.Port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// chains is what passes of one family of addresses, in the order in which it is
// tried; empty where it is all or nothing. Requests that are told apart by host come
// last, in one chain per port: a request for a host that nobody names is answered.
func (p passthrough) chains(v6 bool) []ir.Chain {
	var out []ir.Chain
	var ports []uint32
	for _, o := range p.of(v6) {
		if o.byName() {
			ports = append(ports, o.Port)
		} else {
			out = append(out, o.chain())
		}
	}
	slices.Sort(ports)
	for _, port := range slices.Backward(slices.Compact(ports)) {
		out = append(out, p.hosts(port))
	}
	return out
}

// chain takes the connections to a destination that is known before any request.
func (o leaving) chain() ir.Chain {
	name := o.name()
	c := ir.Chain{Name: name, Match: ir.ChainMatch{Transport: "raw_buffer", Port: o.Port}}
	if o.Type != "Domain" {
		c.Match.Ranges = []string{o.prefix.String()}
	}
	if !isHTTP(o.Protocol) {
		c.TCP = &ir.TCP{StatName: name, Backends: []ir.Backend{{Cluster: name}}}
		if o.Protocol == "tls" {
			c.Match.Transport = "tls"
			if o.Type == "Domain" && o.Value != "*" {
				c.Match.SNI = []string{o.Value}
			}
		}
		return c
	}
	c.Match.ALPN = ir.PlainHTTP()
	c.HTTP = hostsServed(name, o.Protocol == "grpc", []ir.VirtualHost{o.host(nil)})
	return c
}

// hosts takes the requests on a port, 0 for the ports that nobody names.
func (p passthrough) hosts(port uint32) ir.Chain {
	var hosts []ir.VirtualHost
	protocol, grpc := "", false
	taken := map[string]bool{} // host names; Envoy refuses one that comes twice
	for _, o := range p.Matches {
		if !o.byName() || o.Port != port && o.Port != 0 {
			continue
		}
		grpc = grpc || o.Protocol == "grpc"
		if o.Port == port && (protocol == "" || rank(o.Protocol) < rank(protocol)) {
			protocol = o.Protocol
		}
		var domains []string
		for _, d := range o.domains() {
			if !taken[d] {
				taken[d] = true
				domains = append(domains, d)
			}
		}
		if len(domains) > 0 {
			hosts = append(hosts, o.host(domains))
		}
	}
	if !taken["*"] {
		hosts = append(hosts, ir.VirtualHost{Name: "no_match", Domains: []string{"*"}, Routes: []ir.Route{{Respond: &ir.Respond{Status: 503, Body: unmatchedBody}}}})
	}
	name := fmt.Sprintf("%s%s_%s", passthroughPrefix, protocol, portText(port))
	return ir.Chain{
		Name: name, Match: ir.ChainMatch{Transport: "raw_buffer", ALPN: ir.PlainHTTP(), Port: port},
		HTTP: hostsServed(name, grpc, hosts),
	}
}

func rank(protocol string) int { return slices.Index([]string{"http", "http2", "grpc"}, protocol) }

func hostsServed(name string, grpc bool, hosts []ir.VirtualHost) *ir.HTTP {
	return &ir.HTTP{
		StatName: name, GRPC: grpc, IdleTimeout: ir.Span(0), // connections of the application end when it wants
		Routes: &ir.RouteConfig{Name: name, Origin: ir.OriginTransparent, Hosts: hosts},
	}
}

// domains is how requests name the host: with and without the port.
func (o leaving) domains() []string {
	switch {
	case o.Value == "*":
		return []string{"*"}
	case o.Port == 0:
		return []string{o.Value, o.Value + ":*"}
	}
	return []string{o.Value, fmt.Sprintf("%s:%d", o.Value, o.Port)}
}

// host sends requests for the domains to where their connection was made to.
func (o leaving) host(domains []string) ir.VirtualHost {
	return ir.VirtualHost{Name: o.Value, Domains: domains, Routes: []ir.Route{{Forward: &ir.Forward{Backends: []ir.Backend{{Cluster: o.name()}}}}}}
}
