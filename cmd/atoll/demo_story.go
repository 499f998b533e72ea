package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
)

// story is what the demonstration shows, step by step; each step is asserted.
type story struct {
	lab    *lab
	screen *screen
	parts  []string // whose logs tell most if the current step fails
}

// act is a step of the story.
type act struct {
	title string
	play  func(context.Context) error
	parts []string // beside the control planes
}

func (s *story) acts() []act {
	return []act{
		{"a global control plane, and the zones east and west", s.controlPlanes, nil},
		{"the shop: four services, an Envoy next to each, an ingress for each zone", s.openShop, []string{"web-1", "cart-1"}},
		{"nobody may call anybody, until a permission says so", s.permissions, []string{"web-1", "cart-1"}},
		{"calls: in a zone, across zones over mTLS, to a service of both zones", s.calls, []string{"web-1", "cart-1", "ingress-west"}},
		{"a permission is taken away, and given back", s.denyAndAllow, []string{"cart-1"}},
		{"a timeout is changed at global", s.timeout, []string{"web-1"}},
		{"an instance is killed", s.killInstance, []string{"cart-1"}},
		{"global is stopped, and started again", s.withoutGlobal, []string{"cart-1"}},
		{"certificates are rotated under traffic", s.rotation, []string{"web-1", "cart-1"}},
	}
}

// play plays all steps. The error is the first that failed, with the last lines
// of the logs that tell why.
func (s *story) play(ctx context.Context) error {
	acts := s.acts()
	for i, a := range acts {
		s.parts = a.parts
		s.screen.begin(i+1, len(acts), a.title)
		err := a.play(ctx)
		s.screen.end(err)
		if err != nil {
			return s.explain(fmt.Errorf("step %d (%s): %w", i+1, a.title, err))
		}
	}
	return nil
}

// logTail is how many lines of a log are shown.
const logTail = 15

