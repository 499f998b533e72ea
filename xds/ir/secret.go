package ir

// Secret is an identity: a certificate and its private key.
type Secret struct {
	Name  string `json:"name"`
	Chain []byte `json:"chain"` // PEM, leaf first
	Key   []byte `json:"key"`   // PEM
}

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
