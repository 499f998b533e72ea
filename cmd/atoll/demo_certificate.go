package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// certificates are what the proxies show at their inbounds.
func (s *story) certificates(ctx context.Context, of []*instance) ([]*x509.Certificate, error) {
	out := make([]*x509.Certificate, len(of))
	for i, one := range of {
		var err error
		if out[i], err = shownCertificate(ctx, one.inbound(s.lab.net.ports)); err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", one.name, err)
		}
	}
	return out, nil
}

var errSeen = errors.New("seen")

// shownCertificate begins a handshake, and ends it when the server has shown who
// it is: a caller without a certificate would be refused anyway.
func shownCertificate(ctx context.Context, address string) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	dialer := tls.Dialer{Config: &tls.Config{
		InsecureSkipVerify: true, // it is looked at, not believed
		NextProtos:         []string{"kuma"},
		VerifyConnection: func(c tls.ConnectionState) error {
			leaf = c.PeerCertificates[0]
			return errSeen
		},
	}}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err == nil {
		return nil, errors.Join(fmt.Errorf("%s spoke no TLS", address), conn.Close())
	}
	if leaf == nil {
		return nil, err
	}
	return leaf, nil
}