// explain adds the last lines of the logs of the parts concerned.
func (s *story) explain(err error) error {
	var broken *brokenPart
	parts := map[string]bool{}
	if errors.As(err, &broken) {
		parts[broken.part] = true
	} else {
		for _, c := range s.lab.controlPlanes() {
			parts[c.name] = true
		}
		for _, name := range s.parts {
			parts[name] = true
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		if !s.lab.logged[name] {
			continue // it was not started
		}
		fmt.Fprintf(&b, "\n── the log of %s ends with ──\n%s\n", name, tail(s.lab.logOf(name), logTail))
	}
	return fmt.Errorf("%w\n%s", err, b.String())
}

func (s *story) controlPlanes(ctx context.Context) error {
	if err := s.lab.startGlobal(ctx); err != nil {
		return err
	}
	s.screen.fact("global  %s", s.lab.global.url())
	for _, zone := range []string{"east", "west"} {
		if err := s.lab.startZone(ctx, zone); err != nil {
			return err
		}
		s.screen.fact("%s    %s, proxies connect to %s", zone, s.lab.zones[zone].url(), s.lab.zones[zone].at["dp-server"])
	}
	return nil
}

func (s *story) openShop(ctx context.Context) error {
	port := map[string]string{"port": s.lab.net.ports.variables()["port"]}
	if _, err := s.lab.apply(ctx, "mesh.yaml", port); err != nil {
		return err
	}
	for name, zone := range s.lab.zones {
		err := s.lab.until(ctx, startTime, "the mesh arrives in "+name, func(ctx context.Context) error {
			_, err := zone.client.Get(ctx, api.Meshes, "", demoMesh)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, i := range []struct{ service, name, zone string }{
		{"ingress", "ingress-east", "east"},
		{"ingress", "ingress-west", "west"},
		{"web", "web-1", "east"},
		{"catalog", "catalog-east-1", "east"},
		{"catalog", "catalog-west-1", "west"},
		{"catalog", "catalog-west-2", "west"},
		{"cart", "cart-1", "west"},
		{"payments", "payments-1", "west"},
	} {
		if _, err := s.lab.startInstance(ctx, i.service, i.name, i.zone); err != nil {
			return err
		}
	}
	if err := s.lab.inStep(ctx, 40*time.Second); err != nil {
		return err
	}
	s.screen.fact("%d proxies are connected and in step", len(s.lab.instances))
	return nil
}

func (s *story) web() *instance  { return s.lab.instances["web-1"] }
func (s *story) cart() *instance { return s.lab.instances["cart-1"] }

// The calls that the services of the shop make.
func (s *story) webToCatalog() route  { return route{s.web(), "/call/catalog"} }
func (s *story) webToCart() route     { return route{s.web(), "/call/cart"} }
func (s *story) cartToCatalog() route { return route{s.cart(), "/call/catalog"} }
func (s *story) cartToPay() route     { return route{s.cart(), "/call/payments"} }
func (s *story) allRoutes() []route {
	return []route{s.webToCatalog(), s.webToCart(), s.cartToCatalog(), s.cartToPay()}
}

// settle bounds how long calls may take to become as a policy wants them, after
// every proxy has it: nothing is left to wait for but a running call.
const settle = 10 * time.Second

// expect calls until the status is the wanted one and the body contains the text.
func (s *story) expect(ctx context.Context, r route, status int, text string) (body []byte, err error) {
	err = s.lab.until(ctx, settle, fmt.Sprintf("%s is answered with %d", r, status), func(ctx context.Context) error {
		got, answer, err := s.lab.call(ctx, r.from, r.path)
		switch {
		case err != nil:
			return err
		case got != status || !strings.Contains(string(answer), text):
			return fmt.Errorf("%d %s", got, excerpt(answer))
		}
		body = answer
		return nil
	})
	return body, err
}

// answered calls until a service answers, and returns what it said.
func (s *story) answered(ctx context.Context, r route) (*reply, error) {
	body, err := s.expect(ctx, r, http.StatusOK, "")
	if err != nil {
		return nil, err
	}
	var out reply
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	return out.last(), nil
}

// reached changes something at global and waits until every proxy has it. The
// time is from the request to the acknowledgement of the last Envoy, as global
// hears of it.
func (s *story) reached(ctx context.Context, what string, change func(context.Context) (uint64, error)) error {
	const limit = 20 * time.Second
	s.screen.waiting("%s: waiting for every proxy", what)
	began := time.Now()
	revision, err := change(ctx)
	if err != nil {
		return err
	}
	reach, err := s.lab.reach(ctx, revision, limit)
	took := time.Since(began)
	if err != nil {
		return err
	}
	all, behind := 0, 0
	for _, z := range reach.Zones {
		all += z.Proxies
		behind += z.Behind
	}
	if !reach.Converged || all != len(s.lab.instances) {
		return fmt.Errorf("%s: revision %d reached %d of %d proxies within %v: %+v", what, revision, all-behind, len(s.lab.instances), limit, reach.Zones)
	}
	s.screen.fact("%s: reached %d/%d proxies in %d ms", what, all, all, took.Milliseconds())
	return nil
}

// applied is a change that applies a file.
func (s *story) applied(file string, variables map[string]string) func(context.Context) (uint64, error) {
	return func(ctx context.Context) (uint64, error) { return s.lab.apply(ctx, file, variables) }
}

func (s *story) permissions(ctx context.Context) error {
	for _, r := range s.allRoutes() {
		body, err := s.expect(ctx, r, http.StatusForbidden, "access denied")
		if err != nil {
			return err
		}
		s.screen.fact("%-22s 403 %s", r, excerpt(body))
	}
	if err := s.reached(ctx, "permissions.yaml", s.applied("permissions.yaml", nil)); err != nil {
		return err
	}
	for _, r := range s.allRoutes() {
		if _, err := s.expect(ctx, r, http.StatusOK, ""); err != nil {
			return err
		}
		s.screen.fact("%-22s 200", r)
	}
	return nil
}

// spiffe is who a service is, by its certificate.
func spiffe(zone, service string) string {
	return "spiffe://" + demoMesh + "." + zone + ".mesh.local/workload/" + service
}

func (s *story) calls(ctx context.Context) error {
	for _, c := range []struct {
		route        route
		place        string
		service      string
		zone, caller string
	}{
		{s.webToCatalog(), "in east", "catalog", "east", spiffe("east", "web")},
		{s.cartToPay(), "in west", "payments", "west", spiffe("west", "cart")},
		{s.webToCart(), "east to west", "cart", "west", spiffe("east", "web")},
		{route{s.web(), "/call/cart/call/payments"}, "east to west, and on", "payments", "west", spiffe("west", "cart")},
	} {
		got, err := s.answered(ctx, c.route)
		if err != nil {
			return err
		}
		if got.Service != c.service || got.Zone != c.zone || got.Caller != c.caller {
			return fmt.Errorf("%s: %s in %s answered %q, not %s in %s to %s", c.route, got.Instance, got.Zone, got.Caller, c.service, c.zone, c.caller)
		}
		s.screen.fact("%-22s %s saw %s", c.place, got.Instance, got.Caller)
	}
	for _, c := range []struct {
		route     route
		zone      string
		instances int
	}{{s.webToCatalog(), "east", 1}, {s.cartToCatalog(), "west", 2}} {
		const many = 40
		seen := map[string]int{}
		for range many {
			got, err := s.answered(ctx, c.route)
			if err != nil {
				return err
			}
			if got.Zone != c.zone {
				return fmt.Errorf("%s was answered by %s in %s, although there are instances in %s", c.route, got.Instance, got.Zone, c.zone)
			}
			seen[got.Instance]++
		}
		if len(seen) != c.instances {
			return fmt.Errorf("%s was answered by %v, not by %d instances", c.route, seen, c.instances)
		}
		s.screen.fact("%-22s the zone's own answered: %s", c.route, strings.Trim(fmt.Sprint(seen), "map[]"))
	}
	return nil
}

func (s *story) denyAndAllow(ctx context.Context) error {
	if err := s.reached(ctx, "deny.yaml", s.applied("deny.yaml", nil)); err != nil {
		return err
	}
	const policy = "closed-to-east"
	body, err := s.expect(ctx, s.webToCart(), http.StatusForbidden, policy)
	if err != nil {
		return err
	}
	s.screen.fact("%-22s 403 %s", s.webToCart(), excerpt(body))
	if _, err := s.expect(ctx, s.cartToPay(), http.StatusOK, ""); err != nil {
		return err
	}
	err = s.reached(ctx, "deleted again", func(ctx context.Context) (uint64, error) {
		return s.lab.global.client.Delete(ctx, api.MeshTrafficPermissions, demoMesh, policy)
	})
	if err != nil {
		return err
	}
	if _, err := s.expect(ctx, s.webToCart(), http.StatusOK, ""); err != nil {
		return err
	}
	s.screen.fact("%-22s 200", s.webToCart())
	return nil
}

func (s *story) timeout(ctx context.Context) error {
	slow := route{s.web(), "/call/cart?slow=1s"}
	if _, err := s.expect(ctx, slow, http.StatusOK, ""); err != nil {
		return err
	}
	s.screen.fact("%s 200", slow)
	if err := s.reached(ctx, "timeout.yaml with 250ms", s.applied("timeout.yaml", map[string]string{"patience": "250ms"})); err != nil {
		return err
	}
	began := time.Now()
	if _, err := s.expect(ctx, slow, http.StatusGatewayTimeout, ""); err != nil {
		return err
	}
	s.screen.fact("%s 504 after %d ms", slow, time.Since(began).Milliseconds())
	if err := s.reached(ctx, "timeout.yaml with 5s", s.applied("timeout.yaml", map[string]string{"patience": "5s"})); err != nil {
		return err
	}
	_, err := s.expect(ctx, slow, http.StatusOK, "")
	return err
}

// enough is how many calls prove that a change broke nothing.
const enough = 200

// more waits until the traffic had some calls more.
func (s *story) more(ctx context.Context, t *traffic, calls int) error {
	want := t.count() + calls
	return s.lab.until(ctx, 20*time.Second, fmt.Sprintf("%d calls", calls), func(context.Context) error {
		if have := t.count(); have < want {
			return fmt.Errorf("%d to go", want-have)
		}
		return nil
	})
}

func (s *story) killInstance(ctx context.Context) error {
	victim := s.lab.instances["catalog-west-1"]
	others := s.lab.traffic(ctx, s.webToCatalog(), s.webToCart(), s.cartToPay())
	defer others.stop()
	concerned := s.lab.traffic(ctx, s.cartToCatalog())
	defer concerned.stop()
	if err := s.more(ctx, concerned, enough/4); err != nil {
		return err
	}
	if err := concerned.unbroken("before the end"); err != nil {
		return err
	}
	killed := time.Now()
	s.lab.kill(victim)
	err := s.lab.until(ctx, 20*time.Second, "the endpoint of "+victim.name+" is gone", func(ctx context.Context) error {
		return s.withoutEndpoint(ctx, s.cart(), victim)
	})
	if err != nil {
		return err
	}
	gone := time.Now()
	if err := s.more(ctx, concerned, enough); err != nil {
		return err
	}
	concerned.stop()
	calls := others.stop()
	if err := errors.Join(
		concerned.unbrokenSince(gone, "after the endpoint was gone"),
		others.unbroken("of the calls that do not concern it"),
	); err != nil {
		return err
	}
	s.screen.fact("%s: SIGKILL; its endpoint was gone after %d ms", victim.name, gone.Sub(killed).Milliseconds())
	s.screen.fact("calls to it failed until then: %d; after that: 0 of %d; of others: 0 of %d",
		len(concerned.failuresSince(killed)), enough, calls)
	return s.lab.inStep(ctx, 20*time.Second)
}

// withoutEndpoint asks the caller's Envoy whether it still knows the endpoint.
func (s *story) withoutEndpoint(ctx context.Context, caller, of *instance) error {
	status, body, err := fetchReply(ctx, caller.admin, "http://envoy/clusters")
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("the Envoy of %s: %d %s", caller.name, status, excerpt(body))
	case strings.Contains(string(body), of.inbound(s.lab.net.ports)):
		return fmt.Errorf("the Envoy of %s still has it", caller.name)
	}
	return nil
}

func (s *story) withoutGlobal(ctx context.Context) error {
	steady := s.lab.traffic(ctx, s.allRoutes()...)
	defer steady.stop()
	s.screen.waiting("global ends")
	if err := s.lab.global.child.stop(); err != nil {
		return err
	}
	if err := s.more(ctx, steady, enough); err != nil {
		return err
	}
	s.screen.fact("global has ended; calls go on in both zones and between them")

	began := time.Now()
	newcomer, err := s.lab.startInstance(ctx, "catalog", "catalog-west-3", "west")
	if err != nil {
		return err
	}
	err = s.lab.until(ctx, 20*time.Second, newcomer.name+" is found in west", func(ctx context.Context) error {
		got, err := s.answered(ctx, s.cartToCatalog())
		if err == nil && got.Instance != newcomer.name {
			err = fmt.Errorf("%s answered", got.Instance)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.screen.fact("%s is new, and cart-1 found it after %.1f s", newcomer.name, time.Since(began).Seconds())

	if err := s.lab.startGlobal(ctx); err != nil {
		return err
	}
	began = time.Now()
	if err := s.lab.inStep(ctx, inStepLimit); err != nil {
		return err
	}
	s.screen.fact("global is back; both zones and all %d proxies were in step after %d ms", len(s.lab.instances), time.Since(began).Milliseconds())
	calls := steady.stop()
	if err := steady.unbroken("while global was away and came back"); err != nil {
		return err
	}
	s.screen.fact("no call of %d failed meanwhile", calls)
	return nil
}

// inStepLimit is how long all may need to be in step once global serves again.
const inStepLimit = time.Second

func (s *story) rotation(ctx context.Context) error {
	// As soon as certificates shall live shorter, they are replaced; then again
	// when four fifths of their life are over.
	const life = 10 * time.Second
	watched := []*instance{s.web(), s.cart(), s.lab.instances["catalog-east-1"], s.lab.instances["catalog-west-2"], s.lab.instances["payments-1"]}
	steady := s.lab.traffic(ctx, s.allRoutes()...)
	defer steady.stop()
	before, err := s.certificates(ctx, watched)
	if err != nil {
		return err
	}
	if err := s.reached(ctx, "identity.yaml with "+life.String(), s.applied("identity.yaml", map[string]string{"life": life.String()})); err != nil {
		return err
	}
	for _, why := range []string{"because their life was made shorter", "because their time was over"} {
		began := time.Now()
		err := s.lab.until(ctx, life+5*time.Second, "new certificates at every inbound", func(ctx context.Context) error {
			now, err := s.certificates(ctx, watched)
			if err != nil {
				return err
			}
			for i, c := range now {
				if c.SerialNumber.Cmp(before[i].SerialNumber) == 0 || c.NotBefore.Before(before[i].NotBefore) {
					return fmt.Errorf("%s still shows the one until %s", watched[i].name, c.NotAfter.Local().Format(time.TimeOnly))
				}
				if left := time.Until(c.NotAfter); left > life+time.Second {
					return fmt.Errorf("%s shows one that lives for %v more", watched[i].name, left.Round(time.Second))
				}
			}
			before = now
			return nil
		})
		if err != nil {
			return err
		}
		s.screen.fact("%d inbounds show new certificates %s (%.1f s)", len(watched), why, time.Since(began).Seconds())
	}
	if err := s.more(ctx, steady, enough); err != nil {
		return err
	}
	calls := steady.stop()
	if err := steady.unbroken("while certificates were rotated"); err != nil {
		return err
	}
	s.screen.fact("no call of %d failed meanwhile", calls)
	return s.reached(ctx, "identity.yaml with 24h", s.applied("identity.yaml", map[string]string{"life": "24h"}))
}

// invite says what can be tried while everything stays up.
func (s *story) invite() {
	l := s.lab
	variables := l.net.ports.variables()
	s.screen.say(`
Everything stays up until Ctrl-C. Things to try:

  curl %[1]s/call/catalog
  curl %[1]s/call/cart/call/payments
  curl '%[1]s/call/cart?slow=2s'

  export ATOLL_ADDRESS=%[2]s ATOLL_TOKEN_FILE=%[3]s
  %[4]s get zones
  %[4]s get dataplanes --mesh %[5]s
  %[4]s apply -f %[6]s/deny.yaml --wait
  %[4]s apply -f %[6]s/timeout.yaml -v patience=500ms --wait
  %[4]s delete meshtrafficpermission closed-to-east --mesh %[5]s
`, s.web().app.url, l.global.url(), l.global.tokenFile(), l.exe, demoMesh, l.dir)
	for _, name := range slices.Sorted(maps.Keys(l.zones)) {
		s.screen.say("  zone %s    ATOLL_ADDRESS=%s ATOLL_TOKEN_FILE=%s", name, l.zones[name].url(), l.zones[name].tokenFile())
	}
	s.screen.say("")
	for _, name := range slices.Sorted(maps.Keys(l.instances)) {
		i := l.instances[name]
		if i.app != nil {
			s.screen.say("  %-15s %-5s service %s, inbound %s:%s", name, i.zone, i.app.url, i.address, variables["port"])
		}
	}
	s.screen.say("\n  logs  %s", l.logs)
}
