package ir

// Permissions decide what may pass a chain: a match in Deny refuses; else one in Allow or AllowShadowDeny lets in; else it
// is refused under the name [DefaultPermission]. Order inside a list only decides which policy is named.
//
// Conditions on requests are compared so that no spelling of a request slips through: for a denial as the most lenient
// server would read it (without case, path parameters and the slash at the end; any of a header's values; HEAD as GET),
// to let in as the strictest. In a chain that does not serve HTTP they are met for a denial, and not to let in.
type Permissions struct {
	Deny            []Permission `json:"deny,omitempty"`
	Allow           []Permission `json:"allow,omitempty"`
	AllowShadowDeny []Permission `json:"allowShadowDeny,omitempty"` // let in, and counted as if they were in Deny
}

// DefaultPermission is the name under which a peer is refused that no rule speaks of.
const DefaultPermission = "default"

// Permission is one condition and the policy that set it.
type Permission struct {
	Policy string    `json:"policy"` // KRI; named to who is refused
	Peer   PeerMatch `json:"peer,omitzero"`
	// Request is a condition on each request, without Query. A denial has no [Regex].
	Request RouteMatch `json:"request,omitzero"`
}

// IsZero reports whether p speaks of every call.
func (p Permission) IsZero() bool { return p.Peer.IsZero() && p.Request.IsZero() }

// PeerMatch is a condition on the other end of a TLS connection; all that is set must hold. The zero value matches everybody.
type PeerMatch struct {
	SpiffeID       string `json:"spiffeID,omitempty"`       // exactly this SPIFFE ID
	SpiffeIDPrefix string `json:"spiffeIDPrefix,omitempty"` // a SPIFFE ID that starts so
	SNI            string `json:"sni,omitempty"`            // asked for exactly this server name
}

// IsZero reports whether m matches everybody.
func (m PeerMatch) IsZero() bool { return m == PeerMatch{} }
