package admin_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/zone/admin"
)

// authority issues certificates as the feeder does.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	_, _, a.cert, a.key = a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) issue(template *x509.Certificate) (chain, key string, cert *x509.Certificate, private *ecdsa.PrivateKey) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(1), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent, signer := template, private
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})), cert, private
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
}

// world is a zone with one proxy, whose Envoy is a handler at 127.0.0.2.
type world struct {
	t      *testing.T
	db     *db.DB
	ca     *authority
	proxy  *api.Object[api.Dataplane]
	client *admin.Client
	conn   api.Connection
	paths  chan string
}

const address = "127.0.0.2"

func newWorld(t *testing.T, h http.HandlerFunc) *world {
	w := &world{t: t, db: db.New(api.Schema), ca: newAuthority(t), paths: make(chan string, 10)}
	chain, key, _, _ := w.ca.issue(&x509.Certificate{IPAddresses: []net.IP{net.ParseIP(address)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	pair, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.cert)
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Skip("no second loopback address: ", err)
	}
	envoy := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Server", "envoy")
		w.paths <- r.Method + " " + r.RequestURI
		h(rw, r)
	}))
	_ = envoy.Listener.Close()
	envoy.Listener = l
	envoy.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		VerifyConnection: func(s tls.ConnectionState) error { return s.PeerCertificates[0].VerifyHostname("kuma-cp") },
	}
	envoy.StartTLS()
	t.Cleanup(envoy.Close)

	id := api.LocalID(api.Dataplanes, "default", "", "web", api.Site{Zone: "east"})
	w.proxy = api.Dataplanes.New(api.Meta{ID: id}, api.Dataplane{Networking: api.Networking{Address: address}})
	w.conn = api.Connection{Proxy: id, Instance: "one", AdminPort: uint32(l.Addr().(*net.TCPAddr).Port), ReadinessPort: 1}
	w.client = admin.New(w.db, "one")
	w.leaf(id, address, chain, key)
	chain, key, _, _ = w.ca.issue(&x509.Certificate{DNSNames: []string{"kuma-cp"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	w.leaf(api.ID{}, api.AdminClient, chain, key)
	w.connect(w.conn)
	return w
}

func (w *world) write(f func(*db.Tx)) {
	if _, err := w.db.Write(func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) leaf(id api.ID, name, chain, key string) {
	w.write(func(tx *db.Tx) {
		api.AdminLeaves.Put(tx, &api.AdminLeaf{Proxy: id, Name: name, Chain: chain, Key: key, CA: w.ca.pem()})
	})
}

func (w *world) connect(c api.Connection) {
	w.write(func(tx *db.Tx) { api.Connections.Put(tx, &c) })
}

func TestQuestions(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("said")) })
	for q, want := range map[api.Question]string{
		{About: api.AboutConfig}:                          "/config_dump",
		{About: api.AboutConfig, EDS: true, JSON: true}:   "/config_dump?include_eds=true",
		{About: api.AboutStats}:                           "/stats",
		{About: api.AboutStats, Used: true}:               "/stats?usedonly=",
		{About: api.AboutStats, JSON: true, Used: true}:   "/stats?format=json&usedonly=",
		{About: api.AboutClusters}:                        "/clusters",
		{About: api.AboutClusters, JSON: true, EDS: true}: "/clusters?format=json",
	} {
		got, err := w.client.Ask(t.Context(), w.proxy, q)
		if err != nil || string(got) != "said" {
			t.Errorf("%+v: %q, %v", q, got, err)
			continue
		}
		if path := <-w.paths; path != "GET "+want {
			t.Errorf("%+v asks %s, want GET %s", q, path, want)
		}
	}
}

