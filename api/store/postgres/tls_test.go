package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/store/postgres"
	"github.com/atoll-mesh/atoll/api/store/postgrestest"
)

// authority issues certificates; files are in dir.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.file, _, a.cert, a.key = a.issue(t, template, nil, nil)
	return a
}

func (a *authority) leaf(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile, _, _ = a.issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, a.key)
	return certFile, keyFile
}

func (a *authority) issue(t *testing.T, template, parent *x509.Certificate, by *ecdsa.PrivateKey) (certFile, keyFile string, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, by = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(a.dir, template.Subject.CommonName)
	certFile, keyFile = base+".crt", base+".key"
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, cert, key
}

// door ends TLS before a server, as a pooler does: the pinned server is built
// without it. It asks for client certificates. See "SSL Session Encryption" of
// PostgreSQL's frontend protocol.
func door(t *testing.T, o postgres.Options, certFile, keyFile string, clients *authority) (port uint16) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pass := func(outside net.Conn) {
		defer outside.Close()
		if _, err := io.ReadFull(outside, make([]byte, 8)); err != nil { // SSLRequest
			return
		}
		if _, err := outside.Write([]byte("S")); err != nil {
			return
		}
		inner := tls.Server(outside, config)
		if inner.Handshake() != nil {
			return
		}
		inside, err := net.Dial("unix", filepath.Join(o.Host, ".s.PGSQL."+strconv.Itoa(int(o.Port))))
		if err != nil {
			return
		}
		go func() { io.Copy(inside, inner); inside.Close() }() //nolint:errcheck // ends with either side
		io.Copy(inner, inside)                                 //nolint:errcheck // likewise
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go pass(c)
		}
	}()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

func TestTLS(t *testing.T) {
	o := database(t)
	servers, clients, strangers := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "strangers")
	serverCert, serverKey := servers.leaf(t, "localhost")
	clientCert, clientKey := clients.leaf(t, "atoll")
	strangeCert, strangeKey := strangers.leaf(t, "atoll")
	port := door(t, o, serverCert, serverKey, clients)
	for _, c := range []struct {
		name, host string
		tls        postgres.TLS
		want       string // part of the error; "": it opens
	}{
		{"full", "localhost", postgres.TLS{Mode: postgres.VerifyFull, CAFile: servers.file, CertFile: clientCert, KeyFile: clientKey}, ""},
		{"full, another authority", "localhost", postgres.TLS{Mode: postgres.VerifyFull, CAFile: strangers.file, CertFile: clientCert, KeyFile: clientKey}, "unknown authority"},
		{"full, another host", "127.0.0.1", postgres.TLS{Mode: postgres.VerifyFull, CAFile: servers.file, CertFile: clientCert, KeyFile: clientKey}, "127.0.0.1"},
		{"full, authorities of the system", "localhost", postgres.TLS{Mode: postgres.VerifyFull, CertFile: clientCert, KeyFile: clientKey}, "unknown authority"},
		{"authority, another host", "127.0.0.1", postgres.TLS{Mode: postgres.VerifyCA, CAFile: servers.file, CertFile: clientCert, KeyFile: clientKey, DisableSNI: true}, ""},
		{"authority, another", "localhost", postgres.TLS{Mode: postgres.VerifyCA, CAFile: strangers.file, CertFile: clientCert, KeyFile: clientKey}, "unknown authority"},
		{"none", "127.0.0.1", postgres.TLS{Mode: postgres.VerifyNone, CertFile: clientCert, KeyFile: clientKey}, ""},
		{"no client certificate", "localhost", postgres.TLS{Mode: postgres.VerifyFull, CAFile: servers.file}, "certificate"},
		{"a stranger's certificate", "localhost", postgres.TLS{Mode: postgres.VerifyFull, CAFile: servers.file, CertFile: strangeCert, KeyFile: strangeKey}, "tls"},
		{"an authority that is not there", "localhost", postgres.TLS{Mode: postgres.VerifyFull, CAFile: "/nowhere.pem"}, "/nowhere.pem"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := o
			o.Host, o.Port, o.TLS = c.host, port, c.tls
			s, err := postgres.Open(t.Context(), o)
			if err == nil {
				defer s.Close()
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if err == nil {
				follow(t, s).until(apply(t, s, mesh("a", c.name)))
			}
		})
	}
	// A server without TLS is not talked to in the clear.
	o.TLS = postgres.TLS{Mode: postgres.VerifyFull, CAFile: servers.file}
	o.Host = server(t).Address
	if _, err := postgres.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "refused TLS") {
		t.Errorf("without TLS: %v", err)
	}
}

// A password in a file may change while the store is open.
func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	rules := filepath.Join(dir, "hba")
	if err := os.WriteFile(rules, []byte("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	at := postgrestest.Start(t, "hba_file="+rules)
	local := options(at, "postgres")
	run(t, local, `ALTER ROLE atoll PASSWORD 'it''s \ one'`)
	file := filepath.Join(dir, "password")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("it's \\ one\n")
	o := local
	o.Host, o.PasswordFile = at.Address, file
	s := open(t, o)
	apply(t, s, mesh("a", `{}`))
	run(t, local, `ALTER ROLE atoll PASSWORD 'two'`)
	if _, err := postgres.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "check user, password") || strings.Contains(err.Error(), "it's") {
		t.Errorf("an old password: %v", err)
	}
	write("two")
	cut(t, local)
	follow(t, s).until(apply(t, s, mesh("b", `{}`)))
}

// What psql and others read from the environment says nothing about this store.
func TestTheEnvironmentDoesNotCount(t *testing.T) {
	o := database(t)
	for name, value := range map[string]string{
		"PGHOST": "nowhere.invalid", "PGPORT": "none", "PGSSLMODE": "none", "PGREQUIREAUTH": "scram-sha-256", "PGCHANNELBINDING": "none",
		"PGOPTIONS": "-c default_transaction_read_only=on", "PGTZ": "nowhere",
	} {
		t.Setenv(name, value)
	}
	s := open(t, o)
	follow(t, s).until(apply(t, s, mesh("a", `{}`)))
}
