package api

import "slices"

// MeshTLS says which TLS the proxies of a mesh speak with each other. Only
// proxies that have an identity can.
type MeshTLS struct {
	_ struct{} `gone:"from" use:"rules"`

	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef    `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	Rules     []MeshTLSRule `json:"rules,omitempty"`
}

// MeshTLSRule is about all callers.
type MeshTLSRule struct {
	Default MeshTLSConf `json:"default,omitzero"`
}

// MeshTLSConf leaves unset what it does not speak of.
type MeshTLSConf struct {
	// Mode empty is Strict. Permissive lets in callers without TLS as well.
	Mode string `json:"mode,omitempty" enum:"Strict,Permissive"`
	// TLSVersion and TLSCiphers concern both ends of a connection and therefore
	// the whole mesh.
	TLSVersion *TLSVersion `json:"tlsVersion,omitempty"`
	TLSCiphers []string    `json:"tlsCiphers,omitempty" items:"ECDHE-ECDSA-AES128-GCM-SHA256,ECDHE-ECDSA-AES256-GCM-SHA384,ECDHE-ECDSA-CHACHA20-POLY1305,ECDHE-RSA-AES128-GCM-SHA256,ECDHE-RSA-AES256-GCM-SHA384,ECDHE-RSA-CHACHA20-POLY1305"`
}

// TLSVersion bounds the versions of TLS; TLSAuto leaves the bound to Envoy.
type TLSVersion struct {
	Min string `json:"min,omitempty" enum:"TLSAuto,TLS10,TLS11,TLS12,TLS13" default:"TLSAuto"`
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
