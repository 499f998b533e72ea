package api

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
)

// MeshPassthrough says which destinations outside of the mesh a proxy may call
// directly, without being known as a service. Use it to shut the mesh to the
// outside, or to all but a list. It needs transparent proxying; without it
// everything may be called.
type MeshPassthrough struct {
	// The proxies that call; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// What they may call; policies that select a proxy more exactly win, value
	// by value.
	Default PassthroughConf `json:"default,omitzero"`
}

// PassthroughConf leaves unset what it does not speak of.
type PassthroughConf struct {
	// All is everything, None nothing, Matched what the list says. Absent:
	// Matched.
	PassthroughMode string `json:"passthroughMode,omitempty" enum:"All,Matched,None"`
	// What Matched lets through; the lists of all policies are joined.
	AppendMatch []PassthroughMatch `json:"appendMatch,omitempty"`
}

// PassthroughMatch is a destination outside the mesh.
type PassthroughMatch struct {
	// What the value is. A Domain is recognised by the server name of TLS or the
	// host of HTTP, and cannot be plain tcp or mysql.
	Type string `json:"type" req:"true" enum:"Domain,IP,CIDR"`
	// 10.1.2.3, 10.0.0.0/8, api.example.com; a Domain may begin with the
	// wildcard label "*." or be "*".
	Value string `json:"value" req:"true" minLen:"1"`
	// The port that is called; absent: any. Needed for mysql and for wildcards
	// with an HTTP protocol.
	Port uint32 `json:"port,omitempty" min:"1" max:"65535"`
	// What is spoken there; all HTTP protocols on one port must be the same.
	Protocol string `json:"protocol,omitempty" enum:"tcp,tls,grpc,http,http2,mysql" default:"tcp"`
}

// MeshPassthroughs are written anywhere.
var MeshPassthroughs = newKind(Kind[MeshPassthrough]{
	Facts: Facts{
		Name: "MeshPassthrough", Plural: "meshpassthroughs", Short: "mp", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{Single: true},
	},
	Cross: crossesAsProducer,
	Validate: func(_ *Meta, s *MeshPassthrough, r *Report) {
		checkTop(s.TargetRef, false, r.At("targetRef"))
		s.Default.check(r.At("default"))
	},
})

func (c *PassthroughConf) check(r *Report) {
	type socket struct {
		port            uint32
		protocol, value string
	}
	seen := map[socket]bool{}
	requests := map[uint32]string{} // port to the protocol whose requests are told apart there
	for i, m := range c.AppendMatch {
		at := r.Index("appendMatch", i)
		m.check(at)
		if s := (socket{m.Port, m.Protocol, m.Value}); seen[s] {
			at.At("value").Add("value %s is already defined for protocol %s on port %s", m.Value, m.Protocol, m.portText())
		} else {
			seen[s] = true
		}
		if !m.tellsRequestsApart() {
			continue
		}
		if requests[m.Port] = cmp.Or(requests[m.Port], m.Protocol); requests[m.Port] != m.Protocol {
			at.At("port").Add("using the same port in multiple matches requires the same protocol for the following protocols: [grpc http http2]")
		}
	}
}

func (m *PassthroughMatch) portText() string {
	if m.Port == 0 {
		return "*"
	}
	return strconv.Itoa(int(m.Port))
}

func (m *PassthroughMatch) tellsRequestsApart() bool {
	return m.Protocol == "grpc" || m.Protocol == "http" || m.Protocol == "http2"
}

func (m *PassthroughMatch) check(r *Report) {
	value, protocol := r.At("value"), r.At("protocol")
	if m.Protocol == "mysql" && m.Port == 0 {
		r.At("port").Add("must be defined")
	}
	switch m.Type {
	case "IP":
		if _, err := netip.ParseAddr(m.Value); err != nil {
			value.Add("must be a valid IP address")
		}
	case "CIDR":
		if _, err := netip.ParsePrefix(m.Value); err != nil {
			value.Add("must be a valid CIDR, such as 10.0.0.0/8")
		}
	case "Domain":
		if m.Protocol == "tcp" || m.Protocol == "mysql" {
			protocol.Add("protocol %s is not supported for a domain", m.Protocol)
		}
		rest, wildcard := strings.CutPrefix(m.Value, "*")
		domain := strings.TrimPrefix(rest, ".")
		switch {
		case wildcard && rest != "" && rest == domain:
			value.Add("provided DNS has incorrect value, partial wildcard is currently not supported")
		case m.Value != "*" && (len(domain) > 253 || !dnsSubdomain.MatchString(strings.ToLower(domain))):
			value.Add("provided DNS has incorrect value, must be a domain name such as example.com or *.example.com")
		}
		if wildcard && m.Port == 0 && m.tellsRequestsApart() {
			r.At("port").Add("must be defined for a wildcard domain with protocol %s", m.Protocol)
		}
	}
}
