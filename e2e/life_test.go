package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/zone"
)

// answers waits until the URL answers 200 with the text.
func answers(t testing.TB, url, text string) {
	t.Helper()
	eventually(t, url+" answers "+text, func() error {
		body, err := fetch(url)
		if err == nil && !strings.Contains(body, text) {
			err = fmt.Errorf("answered %q", body)
		}
		return err
	})
}

func TestZoneGoesOnWithoutGlobal(t *testing.T) {
	g := startGlobal(t)
	west := startZone(t, "west", g)
	meshIn(t, west)
	apply(t, g, fmt.Sprintf(allowAll, "west"))
	first := startProxy(t, west, spec{mesh: "default", name: "cart-1", service: "cart"})
	// The second instance listens on the first one's port, at its own address,
	// so that both are one service.
	port := servicePort(t, west, "cart")
	web := startProxy(t, west, spec{mesh: "default", name: "web-1", service: "web", outbounds: []string{fmt.Sprintf("MeshService/cart/west/%d", port)}})
	url := web.outbounds["cart/west"]
	answers(t, url, "cart-1")

	g.stop()
	west.stop()
	if _, err := fetch(url); err != nil {
		t.Errorf("without any control plane: %v", err)
	}
	west = west.again()
	answers(t, url, "cart-1")
	reached(t, west, 0, 2) // both proxies are back: one that is not has half a minute before it counts as gone
	failed := traffic(t, url)
	startProxy(t, west, spec{mesh: "default", name: "cart-2", service: "cart", port: port})
	answers(t, url, "cart-2") // found inside the zone while global is away
	if n, err := failed(); n > 0 {
		t.Errorf("%d requests failed while an instance joined: %v", n, err)
	}
	first.stop()
	eventually(t, "the endpoint that is gone", func() error {
		for range 8 {
			if body, err := fetch(url); err != nil || !strings.Contains(body, "cart-2") {
				return fmt.Errorf("%q %w", body, err)
			}
		}
		return nil
	})

	g = g.again()
	a := apply(t, g, `{"type":"MeshTimeout","mesh":"default","name":"later","spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"31m"}}]}}`)
	reached(t, g, a.Revision, 2)
}

// traffic calls the URL until the returned function is called, which tells how
// many calls failed and how the last one did.
func traffic(t testing.TB, url string) (failed func() (int, error)) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	var n int
	var last error
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := fetch(url); err != nil {
				n, last = n+1, err
			}
		}
	}()
	end := sync.OnceFunc(func() { close(stop); <-done })
	t.Cleanup(end)
	return func() (int, error) { end(); return n, last }
}

// reached waits until so many proxies have the revision of a control plane; 0 is
// the newest.
func reached(t testing.TB, p *plane, revision uint64, proxies int) {
	t.Helper()
	// A test's context ends before its cleanups, which ask here, too.
	eventually(t, fmt.Sprintf("revision %d at every proxy", revision), func() error {
		var reach struct {
			Converged bool
			Zones     []struct {
				Zone                      string
				Connected                 bool
				Proxies, Behind, Rejected int
			}
		}
		_, err := p.client.Do(context.WithoutCancel(t.Context()), http.MethodGet, "/convergence", url.Values{"revision": {fmt.Sprint(revision)}}, nil, &reach)
		if err != nil {
			return err
		}
		n := 0
		for _, z := range reach.Zones {
			if z.Connected {
				n += z.Proxies - z.Behind
			}
		}
		if !reach.Converged || n != proxies {
			return fmt.Errorf("%+v", reach)
		}
		return nil
	})
}

func TestMultiZoneServicePrefersItsOwnZone(t *testing.T) {
	g := startGlobal(t)
	east, west := startZone(t, "east", g), startZone(t, "west", g)
	meshIn(t, east, west)
	for _, z := range []string{"east", "west"} {
		apply(t, g, strings.ReplaceAll(fmt.Sprintf(allowAll, z), `"name":"all"`, `"name":"all-`+z+`"`))
	}
	apply(t, g, `{"type":"MeshMultiZoneService","mesh":"default","name":"catalog","spec":{"selector":{"meshService":{"matchLabels":{"kuma.io/display-name":"catalog"}}},"ports":[{"name":"http","port":80,"appProtocol":"http"}]}}`)
	startProxy(t, west, spec{mesh: "default", name: "ingress-west", ingress: true})
	near := startProxy(t, east, spec{mesh: "default", name: "catalog-east", service: "catalog"})
	startProxy(t, west, spec{mesh: "default", name: "catalog-west", service: "catalog"})
	web := startProxy(t, east, spec{mesh: "default", name: "web-1", service: "web", outbounds: []string{"MeshMultiZoneService/catalog//80"}})
	url := web.outbounds["catalog/"]
	answers(t, url, "catalog-east")
	for range 20 {
		if body, err := fetch(url); err != nil || !strings.Contains(body, "catalog-east") {
			t.Fatalf("not answered in its own zone: %q %v", body, err)
		}
	}
	near.stop()
	answers(t, url, "catalog-west")
}

