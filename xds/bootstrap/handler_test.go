package bootstrap_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

func certificate(t *testing.T, isCA bool) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "zone"}, NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: isCA,
		DNSNames: []string{"zone.example"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 5), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

const secret = "header.TOKENINCLEAR.signature"

var east = api.Site{Zone: "east", Env: "universal"}

// zone has the meshes shop, with the Dataplane api, and lab, each with a
// ZoneIngress, and a log.
func zone(t *testing.T) (bootstrap.Options, *bytes.Buffer) {
	api1 := api.Dataplanes.New(api.Meta{
		ID: api.ID{Mesh: "shop", Name: "api"}, Core: "api", Labels: map[string]string{"kuma.io/workload": "backend"},
	}, api.Dataplane{Networking: api.Networking{Address: "10.0.0.9", Admin: &api.EnvoyAdmin{Port: 9999}}})
	chain := []byte(certificate(t, true))
	var log bytes.Buffer
	p := bootstrap.DefaultParams()
	p.XDSPort = 5678
	stored := db.New(api.Schema)
	if _, err := stored.Write(func(tx *db.Tx) error {
		api.Dataplanes.Put(tx, api1)
		for _, name := range []string{"shop", "lab"} {
			api.Meshes.Put(tx, api.Meshes.New(api.Meta{ID: api.ID{Name: name}, Core: name}, api.Mesh{}))
		}
		for _, mesh := range []string{"shop", "lab"} {
			in := api.ZoneIngresses.New(api.Meta{ID: api.ID{Zone: "east", Name: "in-" + mesh}, Core: "in-" + mesh, Labels: map[string]string{api.LabelMesh: mesh}},
				api.ZoneIngress{Networking: api.ZoneIngressNetworking{Address: "10.0.0.8", Port: 10001, Admin: &api.EnvoyAdmin{Port: 9902}}})
			api.ZoneIngresses.Put(tx, in)
			api.Dataplanes.Put(tx, api.ZoneProxyRow(in, mesh, east))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return bootstrap.Options{
		DB: stored, Site: east,
		AuthRequired: true, Chain: func() []byte { return chain }, Params: p,
		Lookup: func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no such host") },
		Log:    slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, &log
}

func ask(t *testing.T, o bootstrap.Options, change func(*http.Request), body any) *httptest.ResponseRecorder {
	t.Helper()
	text, ok := body.(string)
	if !ok {
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(raw)
	}
	r := httptest.NewRequest("POST", "https://10.0.0.5:5678/bootstrap", strings.NewReader(text))
	r.Header.Set("accept", "application/json")
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	bootstrap.Handler(o).ServeHTTP(w, r)
	return w
}

func TestHandlerStatus(t *testing.T) {
	type request = map[string]any
	stored := func(change request) request {
		out := request{"mesh": "shop", "name": "api", "dataplaneToken": secret}
		for k, v := range change {
			out[k] = v
		}
		return out
	}
	dataplane := func(text string) request { return stored(request{"dataplaneResource": text}) }
	const zoneIngress = "type: ZoneIngress\nname: in-1\nlabels: {kuma.io/mesh: shop}\nnetworking: {address: 10.0.0.7, port: 10001}\n"
	const good = "type: Dataplane\nmesh: shop\nname: api\nnetworking: {address: 10.0.0.9}\n"
	for _, c := range []struct {
		name   string
		change func(*http.Request)
		body   any
		status int
		text   string // part of the body; "-": the body is empty
	}{
		{name: "stored", body: stored(nil), status: 200},
		{name: "registers itself", body: dataplane(good), status: 200},
		{name: "the token's path alone", body: request{"mesh": "shop", "name": "api", "dataplaneTokenPath": "/t"}, status: 200},
		{name: "any method", body: stored(nil), change: func(r *http.Request) { r.Method = "GET" }, status: 200},
		{name: "by name", body: stored(nil), change: func(r *http.Request) { r.Host = "zone.example" }, status: 200},
		{name: "by IPv6", body: stored(nil), change: func(r *http.Request) { r.Host = "[::1]:5678" }, status: 200},
		{name: "own CA", body: stored(request{"caCert": certificate(t, true)}), status: 200},
		{name: "unknown field of the request", body: stored(request{"newer": 1}), status: 200},

		{name: "another path", body: stored(nil), change: func(r *http.Request) { r.URL.Path = "/bootstrap/x" }, status: 404, text: "404 page not found"},
		{name: "not JSON", body: "mesh: shop " + secret, status: 400, text: "-"},
		{name: "wrong type", body: `{"mesh":7,"dataplaneToken":"` + secret + `"}`, status: 400, text: "-"},
		{name: "too large", body: `{"mesh":"` + strings.Repeat("m", 5<<20) + `"}`, status: 400, text: "-"},
		{name: "host not in the certificate", body: stored(nil), change: func(r *http.Request) { r.Host = "other.example:5678" }, status: 400, text: "10.0.0.5"},
		{name: "CA that is none", body: stored(request{"caCert": certificate(t, false)}), status: 400, text: "BasicConstraints"},
		{name: "no Dataplane", body: stored(request{"name": "other"}), status: 404, text: "-"},
		{name: "no mesh", body: stored(request{"mesh": "other"}), status: 404, text: "-"},
		{name: "no token", body: request{"mesh": "shop", "name": "api"}, status: 422, text: "token"},
		{name: "blank token", body: stored(request{"dataplaneToken": " \n"}), status: 422, text: "token"},
		{name: "no address", body: dataplane("type: Dataplane\nmesh: shop\nname: api\nnetworking: {}"), status: 422, text: "networking.address: address can't be empty"},
		{name: "unknown field", body: dataplane(good + "netwrking: {}"), status: 422, text: "netwrking"},
		{name: "sent, no mesh", body: dataplane(strings.Replace(good, "shop", "other", 1)), status: 422, text: `mesh: mesh "other" does not exist`},
		{
			name: "outbound beside redirection", status: 422, text: "outbound: should be empty",
			body: stored(request{
				"dataplaneResource": "type: Dataplane\nmesh: shop\nname: api\nnetworking: {address: 10.0.0.9, outbound: [{port: 1, backendRef: {kind: MeshService, name: x, port: 80}}]}",
				"dataplaneConfig":   request{"redirect": request{"outbound": request{"enabled": true, "port": 15001}}},
			}),
		},
		{name: "CA no PEM", body: stored(request{"caCert": "x"}), status: 500, text: "-"},
		{name: "not YAML", body: dataplane("{"), status: 500, text: "-"},
		{name: "another kind", body: dataplane("type: Mesh\nname: x"), status: 500, text: "-"},
		{name: "another type of proxy", body: stored(request{"proxyType": "gateway"}), status: 500, text: "-"},
		{name: "zone proxy of another type", body: stored(request{"proxyType": "egress", "dataplaneResource": zoneIngress}), status: 500, text: "-"},
		{name: "zone proxy that is a Dataplane", body: stored(request{"proxyType": "ingress", "dataplaneResource": good}), status: 500, text: "-"},
		{name: "zone proxy as a Dataplane", body: dataplane(zoneIngress), status: 500, text: "-"},
		{name: "zone proxy, fault", body: stored(request{"proxyType": "ingress", "dataplaneResource": zoneIngress + "netwrking: {}"}), status: 422, text: "netwrking"},
		{name: "zone proxy, which mesh", body: request{"proxyType": "ingress", "name": "in-1", "dataplaneToken": secret, "dataplaneResource": strings.Replace(zoneIngress, "kuma.io/mesh: shop", "", 1)},
			status: 422, text: "mesh: a proxy is in one mesh, and there are lab, shop: name one by the label kuma.io/mesh"},
		{name: "zone proxy, no mesh", body: request{"proxyType": "ingress", "name": "in-1", "dataplaneToken": secret, "dataplaneResource": strings.Replace(zoneIngress, "shop", "none", 1)},
			status: 422, text: `mesh "none" does not exist`},
		{name: "zone proxy, two meshes", body: stored(request{"mesh": "lab", "proxyType": "ingress", "dataplaneResource": zoneIngress}), status: 422, text: "kuma.io/mesh"},
		{name: "no zone proxy", body: stored(request{"proxyType": "ingress", "name": "none"}), status: 404, text: "-"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, log := zone(t)
			w := ask(t, o, c.change, c.body)
			if w.Code != c.status {
				t.Errorf("status %d, expected %d: %s", w.Code, c.status, w.Body)
			}
			if got := w.Body.String(); c.text == "-" && got != "" || c.text != "-" && !strings.Contains(got, c.text) {
				t.Errorf("body %q, expected %q", got, c.text)
			}
			if strings.Contains(log.String(), "TOKENINCLEAR") {
				t.Errorf("a token in the log: %s", log)
			}
			if c.status >= 400 && c.status != 404 && log.Len() == 0 {
				t.Error("nothing in the log")
			}
		})
	}
}

// A zone proxy of earlier releases names no mesh; the answer has the one that it
// is in, by the label or because there is no choice.
func TestHandlerZoneProxy(t *testing.T) {
	o, _ := zone(t)
	for name, c := range map[string]struct {
		req           bootstrap.Request
		node, address string
		admin         string
	}{
		"stored":       {bootstrap.Request{Name: "in-lab", ProxyType: "ingress"}, "lab.in-lab", "10.0.0.8", "9902"},
		"stored, mesh": {bootstrap.Request{Mesh: "shop", Name: "in-shop", ProxyType: "ingress"}, "shop.in-shop", "10.0.0.8", "9902"},
		"brought": {bootstrap.Request{Name: "in-1", ProxyType: "ingress",
			DataplaneResource: "type: ZoneIngress\nname: in-1\nlabels: {kuma.io/mesh: lab}\nnetworking: {address: 10.0.0.7, port: 10001, admin: {port: 9903}}"}, "lab.in-1", "10.0.0.7", "9903"},
		"egress": {bootstrap.Request{Mesh: "shop", Name: "out-1", ProxyType: "egress",
			DataplaneResource: "type: ZoneEgress\nname: out-1\nnetworking: {address: 10.0.0.7, port: 10002}"}, "shop.out-1", "10.0.0.7", "9901"},
	} {
		t.Run(name, func(t *testing.T) {
			c.req.DataplaneToken = secret
			w := ask(t, o, nil, c.req)
			var a bootstrap.Answer
			if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
				t.Fatalf("%d %s: %v", w.Code, w.Body, err)
			}
			var b struct {
				Node struct {
					ID       string
					Metadata map[string]any
				}
			}
			if err := yaml.Unmarshal(a.Bootstrap, &b); err != nil {
				t.Fatal(err)
			}
			m := b.Node.Metadata
			text, _ := m["dataplane.resource"].(string)
			if b.Node.ID != c.node || a.Sidecar.Networking.Address != c.address || m["dataplane.admin.port"] != c.admin ||
				m["dataplane.proxyType"] != c.req.ProxyType || text != c.req.DataplaneResource {
				t.Errorf("%s %+v %+v", b.Node.ID, a.Sidecar, m)
			}
		})
	}
}

func TestHandlerAnswer(t *testing.T) {
	o, _ := zone(t)
	req := bootstrap.Request{Mesh: "shop", Name: "api", DataplaneToken: " " + secret + "\n"}
	w := ask(t, o, nil, req)
	var a bootstrap.Answer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatal(err)
	}
	if a.Sidecar.Networking.Address != "10.0.0.9" || !strings.Contains(w.Body.String(), `"metrics":{"aggregate":null}`) {
		t.Errorf("%s", w.Body)
	}
	var b struct {
		Node struct {
			ID, Cluster string
			Metadata    map[string]any
		}
		DynamicResources struct {
			AdsConfig struct {
				GrpcServices []struct{ InitialMetadata []struct{ Key, Value string } }
			}
		}
		StaticResources struct {
			Clusters []struct{ Name, Type, DNSLookupFamily string }
		}
	}
	if err := yaml.Unmarshal(a.Bootstrap, &b); err != nil {
		t.Fatal(err)
	}
	if b.Node.ID != "shop.api" || b.Node.Cluster != "backend" || b.Node.Metadata["dataplane.admin.port"] != "9999" {
		t.Errorf("%+v", b.Node)
	}
	if m := b.DynamicResources.AdsConfig.GrpcServices[0].InitialMetadata; len(m) != 1 || m[0].Key != "authorization" || m[0].Value != secret {
		t.Errorf("%+v", m)
	}
	if c := b.StaticResources.Clusters[0]; c.Name != "system_ads" || c.Type != "STATIC" {
		t.Errorf("%+v", b.StaticResources.Clusters[0])
	}

	plain := ask(t, o, func(r *http.Request) { r.Header.Set("accept", "application/json, */*") }, req)
	if ct := plain.Header().Get("content-type"); ct != "text/x-yaml" || !bytes.Equal(plain.Body.Bytes(), a.Bootstrap) {
		t.Errorf("other clients get %s\n%s", ct, plain.Body)
	}
}

// TestHandlerHost: the configured host needs no certificate check; a name without
// an IPv6 address is asked for IPv4 alone.
func TestHandlerHost(t *testing.T) {
	four, six := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")
	for _, c := range []struct {
		name      string
		addresses []netip.Addr
		want      string
	}{
		{"IPv4", []netip.Addr{four}, "V4_ONLY"},
		{"both", []netip.Addr{four, six}, "ALL"},
		{"unknown here", nil, "ALL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, _ := zone(t)
			o.Params.XDSHost = "elsewhere.example"
			o.Lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
				if host != "elsewhere.example" {
					t.Errorf("host %q", host)
				}
				return c.addresses, nil
			}
			w := ask(t, o, func(r *http.Request) { r.Host = "x"; r.Header.Del("accept") },
				bootstrap.Request{Mesh: "shop", Name: "api", DataplaneToken: secret})
			if w.Code != 200 || !strings.Contains(w.Body.String(), "dnsLookupFamily: "+c.want) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}
