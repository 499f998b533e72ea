package ir

// Secret is an identity: a certificate and its private key.
type Secret struct {
	Name  string `json:"name"`
	Chain string `json:"chain"` // PEM, leaf first
	Key   string `json:"key"`   // PEM
}

// String is the name alone: a key that is printed by accident is a lost key.
func (s Secret) String() string { return s.Name }

// GoString is [Secret.String].
func (s Secret) GoString() string { return s.Name }

// TrustBundle is whom to believe: the authorities of each SPIFFE trust domain. A peer's certificate is checked with those
// of the domain in its own SPIFFE ID.
type TrustBundle struct {
	Name    string        `json:"name"`
	Domains []TrustDomain `json:"domains"` // sorted by name, at least one
}

// TrustDomain is a SPIFFE trust domain and the certificates of its authorities.
type TrustDomain struct {
	Name string `json:"name"`
	PEM  string `json:"pem"` // certificates, joined by newline
}
