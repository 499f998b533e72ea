package api

import "slices"

// MeshTLS says whether proxies take calls without mesh TLS, and which TLS they
// speak with each other. Use Permissive while workloads move into the mesh.
// Only proxies that have an identity speak TLS.
type MeshTLS struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that are called, or one inbound of them; absent: all of the
	// mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// What holds for all callers; of several rules the later wins, value by
	// value.
	Rules []MeshTLSRule `json:"rules,omitempty"`
}

// MeshTLSRule is about all callers.
type MeshTLSRule struct {
	// How TLS is spoken.
	Default MeshTLSConf `json:"default,omitzero"`
}

// MeshTLSConf leaves unset what it does not speak of.
type MeshTLSConf struct {
	// Strict refuses callers without a certificate of the mesh; Permissive lets
	// them in on the same port, without identity. Absent: Strict.
	Mode string `json:"mode,omitempty" enum:"Strict,Permissive"`
	// Which versions are spoken between proxies. Both ends of a connection need
	// it, so that it can only be set for the whole mesh.
	TLSVersion *TLSVersion `json:"tlsVersion,omitempty"`
	// Ciphers for TLS 1.2 and older, in order of preference; like tlsVersion for
	// the whole mesh only. Absent: those of Envoy. TLS 1.3 has its own.
	TLSCiphers []string `json:"tlsCiphers,omitempty" items:"ECDHE-ECDSA-AES128-GCM-SHA256,ECDHE-ECDSA-AES256-GCM-SHA384,ECDHE-ECDSA-CHACHA20-POLY1305,ECDHE-RSA-AES128-GCM-SHA256,ECDHE-RSA-AES256-GCM-SHA384,ECDHE-RSA-CHACHA20-POLY1305"`
}

// TLSVersion bounds the versions of TLS; TLSAuto leaves the bound to Envoy.
type TLSVersion struct {
	// The oldest version that is spoken; TLSAuto leaves it to Envoy.
	Min string `json:"min,omitempty" enum:"TLSAuto,TLS10,TLS11,TLS12,TLS13" default:"TLSAuto"`
	// The newest version that is spoken; TLSAuto leaves it to Envoy.
	Max string `json:"max,omitempty" enum:"TLSAuto,TLS10,TLS11,TLS12,TLS13" default:"TLSAuto"`
}

// MeshTLSes are written anywhere.
var MeshTLSes = newKind(Kind[MeshTLS]{
	Facts: Facts{
		Name: "MeshTLS", Plural: "meshtlses", Short: "mtls", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{Rules: true},
	},
	Cross: crossesAsProducer,
	Validate: func(_ *Meta, s *MeshTLS, r *Report) {
		checkTop(s.TargetRef, len(s.Rules) > 0, r.At("targetRef"))
		for i, rule := range s.Rules {
			rule.Default.check(s.TargetRef, r.Index("rules", i).At("default"))
		}
	},
})

func (c *MeshTLSConf) check(top *TargetRef, r *Report) {
	if c.TLSVersion != nil {
		c.TLSVersion.check(r.At("tlsVersion"))
	}
	if top == nil || top.Kind == RefMesh {
		return
	}
	if c.TLSVersion != nil {
		r.At("tlsVersion").Add("tlsVersion can only be defined with top level targetRef kind: Mesh")
	}
	if len(c.TLSCiphers) > 0 {
		r.At("tlsCiphers").Add("tlsCiphers can only be defined with top level targetRef kind: Mesh")
	}
}

// check refuses a range that holds no version. TLSAuto is no bound.
func (v *TLSVersion) check(r *Report) {
	ascending := []string{"TLS10", "TLS11", "TLS12", "TLS13"}
	least, most := slices.Index(ascending, v.Min), slices.Index(ascending, v.Max)
	if least >= 0 && most >= 0 && least > most {
		r.At("min").Add("min version must be lower than max")
	}
}
