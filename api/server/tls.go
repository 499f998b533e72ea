package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Certificate is the certificate of this control plane's servers.
type Certificate struct {
	// Chain is PEM: what a client that verifies the server has to trust, if the
	// certificate is self-signed.
	Chain []byte
	pair  tls.Certificate
}

// Server returns the TLS settings of a server (TLS 1.2 or newer).
func (c *Certificate) Server(protocols ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.pair}, MinVersion: tls.VersionTLS12, NextProtos: protocols}
}

// certificate loads the configured certificate, or that of the data directory,
// which is made when it is missing: self-signed, for the host name, localhost
// and all addresses of this machine, valid ten years.
func certificate(c TLSConfig, dataDir string, now time.Time) (*Certificate, error) {
	certFile, keyFile := c.CertFile, c.KeyFile
	if certFile == "" {
		certFile, keyFile = filepath.Join(dataDir, "server.crt"), filepath.Join(dataDir, "server.key")
		if _, err := os.Stat(certFile); errors.Is(err, os.ErrNotExist) {
			if err := selfSigned(certFile, keyFile, now); err != nil {
				return nil, fmt.Errorf("server certificate: %w", err)
			}
		}
	}
	return loadPair(certFile, keyFile)
}

// settings are those of the API over TLS; own is the certificate of this
// control plane.
func (c *HTTPSConfig) settings(own *Certificate) (*tls.Config, error) {
	cert := own
	if c.CertFile != "" {
		var err error
		if cert, err = loadPair(c.CertFile, c.KeyFile); err != nil {
			return nil, fmt.Errorf("API over TLS: %w", err)
		}
	}
	settings := cert.Server("h2", "http/1.1")
	if c.ClientCAFile == "" {
		return settings, nil
	}
	authorities, err := os.ReadFile(c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("authorities of client certificates: %w", err)
	}
	settings.ClientCAs, settings.ClientAuth = x509.NewCertPool(), tls.VerifyClientCertIfGiven
	if !settings.ClientCAs.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("authorities of client certificates: %s holds no PEM certificate", c.ClientCAFile)
	}
	if c.RequireClientCert {
		settings.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return settings, nil
}

func loadPair(certFile, keyFile string) (*Certificate, error) {
	chain, err := os.ReadFile(certFile)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("key of the server certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("server certificate %s with key %s: %w", certFile, keyFile, err)
	}
	return &Certificate{Chain: chain, pair: pair}, nil
}

func selfSigned(certFile, keyFile string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Atoll"}, CommonName: "atoll"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(10 * 365 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if host, err := os.Hostname(); err == nil {
		template.DNSNames = append(template.DNSNames, host)
	}
	if addresses, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
				template.IPAddresses = append(template.IPAddresses, n.IP)
			}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return err
	}
	return writeFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// writeFile writes a file that is there as a whole, with this mode, or not at
// all: half a file of a disk that was full would fail at every later start.
func writeFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