// The token that a proxy shows to its control plane is not shown to users.
func TestTokensAreRedacted(t *testing.T) {
	const initial = `{"configs": [{"initial_metadata": [
   {
    "key": "%s",
    "value": "eyJ\"secret"
   },{"key":"x","value":"kept"}]}]}`
	for _, key := range []string{"authorization", "Authorization"} {
		w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(strings.Replace(initial, "%s", key, 1)))
		})
		got, err := w.client.Ask(t.Context(), w.proxy, api.Question{About: api.AboutConfig})
		if want := strings.NewReplacer("%s", key, `eyJ\"secret`, "[redacted]").Replace(initial); err != nil || string(got) != want {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

func TestProxiesThatCannotBeAsked(t *testing.T) {
	fine := func(rw http.ResponseWriter, _ *http.Request) {}
	for _, c := range []struct {
		name   string
		envoy  http.HandlerFunc
		change func(*world)
		class  error
		text   string
	}{
		{"unknown", fine, func(w *world) { w.write(func(tx *db.Tx) { api.Connections.Delete(tx, w.proxy.Key()) }) }, api.ErrNotConnected, "proxy web of mesh default: not connected to this control plane"},
		{"elsewhere", fine, func(w *world) { w.conn.Instance = "two"; w.connect(w.conn) }, api.ErrNotConnected, "not connected"},
		{"no certificate", fine, func(w *world) { w.write(func(tx *db.Tx) { api.AdminLeaves.Delete(tx, w.proxy.Key()) }) }, admin.ErrUnreachable, "no certificate"},
		{"no own certificate", fine, func(w *world) { w.write(func(tx *db.Tx) { api.AdminLeaves.Delete(tx, api.ID{}.Key()) }) }, admin.ErrUnreachable, "this control plane has no certificate"},
		{"another authority", fine, func(w *world) {
			own, _ := api.AdminLeaves.Get(w.db.Snapshot(), api.ID{}.Key())
			w.ca = newAuthority(w.t)
			w.leaf(api.ID{}, api.AdminClient, own.Chain, own.Key)
		}, admin.ErrUnreachable, "unknown authority"},
		{"on a socket of loopback", fine, func(w *world) {
			w.proxy = api.Dataplanes.New(w.proxy.Meta, api.Dataplane{Networking: api.Networking{Address: "127.0.0.1"}})
			w.conn.AdminSocket = "/run/admin.sock"
			w.connect(w.conn)
		}, admin.ErrUnreachable, "networking.address"},
		{"refused", fine, func(w *world) { w.conn.AdminPort = 1; w.connect(w.conn) }, admin.ErrUnreachable, "refused"},
		{"not an Envoy", func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Server", "other")
			_, _ = rw.Write([]byte("a secret"))
		}, nil, admin.ErrUnreachable, "no Envoy"},
		{"an error", func(rw http.ResponseWriter, _ *http.Request) {
			http.Error(rw, "no healthy upstream", http.StatusServiceUnavailable)
		}, nil, admin.ErrUnreachable, "503: no healthy upstream"},
		{"elsewhere again", func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://127.0.0.1:1/", http.StatusFound)
		}, nil, admin.ErrUnreachable, "302"},
		{"too large", func(rw http.ResponseWriter, _ *http.Request) {
			for range 65 {
				_, _ = rw.Write(make([]byte, 1<<20))
			}
		}, nil, admin.ErrUnreachable, "larger than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.envoy)
			if c.change != nil {
				c.change(w)
			}
			body, err := w.client.Ask(t.Context(), w.proxy, api.Question{About: api.AboutStats})
			if body != nil || !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%.20q, %v; want %q", body, err, c.text)
			}
		})
	}
}

// An administration that is itself at the proxy's address is asked without TLS.
func TestAdministrationOnLoopback(t *testing.T) {
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {})
	envoy := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Server", "envoy")
		_, _ = rw.Write([]byte("plain"))
	}))
	defer envoy.Close()
	w.write(func(tx *db.Tx) { api.AdminLeaves.Delete(tx, w.proxy.Key()) })
	w.proxy = api.Dataplanes.New(w.proxy.Meta, api.Dataplane{Networking: api.Networking{Address: "127.0.0.1"}})
	w.conn.AdminPort = uint32(envoy.Listener.Addr().(*net.TCPAddr).Port)
	w.connect(w.conn)
	if got, err := w.client.Ask(t.Context(), w.proxy, api.Question{About: api.AboutStats}); err != nil || string(got) != "plain" {
		t.Errorf("%q, %v", got, err)
	}
}

// Few are asked at a time; who waits for a turn goes when its time is over.
func TestFewAreAskedAtATime(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { <-release })
	done := make(chan error, 8)
	for range cap(done) {
		go func() {
			_, err := w.client.Ask(t.Context(), w.proxy, api.Question{About: api.AboutStats})
			done <- err
		}()
	}
	for range cap(done) {
		<-w.paths
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.client.Ask(ctx, w.proxy, api.Question{About: api.AboutStats}); !errors.Is(err, context.Canceled) || len(w.paths) != 0 {
		t.Errorf("the ninth: %v", err)
	}
	close(release)
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
