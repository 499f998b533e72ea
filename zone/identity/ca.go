package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// authority signs certificates: those of one MeshIdentity, or those of Envoy's administration.
type authority struct {
	cert *x509.Certificate
	pem  []byte
	key  crypto.Signer
}

// authorityLife is how long a generated authority is valid.
const authorityLife = 10 * 365 * 24 * time.Hour

// newAuthority generates an authority: ECDSA P-256. One of a trust domain has it
// as its URI.
func newAuthority(name string, now time.Time, uris ...*url.URL) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Atoll"}, OrganizationalUnit: []string{"Mesh"}, CommonName: name},
		URIs:         uris,
		NotBefore:    now.Add(-10 * time.Second), NotAfter: now.Add(authorityLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// parseCertificate reads the certificate of an authority.
func parseCertificate(certPEM []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the certificate of the authority is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the certificate of the authority: %w", err)
	}
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("the certificate of the authority may not sign certificates: it needs CA:TRUE and keyCertSign")
	}
	return cert, nil
}

// parseAuthority reads an authority. Keys are PKCS#8, PKCS#1 or SEC 1.
func parseAuthority(certPEM, keyPEM []byte) (*authority, error) {
	cert, err := parseCertificate(certPEM)
	if err != nil {
		return nil, err
	}
	keyBlock, _ := pem.Decode(keyPEM)
	if keyBlock == nil {
		return nil, errors.New("the private key of the authority is not PEM")
	}
	key, err := parseKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(cert.PublicKey) {
		return nil, errors.New("the private key does not belong to the certificate of the authority")
	}
	return &authority{cert: cert, pem: certPEM, key: key}, nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
		return nil, fmt.Errorf("the private key of the authority is a %T, which cannot sign", k)
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS1PrivateKey(der)
	if err != nil {
		return nil, errors.New("the private key of the authority is neither PKCS#8, PKCS#1 nor SEC 1")
	}
	return k, nil
}

// leaf is an issued certificate.
type leaf struct {
	chain, key          []byte
	notBefore, notAfter time.Time
}

// issue signs a certificate for a SPIFFE ID: an X.509-SVID, valid for life.
// The key is of the authority's type (SPIFFE X509-SVID, section 2 to 5).
func (a *authority) issue(spiffeID string, life time.Duration, now time.Time) (*leaf, error) {
	id, err := url.Parse(spiffeID)
	if err != nil {
		return nil, fmt.Errorf("SPIFFE ID %q: %w", spiffeID, err)
	}
	key, err := keyLike(a.key)
	if err != nil {
		return nil, err
	}
	both := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return a.sign(&x509.Certificate{URIs: []*url.URL{id}, ExtKeyUsage: both}, key, life, now)
}

// issueName signs a certificate for an IP address or a DNS name, for one use
// alone. Its key is always ECDSA P-256, which costs the least time and room.
func (a *authority) issueName(name string, use x509.ExtKeyUsage, life time.Duration, now time.Time) (*leaf, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{use}}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	return a.sign(template, key, life, now)
}

// sign makes a certificate of whom the template names, for the use that it says.
func (a *authority) sign(template *x509.Certificate, key crypto.Signer, life time.Duration, now time.Time) (*leaf, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-10*time.Second), now.Add(life)
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
	template.BasicConstraintsValid = true
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if !bytes.Equal(a.cert.RawIssuer, a.cert.RawSubject) {
		chain = append(chain, a.pem...) // an intermediate comes along: peers know only the root
	}
	return &leaf{
		chain: chain, key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		notBefore: template.NotBefore, notAfter: template.NotAfter,
	}, nil
}

func keyLike(ca crypto.Signer) (crypto.Signer, error) {
	switch k := ca.(type) {
	case *rsa.PrivateKey:
		return rsa.GenerateKey(rand.Reader, 2048)
	case ed25519.PrivateKey:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case *ecdsa.PrivateKey:
		return ecdsa.GenerateKey(k.Curve, rand.Reader)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}
