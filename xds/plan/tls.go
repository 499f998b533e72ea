package plan

import (
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var tlsSet = newPolicySet("tls", api.MeshTLSes, func(s *api.MeshTLS) *api.TargetRef { return s.TargetRef })

// inboundTLS is what TLS policies say about one inbound.
type inboundTLS struct {
	Permissive bool
	Params     ir.TLSParams
}

var tlsIn = newInPolicy("tls-in", tlsSet, tlsRules, func(rules []policy.InboundRule[api.MeshTLSConf]) inboundTLS {
	all, _ := policy.CatchAll(rules)
	return inboundTLS{Permissive: all.Conf.Mode == "Permissive", Params: tlsParams(all.Conf)}
})

func tlsRules(s *api.MeshTLS) []policy.Inbound[api.MeshTLSConf] {
	return convert(s.Rules, func(rule api.MeshTLSRule) policy.Inbound[api.MeshTLSConf] {
		return policy.Inbound[api.MeshTLSConf]{Default: rule.Default}
	})
}

// tlsTo is which TLS a class speaks when it calls: what policies say about the
// whole mesh, which alone may speak of it. No inbound is needed for that.
var tlsTo = incr.NewQuery("tls-to", func(r *incr.Run, c policy.Class) word[ir.TLSParams] {
	return wordOf(tlsIn.Get(r, sectionKey{Class: c}).Params)
}, func(a, b word[ir.TLSParams]) bool { return a == b })

func tlsParams(c api.MeshTLSConf) ir.TLSParams {
	version := func(name string) string { // TLS12 is 1.2
		if digits, ok := strings.CutPrefix(name, "TLS1"); ok {
			return "1." + digits
		}
		return ""
	}
	v := value(c.TLSVersion)
	return ir.TLSParams{Min: version(v.Min), Max: version(v.Max), Ciphers: c.TLSCiphers}
}

// permissive lets in callers without mesh TLS on the same port: those that speak
// plainly, and those whose TLS is a matter of the application. Nobody knows who
// they are, so that permissions do not concern them. Mesh TLS is told from other
// TLS by its protocol name.
func permissive(mesh ir.Chain, cluster string, idle ir.Duration) []ir.Chain {
	mesh.Match = ir.ChainMatch{Transport: "tls", ALPN: []string{meshALPN}}
	plain := mesh
	plain.Match = ir.ChainMatch{Transport: "raw_buffer"}
	plain.TLS, plain.Permissions = nil, nil
	plain.Logs = slices.DeleteFunc(slices.Clone(mesh.Logs), func(l ir.AccessLog) bool { return l.Denied })
	foreign := plain
	foreign.Match = ir.ChainMatch{Transport: "tls"}
	foreign.HTTP, foreign.TCP = nil, &ir.TCP{StatName: cluster, Backends: []ir.Backend{{Cluster: cluster}}, IdleTimeout: idle}
	return []ir.Chain{plain, foreign, mesh}
}