func TestRefusedListenerBecomesACondition(t *testing.T) {
	z := startZone(t, "alone", nil)
	meshIn(t, z)
	taken, port := freeAddress(t)
	blocker := listen(t, fmt.Sprintf("%s:%d", taken, port))
	defer blocker.Close()
	startProxy(t, z, spec{mesh: "default", name: "cart-1", service: "cart",
		inbounds: []string{fmt.Sprintf(`{"name":"taken","address":%q,"port":%d,"protocol":"tcp"}`, taken, port)}})
	eventually(t, "the condition", func() error {
		var o struct {
			DataplaneInsight struct{ Conditions []api.Condition }
		}
		if _, err := z.client.Do(t.Context(), http.MethodGet, "/meshes/default/dataplanes/cart-1/_overview", nil, nil, &o); err != nil {
			return err
		}
		for _, c := range o.DataplaneInsight.Conditions {
			if strings.Contains(c.Message, "self_inbound_dp_taken") {
				return nil
			}
		}
		return fmt.Errorf("conditions: %+v", o.DataplaneInsight.Conditions)
	})
	// The innocent listener of the same message is there.
	apply(t, z, fmt.Sprintf(allowAll, "alone"))
	web := startProxy(t, z, spec{mesh: "default", name: "web-1", service: "web",
		outbounds: []string{fmt.Sprintf("MeshService/cart/alone/%d", servicePort(t, z, "cart"))}})
	answers(t, web.outbounds["cart/alone"], "cart-1")
}

func TestStrangersAreRefused(t *testing.T) {
	g, other := startGlobal(t), startGlobal(t)
	foreign, err := other.client.ZoneToken(t.Context(), client.ZoneTokenRequest{Zone: "east", ValidFor: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	borrowed, err := g.client.ZoneToken(t.Context(), client.ZoneTokenRequest{Zone: "west", ValidFor: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{"foreign token": foreign, "another's name": borrowed, "no token": ""} {
		t.Run(what, func(t *testing.T) {
			z := startZone(t, "east", g, func(c *zone.Config) { replace(t, c.Global.TokenFile, token) })
			eventually(t, "the refusal", func() error {
				_, err := z.client.DataplaneToken(t.Context(), client.DataplaneTokenRequest{Mesh: "default", Name: "x", ValidFor: "1h"})
				if err == nil {
					t.Fatal("the zone got the mesh")
				}
				return nil
			})
			for raw, err := range g.client.List(t.Context(), api.Zones, "", nil) {
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(raw), `"east"`) {
					t.Errorf("global has taken the zone: %s", raw)
				}
			}
		})
	}
}

func TestCertificatesRotateUnderTraffic(t *testing.T) {
	z := startZone(t, "alone", nil)
	meshIn(t, z)
	apply(t, z, `{"type":"MeshIdentity","mesh":"default","name":"default","spec":{"selector":{"dataplane":{"matchLabels":{}}},"provider":{"type":"Bundled","bundled":{"insecureAllowSelfSigned":true,"autogenerate":{"enabled":true},"certificateParameters":{"expiry":"5s"}}}}}`)
	apply(t, z, fmt.Sprintf(allowAll, "alone"))
	startProxy(t, z, spec{mesh: "default", name: "cart-1", service: "cart"})
	web := startProxy(t, z, spec{mesh: "default", name: "web-1", service: "web",
		outbounds: []string{fmt.Sprintf("MeshService/cart/alone/%d", servicePort(t, z, "cart"))}})
	url := web.outbounds["cart/alone"]
	answers(t, url, "cart-1")
	requests := 0
	eventually(t, "two rotations", func() error {
		for range 20 {
			if _, err := fetch(url); err != nil {
				t.Fatalf("request %d failed: %v", requests, err)
			}
			requests++
		}
		var o struct {
			DataplaneInsight struct{ MTLS *api.DataplaneMTLS }
		}
		if _, err := z.client.Do(t.Context(), http.MethodGet, "/meshes/default/dataplanes/cart-1/_overview", nil, nil, &o); err != nil {
			return err
		}
		if m := o.DataplaneInsight.MTLS; m == nil || m.CertificateRegenerations < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	t.Logf("%d requests, none failed", requests)
}
