package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/global"
	"github.com/atoll-mesh/atoll/zone"
)

// mesh is the mesh of all proxies; solo is the service that runs in every zone,
// once: when its proxy in one zone is not ready, the other zones notice.
const (
	mesh = "default"
	solo = "solo"
)

// plane is a control plane in a process of its own.
type plane struct {
	*child
	client      *client.Client
	dir, kind   string
	config      any
	diagnostics string
}

func startPlane(ctx context.Context, kind, dir string, config any) (*plane, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c, err := start(kind, filepath.Join(dir, "config.json"), config)
	if err != nil {
		return nil, err
	}
	p := &plane{child: c, dir: dir, kind: kind, config: config}
	tokenFile, err := p.said.Value(ctx, "administrator's token")
	if err != nil {
		return p, err
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return p, err
	}
	address, err := p.said.Value(ctx, "API")
	if err != nil {
		return p, err
	}
	if p.diagnostics, err = p.said.Value(ctx, "diagnostics"); err != nil {
		return p, err
	}
	p.client, err = client.New(client.Options{URL: "http://" + address, Token: strings.TrimSpace(string(token))})
	return p, err
}

func common(dir string, o options) server.Config {
	c := server.Default()
	c.DataDir = dir
	c.API.Address, c.Diagnostics.Address = "127.0.0.1:0", "127.0.0.1:0"
	c.Diagnostics.Profiling = o.profile != ""
	c.Log.Level = "warn"
	return c
}

func startGlobal(ctx context.Context, dir string, o options) (*plane, error) {
	c := global.Default()
	dir = filepath.Join(dir, "global")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c.Config = common(dir, o)
	c.KDS.Address = "127.0.0.1:0"
	return startPlane(ctx, "global", dir, c)
}

func startZone(ctx context.Context, above *plane, dir, name string, o options) (*plane, error) {
	c := zone.Default()
	dir = filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c.Config = common(dir, o)
	c.Name, c.DPServer.Address = name, "127.0.0.1:0"
	token, err := above.client.ZoneToken(ctx, client.ZoneTokenRequest{Zone: name, ValidFor: "24h"})
	if err != nil {
		return nil, err
	}
	c.Global.TokenFile, c.Global.CAFile = filepath.Join(dir, "zone.token"), filepath.Join(above.dir, "server.crt")
	if err := os.WriteFile(c.Global.TokenFile, []byte(token), 0o600); err != nil {
		return nil, err
	}
	if c.Global.Address, err = above.said.Value(ctx, "KDS"); err != nil {
		return nil, err
	}
	return startPlane(ctx, "zone", dir, c)
}

func zoneName(i int) string { return fmt.Sprintf("zone-%d", i) }

func serviceName(i int) string { return fmt.Sprintf("svc-%03d", i) }

// atoll is the control planes and the fleet of a run.
type atoll struct {
	o      options
	global *plane
	zones  []*plane
	fleet  *fleet
}

// startAtoll starts a global and its zones, and makes the proxies.
func startAtoll(ctx context.Context, dir string, o options) (*atoll, error) {
	a := &atoll{o: o, fleet: newFleet(o.outbounds + 1)}
	var err error
	if a.global, err = startGlobal(ctx, dir, o); err != nil {
		return a, err
	}
	for i := range o.zones {
		z, err := startZone(ctx, a.global, dir, zoneName(i), o)
		if z != nil {
			a.zones = append(a.zones, z)
		}
		if err != nil {
			return a, err
		}
		pem, err := os.ReadFile(filepath.Join(z.dir, "server.crt"))
		if err != nil {
			return a, err
		}
		a.fleet.trust.AppendCertsFromPEM(pem)
	}
	if err := a.put(ctx, a.global, map[string]any{
		"type": "MeshMultiZoneService", "mesh": mesh, "name": solo, "spec": map[string]any{
			"selector": map[string]any{"meshService": map[string]any{"matchLabels": map[string]any{"kuma.io/display-name": solo}}},
			"ports":    []any{map[string]any{"port": 80, "appProtocol": "http"}},
		},
	}); err != nil {
		return a, err
	}
	if err := a.timeouts(ctx, 5, 15); err != nil {
		return a, err
	}
	return a, a.populate(ctx)
}

func (a *atoll) stop() {
	for _, z := range a.zones {
		z.stop()
	}
	if a.global != nil {
		a.global.stop()
	}
}

func (a *atoll) put(ctx context.Context, at *plane, doc any) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	_, err = at.client.Apply(ctx, body)
	return err
}

// timeouts changes the mesh's timeouts at global, in seconds. The connect
// timeout is in clusters, the request timeout in routes.
func (a *atoll) timeouts(ctx context.Context, connect, request int) error {
	everything := map[string]any{"kind": "Mesh"}
	return a.put(ctx, a.global, map[string]any{
		"type": "MeshTimeout", "mesh": mesh, "name": "mesh-timeout-to-all-" + mesh, "spec": map[string]any{
			"targetRef": everything,
			"to": []any{map[string]any{"targetRef": everything, "default": map[string]any{
				"connectionTimeout": fmt.Sprintf("%ds", connect), "http": map[string]any{"requestTimeout": fmt.Sprintf("%ds", request)},
			}}},
		},
	})
}

