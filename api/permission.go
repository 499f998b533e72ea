package api

import (
	"regexp"
	"strings"
)

// MeshTrafficPermission says who may call whom, by the identities of callers. A
// proxy that has an identity refuses every caller that no permission lets in.
type MeshTrafficPermission struct {
	_ struct{} `gone:"from" use:"rules"`

	// The proxies that are called, or one inbound of them; absent: all of the
	// mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Lists of callers. Those of all policies that select a proxy count
	// together; none replaces another.
	Rules []PermissionRule `json:"rules,omitempty"`
}

// PermissionRule is lists of calls.
type PermissionRule struct {
	// What is let in and what is not; at least one of the lists.
	Default PermissionConf `json:"default,omitzero"`
}

// PermissionConf: Deny goes before the others; AllowWithShadowDeny allows and
// reports.
//
// Conditions on requests are compared such that spelling a request in another way
// never lets it in: by allow as they are written, by deny as the most lenient
// server reads requests.
type PermissionConf struct {
	// Calls that are refused, whatever else allows them. Conditions on requests
	// are compared without case; paths without the parameters of segments (/a;x=1
	// is /a) and without a slash at the end; of a header sent several times any
	// value counts; GET is also HEAD. They have no regular expressions, past which
	// such spellings would slip. At an inbound that does not speak HTTP they are
	// taken as met. What a server does beyond that, such as taking the path from a
	// header, no proxy knows: it is safer to allow what may pass than to deny the
	// rest.
	Deny []PermissionMatch `json:"deny,omitempty"`
	// Calls that are let in unless a deny matches; {} matches everything. At an
	// inbound that does not speak HTTP, conditions on requests are never met.
	Allow []PermissionMatch `json:"allow,omitempty"`
	// Calls that are let in, and counted in Envoy's shadow statistics as if
	// refused: to see what a deny would do. Like deny without regular expressions.
	AllowWithShadowDeny []PermissionMatch `json:"allowWithShadowDeny,omitempty"`
}

// PermissionMatch tells calls apart by the caller and, where the inbound speaks
// HTTP, by the request; all conditions must hold. The zero value matches every
// call.
type PermissionMatch struct {
	// By the SPIFFE ID in the certificate that the caller presents; absent: any
	// caller.
	SpiffeID *SpiffeIDMatch `json:"spiffeID,omitempty"`
	// By the server name that the caller asks for in its TLS handshake; absent:
	// any name.
	SNI *SNIMatch `json:"sni,omitempty"`
	// By the method of the request; absent: any. An allow of GET is none of HEAD.
	Method string `json:"method,omitempty" enum:"CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,TRACE" own:"true"`
	// By the path of the request, without the query; absent: any. An inbound with
	// such a condition brings every path into its normal form (RFC 3986, section
	// 6), in which it is compared and passed on: /a/../b, /a//../b, /%62 and
	// /a%2F..%2Fb are /b. What is percent-encoded still is compared decoded, but
	// with a RegularExpression as it stands. It refuses paths such as /a/..;/b and
	// /;x/b, which some servers take for /b.
	Path *PathMatch `json:"path,omitempty" own:"true"`
	// By headers of the request that must all match; absent: any. What a caller
	// sends several times is compared joined by commas. Callers write headers as
	// they like, so that they only tell requests apart, never callers.
	Headers []HeaderMatch `json:"headers,omitempty" own:"true"`
	// Caller is set by older forms, alone; nil: none. Who does not resolve it must
	// treat the match as one that nobody meets.
	Caller *Caller `json:"caller,omitempty" meant:"true"`
}

// Peer is the conditions on the caller.
func (m PermissionMatch) Peer() Match { return Match{m.SpiffeID, m.SNI, m.Caller} }

// ByRequest reports whether there are conditions on the request.
func (m PermissionMatch) ByRequest() bool {
	return m.Method != "" || m.Path != nil || len(m.Headers) > 0
}

// MeshTrafficPermissions are written anywhere.
var MeshTrafficPermissions = newKind(Kind[MeshTrafficPermission]{
	Facts: Facts{
		Name: "MeshTrafficPermission", Plural: "meshtrafficpermissions", Short: "mtp", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{Rules: true, Callers: true},
	},
	Cross:    crossesAsProducer,
	Validate: validatePermission,
})

func validatePermission(_ *Meta, s *MeshTrafficPermission, r *Report) {
	checkTop(s.TargetRef, true, r.At("targetRef"))
	if len(s.Rules) == 0 {
		r.Add("policy must define rules")
	}
	for i, rule := range s.Rules {
		at := r.Index("rules", i)
		if len(rule.Default.Deny)+len(rule.Default.Allow)+len(rule.Default.AllowWithShadowDeny) == 0 {
			at.Add("at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined")
		}
		list := func(field string, matches []PermissionMatch, denies bool) {
			for j, m := range matches {
				m.check(denies, at.Index(field, j)) // without default: so the existing ecosystem reports it
			}
		}
		list("deny", rule.Default.Deny, true)
		list("allow", rule.Default.Allow, false)
		list("allowWithShadowDeny", rule.Default.AllowWithShadowDeny, true)
	}
}

func (m PermissionMatch) check(denies bool, r *Report) {
	checkMatch(m.Peer(), r)
	checkHeaderMatches("headers", m.Headers, r)
	const slips = "must not be RegularExpression in a deny, which other spellings of a request would slip past; allow what may pass instead"
	for i, h := range m.Headers {
		if denies && h.Type == "RegularExpression" {
			r.Index("headers", i).At("type").Add(slips)
		}
	}
	if m.Path == nil {
		return
	}
	expression := m.Path.Type == "RegularExpression"
	if denies && expression {
		r.At("path.type").Add(slips)
	}
	m.Path.check(r.At("path"))
	at := r.At("path.value")
	switch {
	case expression:
	case strings.ContainsAny(m.Path.Value, "?#"):
		at.Add("must not have a query or a fragment, which are not compared")
	case abnormal.MatchString(m.Path.Value):
		at.Add("must be in the normal form in which paths are compared: without //, \\ and the segments . and .., and percent-encoded only what needs to be")
	}
}

// abnormal finds what no path has any more when it is compared.
var abnormal = regexp.MustCompile(`//|\\|/\.\.?(/|;|$)|[^!-~]|(?i)%(00|2[D-F]|3\d|[46][1-9A-F]|[57][\dA]|5C|5F|7E)`)
