package zone_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/xds/wire"
)

// boot asks for a bootstrap and returns the node in it.
func (p *plane) boot(t *testing.T, req bootstrap.Request) *corev3.Node {
	t.Helper()
	chain, err := os.ReadFile(filepath.Join(p.dir, "server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(chain)
	body, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer c.CloseIdleConnections()
	r, err := c.Post("https://"+p.value(t, "dp-server")+bootstrap.Path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("bootstrap: %d %s %v", r.StatusCode, text, err)
	}
	var b struct{ Node json.RawMessage }
	if err := yaml.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	n := &corev3.Node{}
	if err := protojson.Unmarshal(b.Node, n); err != nil {
		t.Fatal(err)
	}
	return n
}

// has waits until the proxy was sent a resource of the name.
func (x *proxy) has(t *testing.T, typ wire.Type, name string) {
	t.Helper()
	eventually(t, "it gets "+name, func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		if !slices.Contains(x.names[typ], name) {
			return fmt.Errorf("it has %v", x.names[typ])
		}
		return nil
	})
}

func (p *plane) advertised(t *testing.T, name, address string) {
	t.Helper()
	eventually(t, "the address is known", func() error {
		raw, err := p.client.Get(t.Context(), api.MeshZoneAddresses, "default", name)
		if err == nil && !strings.Contains(string(raw), address) {
			err = fmt.Errorf("it is %s", raw)
		}
		return err
	})
}

const zoneIngress = "type: ZoneIngress\nname: %s\nnetworking: {address: 127.0.0.1, port: 10001, advertisedAddress: lb.example, advertisedPort: 443}\n"

// A ZoneIngress of earlier releases is served as what it means, stored by a user
// or brought by its proxy.
func TestZoneIngress(t *testing.T) {
	p := start(t)
	p.apply(t, cart("cart-1", bound))
	p.apply(t, fmt.Sprintf(zoneIngress, "stored"))
	eventually(t, "it stands for a Dataplane", func() error {
		_, err := p.client.Get(t.Context(), api.Dataplanes, "default", "stored")
		return err
	})
	token := p.token(t, "stored", "")
	n := p.boot(t, bootstrap.Request{Name: "stored", ProxyType: "ingress", DataplaneToken: token})
	if n.GetId() != "default.stored" {
		t.Errorf("node %q", n.GetId())
	}
	x := p.connect(t, n, nil, token).served(t)
	x.has(t, wire.Listener, "self_zoneingress_dp_10001")
	p.advertised(t, "stored", "lb.example")
	// The same definition brought by the proxy changes nothing.
	again := p.boot(t, bootstrap.Request{Name: "stored", ProxyType: "ingress", DataplaneToken: token, DataplaneResource: fmt.Sprintf(zoneIngress, "stored")})
	p.connect(t, again, nil, token).served(t).cancel()
	// Another one says something of all meshes, which a proxy of one may not.
	other := p.boot(t, bootstrap.Request{Name: "stored", ProxyType: "ingress", DataplaneToken: token,
		DataplaneResource: strings.Replace(fmt.Sprintf(zoneIngress, "stored"), "lb.example", "evil.example", 1)})
	if err := p.connect(t, other, nil, token).refused(t); !strings.Contains(err.Error(), `another ZoneIngress "stored" is stored, for all meshes`) {
		t.Error(err)
	}

	token = p.token(t, "brought", "")
	n = p.boot(t, bootstrap.Request{Name: "brought", ProxyType: "ingress", DataplaneToken: token, DataplaneResource: fmt.Sprintf(zoneIngress, "brought")})
	y := p.connect(t, n, nil, token).served(t)
	y.has(t, wire.Listener, "self_zoneingress_dp_10001")
	p.advertised(t, "brought", "lb.example")
	raw, err := p.client.Get(t.Context(), api.ZoneIngresses, "", "brought")
	if err != nil || !strings.Contains(string(raw), `"kuma.io/mesh": "default"`) {
		t.Errorf("%s %v", raw, err)
	}
	// It goes with its proxy, that of a user stays.
	x.cancel()
	y.cancel()
	eventually(t, "it goes with its proxy", func() error {
		for _, k := range []api.AnyKind{api.ZoneIngresses, api.Dataplanes, api.MeshZoneAddresses} {
			if !p.gone(t, k, "brought") {
				return errors.New(k.Info().Name + " is there")
			}
		}
		return nil
	})
	if p.gone(t, api.ZoneIngresses, "stored") || p.gone(t, api.Dataplanes, "stored") || p.gone(t, api.MeshZoneAddresses, "stored") {
		t.Error("what a user stored went with its proxy")
	}
}

// A ZoneEgress that its proxy brings is a Dataplane of the proxy's mesh, and
// what it brings later takes its place.
func TestZoneEgress(t *testing.T) {
	p := start(t)
	p.apply(t, `{"type":"Mesh","name":"shop"}`)
	token := p.token(t, "out", "")
	for _, address := range []string{"127.0.0.1", "127.0.0.2"} {
		text := "type: ZoneEgress\nname: out\nnetworking: {address: " + address + ", port: 10002, admin: {port: 9903}}\n"
		n := p.boot(t, bootstrap.Request{Name: "out", ProxyType: "egress", DataplaneToken: token, DataplaneResource: text})
		if got := n.GetMetadata().GetFields()["dataplane.admin.port"].GetStringValue(); got != "9903" {
			t.Errorf("administration on %s", got)
		}
		p.connect(t, n, nil, token).served(t)
		raw, err := p.client.Get(t.Context(), api.Dataplanes, "default", "out")
		if err != nil || !strings.Contains(string(raw), `"ZoneEgress"`) || !strings.Contains(string(raw), address) {
			t.Errorf("%s %v", raw, err)
		}
	}
	if _, err := p.client.Get(t.Context(), api.Dataplanes, "shop", "out"); err == nil {
		t.Error("it is in another mesh")
	}
}