// populate makes the proxies, with tokens, once the zones can check tokens.
func (a *atoll) populate(ctx context.Context) error {
	for i := range a.o.proxies {
		service := i % a.o.services
		a.add(service%a.o.zones, fmt.Sprintf("%s-%03d", serviceName(service), i/a.o.services), serviceName(service), a.calls(service+1))
	}
	for z := range a.o.zones {
		a.add(z, solo+"-"+zoneName(z), solo, a.calls(0))
		a.add(z, "ingress-"+zoneName(z), "", nil)
	}
	var g errgroup.Group
	g.SetLimit(8)
	for i, p := range a.fleet.proxies {
		g.Go(func() (err error) {
			q := client.DataplaneTokenRequest{Name: p.name, Mesh: mesh, Workload: p.service, ValidFor: "24h"}
			if p.token, err = a.global.client.DataplaneToken(ctx, q); err != nil {
				return err
			}
			p.document, err = a.document(p, i, "Ready")
			if err != nil {
				return err
			}
			p.node = &corev3.Node{
				Id: mesh + "." + p.name, Cluster: p.name, UserAgentName: "envoy",
				Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
					"dataplane.resource":   structpb.NewStringValue(p.document),
					"dataplane.proxyType":  structpb.NewStringValue("dataplane"),
					"dataplane.admin.port": structpb.NewStringValue("9901"),
				}},
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, z := range a.zones {
		if err := until(ctx, func() error { return keyed(ctx, z) }); err != nil {
			return err
		}
	}
	return nil
}

// keyed reports whether a zone has the key by which it checks proxies' tokens.
func keyed(ctx context.Context, z *plane) error {
	for raw, err := range z.client.List(ctx, api.Secrets, mesh, nil) {
		if err != nil {
			return err
		}
		var doc struct{ Name string }
		if err := json.Unmarshal(raw, &doc); err != nil {
			return err
		}
		if strings.HasPrefix(doc.Name, "dataplane-token-signing-key") {
			return nil
		}
	}
	return errors.New("the zone has no key for the tokens of proxies")
}

// until polls what has no event; it gives up after a minute.
func until(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// call is one outbound of a proxy.
type call struct {
	service string
	zone    string // empty: a multi-zone service
	port    int
}

// calls lists what a service calls: the following ones, around the circle.
func (a *atoll) calls(from int) []call {
	out := []call{{service: solo, port: 19999}}
	for i := range a.o.outbounds {
		s := (from + i) % a.o.services
		out = append(out, call{serviceName(s), zoneName(s % a.o.zones), 20000 + s})
	}
	return out
}

func (a *atoll) add(zone int, name, service string, calls []call) {
	p := &proxy{fleet: a.fleet, zone: zone, name: name, service: service, calls: calls, callers: service != "", target: make(chan string, 4)}
	p.forget()
	a.fleet.proxies = append(a.fleet.proxies, p)
}

// document is the Dataplane of a proxy.
func (a *atoll) document(p *proxy, number int, state string) (string, error) {
	address := fmt.Sprintf("10.%d.%d.%d", p.zone, number/250, number%250+1)
	networking := map[string]any{"address": address}
	labels := map[string]any{}
	if p.callers {
		labels["kuma.io/workload"] = p.service
		networking["inbound"] = []any{map[string]any{"port": 80, "servicePort": 8080, "protocol": "http", "state": state}}
	} else {
		networking["listeners"] = []any{map[string]any{"type": "ZoneIngress", "address": address, "port": 10001}}
	}
	var outbounds []any
	for _, c := range p.calls {
		kind, match := "MeshService", map[string]any{"kuma.io/display-name": c.service, "kuma.io/zone": c.zone}
		if c.zone == "" {
			kind = "MeshMultiZoneService"
			delete(match, "kuma.io/zone")
		}
		outbounds = append(outbounds, map[string]any{"port": c.port, "backendRef": map[string]any{"kind": kind, "labels": match, "port": 80}})
	}
	networking["outbound"] = outbounds
	body, err := json.Marshal(map[string]any{"type": "Dataplane", "mesh": mesh, "name": p.name, "labels": labels, "networking": networking})
	return string(body), err
}

// ready changes the state of a proxy's inbound through its zone's API.
func (a *atoll) ready(ctx context.Context, p *proxy, yes bool) error {
	doc := p.document
	if !yes {
		doc = strings.Replace(doc, `"state":"Ready"`, `"state":"NotReady"`, 1)
	}
	_, err := a.zones[p.zone].client.Apply(ctx, []byte(doc))
	return err
}

func (a *atoll) proxy(name string) *proxy {
	for _, p := range a.fleet.proxies {
		if p.name == name {
			return p
		}
	}
	return nil
}

// converged waits until global says that every proxy has everything.
func (a *atoll) converged(ctx context.Context) error {
	var reach server.Reach
	if _, err := a.global.client.Do(ctx, http.MethodGet, "/convergence", url.Values{"wait": {"50s"}}, nil, &reach); err != nil {
		return err
	}
	if !reach.Converged {
		return fmt.Errorf("not converged: %+v", reach.Zones)
	}
	return nil
}

// restart ends a zone and starts it again with the same store.
func (a *atoll) restart(ctx context.Context, i int) (time.Time, error) {
	old := a.zones[i]
	a.fleet.leave(i)
	old.stop()
	a.fleet.leave(i) // after the last words of the old process
	begin := time.Now()
	z, err := startPlane(ctx, "zone", old.dir, old.config)
	if err != nil {
		return begin, err
	}
	a.zones[i] = z
	return begin, a.connect(ctx, i)
}

func (a *atoll) connect(ctx context.Context, i int) error {
	address, err := a.zones[i].said.Value(ctx, "dp-server")
	if err != nil {
		return err
	}
	a.fleet.connect(i, address)
	return nil
}

// profile fetches a profile of the first zone into the directory of profiles.
func (a *atoll) profile(ctx context.Context, name, path string) error {
	body, err := a.zones[0].diagnose(ctx, "/debug/pprof/"+path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.o.profile, name+".pprof"), body, 0o644)
}

// diagnose fetches from the diagnostics server.
func (p *plane) diagnose(ctx context.Context, path string) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.diagnostics+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
