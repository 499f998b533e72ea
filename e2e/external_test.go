package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
)

// externalServices: a service outside of the mesh is called through the egress of
// the caller's zone, plain and with TLS that is verified as it says; the egress lets
// in whom permissions let in; without an egress nobody leaves the mesh but to
// services that say that they are called directly.
func externalServices(t *testing.T, l *lab) {
	own, other := newAuthority(t), newAuthority(t)
	outside := newOutside(t, own)

	verified := func(ca *authority, more string) string {
		return fmt.Sprintf("{verification: {caCert: {type: InsecureInline, insecureInline: {value: %q}}%s}}", ca.pem, more)
	}
	chain, key := own.issue(t, "shop", "shop.example")
	shown := fmt.Sprintf(", clientCert: {type: InsecureInline, insecureInline: {value: %q}}, clientKey: {type: Secret, secretRef: {kind: Secret, name: outside-key}}", chain)
	services := []struct {
		name, host string
		port       int
		tls        string // empty: none
		direct     bool
		fails      bool
		sni        string // that the server is asked for
		client     string // who the caller proves to be
	}{
		{name: "named", host: "localhost", port: outside.open, tls: verified(own, ""), sni: "localhost"},
		{name: "server-name", host: "127.0.0.1", port: outside.open, tls: verified(own, ", serverName: outside.example"), sni: "outside.example"},
		{name: "other-names", host: "127.0.0.1", port: outside.open, tls: verified(own, `, subjectAltNames: [{value: nobody.example}, {type: Prefix, value: "outside."}]`)},
		{name: "wrong-authority", host: "localhost", port: outside.open, tls: verified(other, ""), fails: true},
		{name: "wrong-name", host: "127.0.0.1", port: outside.open, tls: verified(own, ", serverName: other.example"), fails: true},
		{name: "wrong-names", host: "127.0.0.1", port: outside.open, tls: verified(own, ", subjectAltNames: [{value: other.example}]"), fails: true},
		{name: "system-authority", host: "localhost", port: outside.open, tls: "{}", fails: true},
		{name: "skip-name", host: "localhost", port: outside.open, tls: verified(own, ", mode: SkipSAN, serverName: other.example"), sni: "localhost"},
		{name: "skip-name-only", host: "localhost", port: outside.open, tls: verified(other, ", mode: SkipSAN"), fails: true},
		{name: "skip-authority", host: "127.0.0.1", port: outside.open, tls: verified(other, ", mode: SkipCA, serverName: outside.example"), sni: "outside.example"},
		{name: "skip-all", host: "127.0.0.1", port: outside.open, tls: verified(other, ", mode: SkipAll, serverName: other.example")},
		{name: "mutual", host: "localhost", port: outside.closed, tls: verified(own, shown), sni: "localhost", client: "shop"},
		{name: "mutual-nobody", host: "localhost", port: outside.closed, tls: verified(own, ""), fails: true},
		{name: "plain", host: "127.0.0.1", port: outside.plain},
		{name: "direct", host: "localhost", port: outside.closed, tls: verified(own, shown), direct: true, sni: "localhost", client: "shop"},
		{name: "direct-plain", host: "127.0.0.1", port: outside.plain, direct: true},
		{name: "direct-wrong", host: "localhost", port: outside.open, tls: verified(other, ""), direct: true, fails: true},
	}
	documents := []string{fmt.Sprintf("type: Secret\nmesh: default\nname: outside-key\ndata: %s\n", base64.StdEncoding.EncodeToString([]byte(key)))}
	external := func(name, protocol, host string, port int, tls string, direct bool) string {
		text := "type: MeshExternalService\nmesh: default\nname: " + name + "\n"
		if direct {
			text += "labels: {atoll.io/exit: direct}\n"
		}
		text += fmt.Sprintf("spec:\n  match: {port: 80, protocol: %s}\n  endpoints: [{address: %s, port: %d}]\n", protocol, host, port)
		if tls != "" {
			text += "  tls: " + strings.Replace(tls, "{", "{enabled: true, ", 1) + "\n"
		}
		return text
	}
	outbounds := []string{"MeshExternalService/raw//80"}
	for _, s := range services {
		documents = append(documents, external(s.name, "http", s.host, s.port, s.tls, s.direct))
		outbounds = append(outbounds, "MeshExternalService/"+s.name+"//80")
	}
	documents = append(documents, external("raw", "tcp", "127.0.0.1", outside.app.raw, "", false))

	shop := l.start(t, l.east, spec{name: "shop-1", service: "shop", outbounds: outbounds})
	abroad := l.start(t, l.west, spec{name: "abroad-1", service: "abroad", outbounds: outbounds})
	l.start(t, l.east, spec{name: "egress-east", service: "egress", egress: true})
	l.with(t, documents...)

	call := func(from *sidecar, name string) (answer, error) { return send(from.outbounds[name+"/"] + "/" + name) }
	gets := func(from *sidecar, name string, status int, text string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s calls %s", from.name, name), func() error {
			a, err := call(from, name)
			if err == nil && (a.Status != status || !strings.Contains(a.Text, text)) {
				err = fmt.Errorf("%d %s, want %d %s", a.Status, a.Text, status, text)
			}
			return err
		})
	}
	for _, s := range services {
		if s.fails {
			gets(shop, s.name, http.StatusServiceUnavailable, "")
			continue
		}
		eventually(t, s.name+" is called", func() error {
			a, err := call(shop, s.name)
			if err == nil && (a.Status != http.StatusOK || a.Name != "outside") {
				err = fmt.Errorf("%d %s", a.Status, a.Text)
			}
			if err != nil {
				return err
			}
			if sni, client := a.Request.Get("Seen-Sni"), a.Request.Get("Seen-Client"); sni != s.sni || client != s.client {
				t.Errorf("%s: the server was asked for %q by %q, want %q by %q", s.name, sni, client, s.sni, s.client)
			}
			if host := a.Request.Get("Host"); s.host == "localhost" && host != s.host {
				t.Errorf("%s: the request is for host %q", s.name, host)
			}
			return nil
		})
	}
	raw := func(from *sidecar) error {
		_, name, err := dialAt(t, from.outbounds["raw/"])
		if err == nil && name != "outside" {
			err = fmt.Errorf("answered by %s", name)
		}
		return err
	}
	eventually(t, "raw is called", func() error { return raw(shop) })
	if seen := outside.app.requests("/wrong-authority") + outside.app.requests("/wrong-name") + outside.app.requests("/mutual-nobody"); seen > 0 {
		t.Errorf("%d requests were sent to whom nobody believes", seen)
	}

	// The other zone has no egress yet, and what has one here does not help.
	gets(abroad, "direct", http.StatusOK, "")
	gets(abroad, "plain", http.StatusServiceUnavailable, "")
	if raw(abroad) == nil {
		t.Error("a connection leaves a zone that has no egress")
	}
	l.start(t, l.west, spec{name: "egress-west", service: "egress", egress: true})
	gets(abroad, "plain", http.StatusOK, "")
	gets(abroad, "mutual", http.StatusOK, "")

	// A service whose authority is told anew is believed from then on.
	l.change(t, external("wrong-authority", "http", "localhost", outside.open, verified(own, ""), false))
	gets(shop, "wrong-authority", http.StatusOK, "")

	// What nobody allows any more is refused at the egress. Nobody stands between the
	// caller and a service that is called directly.
	if _, err := l.global.client.Delete(t.Context(), api.MeshTrafficPermissions, "default", "all-east"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		body := strings.ReplaceAll(fmt.Sprintf(allowAll, "east"), `"name":"all"`, `"name":"all-east"`)
		if _, err := l.global.client.Apply(context.WithoutCancel(t.Context()), []byte(body)); err != nil {
			t.Error(err)
		}
	})
	gets(shop, "plain", http.StatusForbidden, "RBAC: access denied by default")
	gets(shop, "mutual", http.StatusForbidden, "RBAC: access denied by default")
	eventually(t, "raw connections are refused", func() error {
		if raw(shop) == nil {
			return fmt.Errorf("one is answered")
		}
		return nil
	})
	gets(shop, "direct", http.StatusOK, "")
	gets(abroad, "plain", http.StatusOK, "")
	l.with(t, `
type: MeshTrafficPermission
mesh: default
name: out
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: egress}}
  rules:
    - default:
        allow:
          - spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/shop"}
            sni: {type: Exact, value: sni.extsvc.default.plain.80}
          - spiffeID: {type: Exact, value: "spiffe://default.east.mesh.local/workload/web"}
            sni: {type: Exact, value: sni.extsvc.default.mutual.80}
`)
	gets(shop, "plain", http.StatusOK, "")
	gets(shop, "mutual", http.StatusForbidden, "RBAC: access denied by default")
}

