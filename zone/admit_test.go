package zone_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// signer signs tokens with the key of the mesh, with any header and claims.
func signer(t *testing.T, p *plane) func(header, claims map[string]any) string {
	t.Helper()
	raw, err := p.client.Get(t.Context(), api.Secrets, "default", "dataplane-token-signing-key-default-1")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Data string }
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	pem, err := base64.StdEncoding.DecodeString(doc.Data)
	if err != nil {
		t.Fatal(err)
	}
	key, err := jwt.ParseRSAPrivateKeyFromPEM(pem)
	if err != nil {
		t.Fatal(err)
	}
	return func(header, claims map[string]any) string {
		token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims(claims))
		maps.Copy(token.Header, map[string]any{"kid": "1"})
		maps.Copy(token.Header, header)
		signed, err := token.SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
}

// unsigned is a token whose header says that it needs no signature.
func unsigned(header, claims string) string {
	b := base64.RawURLEncoding
	return b.EncodeToString([]byte(header)) + "." + b.EncodeToString([]byte(claims)) + "."
}

const bound = "kuma.io/workload: cart"

// Every refusal ends the stream with the code Unknown and says why (contract,
// dataplane-wire §5 and §6); the proxies that were there are not disturbed.
func TestAdmissionRefuses(t *testing.T) {
	p := start(t)
	p.apply(t, `{"type":"Mesh","name":"other"}`)
	p.apply(t, "type: MeshIdentity\nmesh: other\nname: by-name\nspec: {selector: {dataplane: {matchLabels: {}}}, provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}}")
	sign := signer(t, p)
	valid := p.token(t, "cart-1", "cart")
	unbound := p.token(t, "cart-1", "")
	revoked := sign(nil, map[string]any{"Name": "cart-1", "Mesh": "default", "Workload": "cart", "jti": "gone"})
	p.apply(t, `{"type":"GlobalSecret","name":"dataplane-token-revocations-default","data":"`+base64.StdEncoding.EncodeToString([]byte("x,gone\n"))+`"}`)
	p.apply(t, cart("stored-1", bound))
	before := p.connect(t, node("default.cart-0", cart("cart-0", bound)), nil, p.token(t, "cart-0", "cart")).served(t)

	var tagged string
	for _, q := range []client.DataplaneTokenRequest{{Mesh: "default", Tags: map[string][]string{"team": {"a"}}, Workload: "cart", ValidFor: "1h"}} {
		var err error
		if tagged, err = p.client.DataplaneToken(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	other, err := p.client.DataplaneToken(t.Context(), client.DataplaneTokenRequest{Mesh: "other", Name: "cart-1", Workload: "cart", ValidFor: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	claims := func(more ...any) map[string]any {
		m := map[string]any{"Name": "cart-1", "Mesh": "default", "Workload": "cart"}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	whole := cart("cart-1", bound)
	typed := node("default.cart-1", whole)
	typed.Metadata.Fields["dataplane.proxyType"] = structpb.NewStringValue("gateway")
	ofType := func(proxyType, resource string) *corev3.Node {
		n := node("default.cart-1", resource)
		n.Metadata.Fields["dataplane.proxyType"] = structpb.NewStringValue(proxyType)
		return n
	}
	const egress = "type: ZoneEgress\nname: cart-1\nnetworking: {address: 10.0.0.1, port: 10002}\n"
	p.apply(t, "type: ZoneEgress\nname: cart-1\nlabels: {kuma.io/mesh: other}\nnetworking: {address: 10.0.0.1, port: 10002}")
	for name, c := range map[string]struct {
		node   *corev3.Node
		tokens []string
		want   string
	}{
		"no token":                  {want: `request must have exactly 1 "authorization" header, got 0`},
		"two tokens":                {tokens: []string{valid, valid}, want: `request must have exactly 1 "authorization" header, got 2`},
		"empty token":               {tokens: []string{""}, want: "authentication failed: could not parse token."},
		"garbage":                   {tokens: []string{"x.y.z"}, want: "authentication failed: could not parse token."},
		"bearer":                    {tokens: []string{"Bearer " + valid}, want: "authentication failed: could not parse token."},
		"expired":                   {tokens: []string{sign(nil, claims("exp", now-60))}, want: "authentication failed: could not parse token. "},
		"not yet":                   {tokens: []string{sign(nil, claims("nbf", now+600))}, want: "authentication failed: token is not yet valid: "},
		"revoked":                   {tokens: []string{revoked}, want: "authentication failed: token is revoked"},
		"other mesh":                {tokens: []string{other}, want: "authentication failed: could not parse token."},
		"mesh in token":             {tokens: []string{sign(nil, claims("Mesh", "other"))}, want: "authentication failed: proxy mesh from requestor: default is different than in token: other"},
		"other name":                {tokens: []string{p.token(t, "cart-2", "cart")}, want: "authentication failed: proxy name from requestor: cart-1 is different than in token: cart-2"},
		"alg none":                  {tokens: []string{unsigned(`{"alg":"none","kid":"1"}`, `{"Name":"cart-1"}`)}, want: "authentication failed: could not parse token."},
		"kid number":                {tokens: []string{sign(map[string]any{"kid": 1}, claims())}, want: "header kid must be a string"},
		"kid list":                  {tokens: []string{sign(map[string]any{"kid": []string{"1"}}, claims())}, want: "header kid must be a string"},
		"kid null":                  {tokens: []string{sign(map[string]any{"kid": nil}, claims())}, want: "header kid must be a string"},
		"kid path":                  {tokens: []string{sign(map[string]any{"kid": "../1"}, claims())}, want: "header kid must be a string"},
		"kid unknown":               {tokens: []string{sign(map[string]any{"kid": "7"}, claims())}, want: `there is no signing key with KID 7. Secret of name "dataplane-token-signing-key-default-7" in mesh "default" is not found`},
		"tag missing":               {tokens: []string{tagged}, want: `dataplane has no tag "team" required by the token`},
		"tag differs":               {node: node("default.cart-1", cart("cart-1", bound+", team: b")), tokens: []string{tagged}, want: `dataplane contains tag "team" with value "b" which is not allowed with this token. Allowed values in token are ["a"]`},
		"workload other":            {tokens: []string{p.token(t, "cart-1", "web")}, want: `dataplane workload "cart" is not allowed with this token. Allowed workload in token is "web"`},
		"not bound to the workload": {tokens: []string{unbound}, want: `dataplane with "kuma.io/workload" label "cart" derives its identity from the workload, so it requires a workload-bound token`},
		"not bound to the service":  {node: node("default.cart-1", cart("cart-1", "kuma.io/service: web")), tokens: []string{unbound}, want: `label "web" derives its identity from the workload, so it requires a workload-bound token`},
		"not bound to the gateway":  {node: node("default.cart-1", "type: Dataplane\nmesh: default\nname: cart-1\nnetworking: {address: 10.0.0.1, gateway: {tags: {kuma.io/service: web}}}"), tokens: []string{unbound}, want: `label "web" derives its identity from the workload, so it requires a workload-bound token`},
		"not bound to a client":     {node: node("default.cart-1", "type: Dataplane\nmesh: default\nname: cart-1\nlabels: {kuma.io/service: web}\nnetworking: {address: 10.0.0.1}"), tokens: []string{unbound}, want: `dataplane derives its identity from the workload "web": give it the label kuma.io/workload and a token that is bound to it`},

		"no node":             {node: &corev3.Node{}, tokens: []string{valid}, want: "request must have a valid Proxy ID: Envoy ID must not be nil"},
		"no dot":              {node: node("cart-1", whole), tokens: []string{valid}, want: "the name should be provided after the dot"},
		"no name":             {node: node("default.", whole), tokens: []string{valid}, want: "the name should be provided after the dot"},
		"proxy type":          {node: typed, tokens: []string{valid}, want: `type of proxy "gateway" is not known; allowed: dataplane, ingress, egress`},
		"zone proxy, type":    {node: ofType("ingress", egress), tokens: []string{valid}, want: `not a ZoneIngress: type is "ZoneEgress"; that is for proxies of type egress`},
		"zone proxy, fault":   {node: ofType("egress", egress+"colour: red"), tokens: []string{valid}, want: "colour: unknown field"},
		"zone proxy, mesh":    {node: ofType("ingress", "type: ZoneIngress\nname: cart-1\nlabels: {kuma.io/mesh: other}\nnetworking: {address: 10.0.0.1, port: 10001}"), tokens: []string{valid}, want: `the label kuma.io/mesh says "other"`},
		"zone proxy, other's": {node: ofType("egress", egress), tokens: []string{valid}, want: `ZoneEgress "cart-1" is stored for another mesh`},
		"zone proxy, token":   {node: ofType("ingress", "type: ZoneIngress\nname: cart-1\nnetworking: {address: 10.0.0.1, port: 10001}"), tokens: []string{p.token(t, "cart-2", "")}, want: "authentication failed: proxy name from requestor"},
		"unknown":             {node: node("default.cart-1", ""), tokens: []string{valid}, want: `resource "default.cart-1" not found; create a Dataplane in the control plane first or pass it as an argument`},
		"other resource":      {node: node("default.cart-1", cart("cart-2", bound)), tokens: []string{valid}, want: "proxyId {mesh: default, name: cart-1} does not match proxy resource {mesh: default, name: cart-2}"},
		"invalid YAML":        {node: node("default.cart-1", "a: [b"), tokens: []string{valid}, want: "not a Dataplane: yaml: line 1"},
		"no mapping":          {node: node("default.cart-1", "just text"), tokens: []string{valid}, want: "must be a JSON object"},
		"other kind":          {node: node("default.cart-1", "type: MeshService\nmesh: default\nname: cart-1\nspec: {}"), tokens: []string{valid}, want: `not a Dataplane: type is "MeshService"`},
		"unknown kind":        {node: node("default.cart-1", "type: Datenebene\nmesh: default\nname: cart-1"), tokens: []string{valid}, want: "unknown kind"},
		"unknown field":       {node: node("default.cart-1", strings.Replace(whole, "port: 8080", "port: 8080, portt: 1", 1)), tokens: []string{valid}, want: "networking.inbound[0].portt"},
		"invalid port":        {node: node("default.cart-1", strings.Replace(whole, "8080", "80800", 1)), tokens: []string{valid}, want: "networking.inbound[0].port"},
		"mesh missing":        {node: node("none.cart-1", strings.Replace(whole, "mesh: default", "mesh: none", 1)), tokens: []string{valid}, want: `mesh "none" does not exist`},
		"stored, other's":     {node: node("default.stored-1", strings.Replace(cart("stored-1", "kuma.io/workload: web"), "10.0.0.1", "10.6.6.6", 1)), tokens: []string{p.token(t, "", "web")}, want: "authentication failed: another proxy of this name is registered"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.node == nil {
				c.node = node("default.cart-1", whole)
			}
			err := p.connect(t, c.node, nil, c.tokens...).refused(t)
			if status.Code(err) != codes.Unknown || !strings.Contains(status.Convert(err).Message(), c.want) {
				t.Errorf("got %v\nwant Unknown and %s", err, c.want)
			}
		})
	}
	if !p.gone(t, api.Dataplanes, "cart-1") {
		t.Error("a refused proxy is registered")
	}
	raw, err := p.client.Get(t.Context(), api.Dataplanes, "default", "stored-1")
	if err != nil || strings.Contains(string(raw), "10.6.6.6") {
		t.Errorf("a refused proxy has changed what is stored: %s %v", raw, err)
	}
	select {
	case err := <-before.ended:
		t.Errorf("a proxy that was there was ended: %v", err)
	default:
	}
}

func TestAdmissionAdmits(t *testing.T) {
	p := start(t)
	sign := signer(t, p)
	p.apply(t, cart("stored-1", bound))
	for name, c := range map[string]struct{ id, resource, token string }{
		"brings its own":     {"cart-1", cart("cart-1", bound), p.token(t, "cart-1", "cart")},
		"no exp, no jti":     {"cart-2", cart("cart-2", bound), sign(nil, map[string]any{"Workload": "cart"})},
		"claims in any case": {"cart-3", cart("cart-3", bound), sign(nil, map[string]any{"name": "cart-3", "WORKLOAD": "cart"})},
		"named as workload":  {"cart", cart("cart", bound), p.token(t, "cart", "")},
		"no labels":          {"plain", cart("plain", ""), p.token(t, "plain", "")},
		"bound to the tag":   {"web-1", cart("web-1", "kuma.io/service: web"), sign(nil, map[string]any{"Tags": map[string]any{"kuma.io/service": []string{"web"}}})},
		"stored before":      {"stored-1", "", p.token(t, "stored-1", "cart")},
		"stored and brought": {"stored-1", strings.Replace(cart("stored-1", bound), "8080", "8081", 1), p.token(t, "stored-1", "cart")},
	} {
		t.Run(name, func(t *testing.T) {
			p.connect(t, node("default."+c.id, c.resource), nil, c.token).served(t).cancel()
		})
	}
	// What a user stored does not go with its proxy, whatever the proxy brought.
	eventually(t, "those that registered themselves go", func() error {
		if !p.gone(t, api.Dataplanes, "cart-1") {
			return fmt.Errorf("cart-1 is there")
		}
		return nil
	})
	if p.gone(t, api.Dataplanes, "stored-1") {
		t.Error("the Dataplane of a user is gone")
	}
}

// An identity may select by a label that the control plane adds; that a proxy
// does not send it does not free its token from naming the workload.
func TestWorkloadBoundByComputedLabels(t *testing.T) {
	p := start(t)
	p.apply(t, "type: MeshIdentity\nmesh: default\nname: default\nspec: {selector: {dataplane: {matchLabels: {kuma.io/zone: east}}}, provider: {type: Bundled, bundled: {autogenerate: {enabled: true}}}}")
	err := p.connect(t, node("default.cart-1", cart("cart-1", bound)), nil, p.token(t, "cart-1", "")).refused(t)
	if !strings.Contains(err.Error(), "requires a workload-bound token") {
		t.Error(err)
	}
}
