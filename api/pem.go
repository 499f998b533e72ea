package api

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
)

// checkCertificates returns why text is no list of certificates in PEM, or "".
// A private key would be published to every zone, so that it is named as such.
func checkCertificates(text string) string {
	rest, n := []byte(text), 0
	for {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		switch {
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return "must not contain a private key"
		case block.Type != "CERTIFICATE":
			return "must contain certificates only, found " + block.Type
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "must be certificates: " + err.Error()
		}
		rest, n = after, n+1
	}
	if n == 0 || strings.TrimSpace(string(rest)) != "" {
		return "must be one or more certificates in PEM"
	}
	return ""
}