// outside is an application that is no part of a mesh, at three ports: plain, with
// TLS open to anybody, and closed to those without a certificate of its authority.
// Its answers tell how it was asked, in the headers seen-sni and seen-client.
type outside struct {
	app                 *application
	plain, open, closed int
}

func newOutside(t *testing.T, ca *authority) *outside {
	t.Helper()
	o := &outside{app: newApplication(t, "outside")}
	chain, key := ca.issue(t, "outside", "outside.example", "localhost")
	certificate, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.certificate)
	serve := func(c *tls.Config) int {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS != nil {
				r.Header.Set("seen-sni", r.TLS.ServerName)
				if len(r.TLS.PeerCertificates) > 0 {
					r.Header.Set("seen-client", r.TLS.PeerCertificates[0].Subject.CommonName)
				}
			}
			o.app.ServeHTTP(w, r)
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // of those who do not believe it
		if s.TLS = c; c == nil {
			s.Start()
		} else {
			s.StartTLS()
		}
		t.Cleanup(s.Close)
		return s.Listener.Addr().(*net.TCPAddr).Port
	}
	o.plain = serve(nil)
	o.open = serve(&tls.Config{Certificates: []tls.Certificate{certificate}})
	o.closed = serve(&tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool})
	return o
}

// authority issues certificates outside of the mesh.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, block("CERTIFICATE", der)}
}

// issue returns a certificate and its key, as PEM.
func (a *authority) issue(t *testing.T, name string, hosts ...string) (chain, key string) {
	t.Helper()
	private := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func block(what string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: what, Bytes: der}))
}
