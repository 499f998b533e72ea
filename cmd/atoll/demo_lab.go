package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/deploy/demo"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// lab is everything that runs: control planes, proxies, services.
type lab struct {
	dir, logs  string
	lock       *os.File        // of dir
	logged     map[string]bool // the parts that have a log
	exe, envoy string
	screen     *screen
	fail       context.CancelCauseFunc
	launcher   *launcher
	net        *loopback
	http       *http.Client

	global    *controlPlane
	zones     map[string]*controlPlane
	instances map[string]*instance
}

const demoMesh = "shop"

// newLab prepares the directory; nothing runs yet. The end of a part that should
// have gone on is told to fail.
func newLab(o demoOptions, s *screen, fail context.CancelCauseFunc) (*lab, error) {
	l := &lab{screen: s, fail: fail, logged: map[string]bool{}, zones: map[string]*controlPlane{}, instances: map[string]*instance{}}
	var err error
	if l.envoy, err = findDemoEnvoy(o.envoy); err != nil {
		return nil, err
	}
	if l.exe, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("own executable: %w", err)
	}
	if l.net, err = newLoopback(); err != nil {
		return nil, err
	}
	if l.dir, l.lock, err = newDemoDir(); err != nil {
		return nil, err
	}
	if l.logs = o.keepLogs; l.logs == "" {
		l.logs = filepath.Join(l.dir, "logs")
	}
	l.logs, err = filepath.Abs(l.logs)
	if err == nil {
		err = os.MkdirAll(l.logs, 0o755)
	}
	if err == nil {
		err = l.unpack()
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.dir), l.lock.Close())
	}
	l.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	l.launcher = newLauncher()
	return l, nil
}

// unpack writes the documents of deploy/demo to the directory, where `atoll dp`
// and people read them.
func (l *lab) unpack() error {
	names, err := fs.Glob(demo.Files, "*.yaml")
	if err != nil {
		return err
	}
	for _, name := range names {
		body, err := demo.Files.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(l.dir, name), body, 0o644)
		}
		if err != nil {
			return fmt.Errorf("documents of the demonstration: %w", err)
		}
	}
	return nil
}

// close ends everything, proxies first, and removes the directory.
func (l *lab) close() error {
	var errs []error
	l.http.CloseIdleConnections()
	var proxies, planes []*child
	for _, i := range l.instances {
		proxies = append(proxies, i.child)
		if i.app != nil {
			i.app.close()
		}
	}
	for _, c := range l.controlPlanes() {
		planes = append(planes, c.child)
	}
	errs = append(errs, stopAll(proxies), stopAll(planes))
	l.launcher.close()
	errs = append(errs, os.RemoveAll(l.dir), l.lock.Close())
	return errors.Join(errs...)
}

func stopAll(list []*child) error {
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, c := range list {
		all.Go(func() { errs[i] = c.stop() })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (l *lab) logOf(part string) string { return filepath.Join(l.logs, part+".log") }

// until tries until there is no error, within the limit. What and the last error
// say what was waited for in vain.
func (l *lab) until(ctx context.Context, limit time.Duration, what string, try func(context.Context) error) error {
	bound, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	var last error
	l.screen.waiting("%s", what)
	for {
		err := try(bound)
		if err == nil {
			return nil
		}
		if last == nil || bound.Err() == nil {
			last = err
			l.screen.waiting("%s: %v", what, err)
		}
		select {
		case <-ticker.C:
		case <-bound.Done():
			if ctx.Err() != nil {
				return fmt.Errorf("%s: %w (at last: %w)", what, context.Cause(ctx), last)
			}
			return fmt.Errorf("%s: not within %v: %w", what, limit, last)
		}
	}
}

// controlPlane is global or a zone.
type controlPlane struct {
	name   string
	dir    string // its data directory
	child  *child
	client *client.Client
	at     map[string]string // its addresses: API, KDS, dp-server, diagnostics
}

func (l *lab) controlPlanes() []*controlPlane {
	var out []*controlPlane
	if l.global != nil {
		out = append(out, l.global)
	}
	for _, name := range slices.Sorted(maps.Keys(l.zones)) {
		out = append(out, l.zones[name])
	}
	return out
}

// url is the address of the API.
func (c *controlPlane) url() string { return "http://" + c.at["API"] }

func (c *controlPlane) tokenFile() string { return filepath.Join(c.dir, server.TokenFile) }

func (c *controlPlane) certificate() string { return filepath.Join(c.dir, "server.crt") }

// startTime bounds the start of a control plane.
const startTime = 20 * time.Second

// startGlobal starts global, the second time at the addresses of the first.
func (l *lab) startGlobal(ctx context.Context) error {
	if l.global == nil {
		l.global = &controlPlane{name: "global", dir: filepath.Join(l.dir, "global")}
	}
	flags := map[string]string{"API": "--api-address", "diagnostics": "--diagnostics-address", "KDS": "--kds-address"}
	return l.startControlPlane(ctx, l.global, flags, nil, "global")
}

// startZone starts a zone of global, with a token of its own.
func (l *lab) startZone(ctx context.Context, name string) error {
	token, err := l.global.client.ZoneToken(ctx, client.ZoneTokenRequest{Zone: name, Scope: []string{"cp"}})
	if err != nil {
		return fmt.Errorf("token of zone %s: %w", name, err)
	}
	file := filepath.Join(l.dir, name+".token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		return fmt.Errorf("token of zone %s: %w", name, err)
	}
	z := &controlPlane{name: name, dir: filepath.Join(l.dir, name)}
	l.zones[name] = z
	// What takes seconds by default, to spare large meshes, is to be watched here:
	// that a proxy that died is forgotten, that global is found again.
	env := []string{"ATOLL_DP_SERVER_DEREGISTRATION_DELAY=500ms", "ATOLL_GLOBAL_MAX_BACKOFF=250ms"}
	return l.startControlPlane(ctx, z, map[string]string{"API": "--api-address", "diagnostics": "--diagnostics-address", "dp-server": "--dp-address"}, env,
		"zone", "--name", name, "--global-address", "grpcs://"+l.global.at["KDS"], "--token-file", file, "--global-ca-file", l.global.certificate())
}

// startControlPlane runs a control plane and waits until it serves. flags are
// its addresses, by the label under which it says them.
func (l *lab) startControlPlane(ctx context.Context, c *controlPlane, flags map[string]string, env []string, args ...string) error {
	args = append(args, "--data-dir", c.dir)
	for _, label := range slices.Sorted(maps.Keys(flags)) {
		address := "127.0.0.1:0"
		if c.at != nil {
			address = c.at[label]
		}
		args = append(args, flags[label], address)
	}
	l.screen.waiting("%s starts", c.name)
	var err error
	if c.child, err = l.child(c.name, env, args...); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	at := map[string]string{}
	for label := range flags {
		if at[label], err = c.child.told(limited, label); err != nil {
			return err
		}
	}
	c.at = at
	err = l.until(ctx, startTime, c.name+" is ready", func(ctx context.Context) error {
		status, body, err := fetchReply(ctx, l.http, "http://"+at["diagnostics"]+"/ready")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, excerpt(body))
		}
		return err
	})
	if err != nil {
		return &brokenPart{c.name, err}
	}
	token, err := os.ReadFile(c.tokenFile())
	if err != nil {
		return &brokenPart{c.name, fmt.Errorf("administrator's token of %s: %w", c.name, err)}
	}
	c.client, err = client.New(client.Options{URL: c.url(), Token: strings.TrimSpace(string(token))})
	return err
}

// instance is a proxy and, unless it is an ingress, the service behind it.
type instance struct {
	service, name, zone string
	address             string
	dir                 string // of its proxy: sockets
	child               *child
	app                 *app
	admin               *http.Client // Envoy's administration
}

// startInstance starts an instance of a service, or an ingress.
func (l *lab) startInstance(ctx context.Context, service, name, zone string) (*instance, error) {
	address, err := l.net.address()
	if err != nil {
		return nil, err
	}
	i := &instance{service: service, name: name, zone: zone, address: address, dir: filepath.Join(l.dir, "proxy", name)}
	if err := os.MkdirAll(i.dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of %s: %w", name, err)
	}
	socket := bootstrap.AdminSocket(i.dir)
	dialer := &net.Dialer{}
	i.admin = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}, DisableKeepAlives: true,
	}}
	ask := client.DataplaneTokenRequest{Name: name, Mesh: demoMesh}
	if service != "ingress" {
		ask.Workload = service
		if i.app, err = newApp(service, name, zone, address, l.net.ports); err != nil {
			return nil, err
		}
	}
	at := l.zones[zone]
	token := filepath.Join(l.dir, name+".token")
	err = l.until(ctx, startTime, "zone "+zone+" issues a token for "+name, func(ctx context.Context) error {
		text, err := at.client.DataplaneToken(ctx, ask)
		if err != nil {
			return err
		}
		return os.WriteFile(token, []byte(text), 0o600)
	})
	if err != nil {
		return nil, &brokenPart{zone, err}
	}
	args := []string{
		"dp", "--cp-address", "https://" + at.at["dp-server"], "--ca-cert-file", at.certificate(),
		"--dataplane-file", filepath.Join(l.dir, "proxy-"+service+".yaml"), "--dataplane-token-file", token,
		"--binary-path", l.envoy, "--concurrency", "1", "--work-dir", i.dir, "--readiness-port", "0", "--drain-time", "0s",
	}
	variables := l.net.ports.variables()
	variables["name"], variables["address"] = name, address
	for _, key := range slices.Sorted(maps.Keys(variables)) {
		args = append(args, "--dataplane-var", key+"="+variables[key])
	}
	if i.child, err = l.child(name, nil, args...); err != nil {
		return nil, err
	}
	l.instances[name] = i
	return i, nil
}

// inbound is where other proxies reach the instance.
func (i *instance) inbound(p demoPorts) string {
	return net.JoinHostPort(i.address, strconv.Itoa(p.Inbound))
}

// kill ends the proxy and the service at once, as a machine that loses power.
func (l *lab) kill(i *instance) {
	i.child.kill()
	if i.app != nil {
		i.app.close()
	}
	delete(l.instances, i.name)
}

// callLimit bounds one call.
const callLimit = 10 * time.Second

// call lets a service do a call: /call/cart is what it gets from the cart.
func (l *lab) call(ctx context.Context, from *instance, path string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	return fetchReply(ctx, l.http, from.app.url+path)
}

// apply puts the documents of a file of deploy/demo to global, and returns the
// revision that holds the last. variables are those that the file uses.
func (l *lab) apply(ctx context.Context, file string, variables map[string]string) (uint64, error) {
	input := written{paths: []string{filepath.Join(l.dir, file)}, variables: variables}
	documents, err := input.read(ctx, nil)
	if err != nil {
		return 0, err
	}
	var revision uint64
	for _, d := range documents {
		done, err := l.global.client.Apply(ctx, d.Body)
		if err != nil {
			return 0, &brokenPart{"global", fmt.Errorf("%s: %w", d.Origin, err)}
		}
		revision = max(revision, done.Revision)
	}
	return revision, nil
}

// reach asks global how far a revision has come, and waits for it.
func (l *lab) reach(ctx context.Context, revision uint64, wait time.Duration) (server.Reach, error) {
	query := url.Values{"wait": {wait.String()}}
	if revision != 0 {
		query.Set("revision", strconv.FormatUint(revision, 10))
	}
	var out server.Reach
	_, err := l.global.client.Do(ctx, http.MethodGet, "/convergence", query, nil, &out)
	return out, err
}

// inStep waits until global knows that both zones are connected and that all
// proxies that run have, and acknowledged, the newest revision.
func (l *lab) inStep(ctx context.Context, limit time.Duration) error {
	what := fmt.Sprintf("%d proxies are in step", len(l.instances))
	return l.until(ctx, limit, what, func(ctx context.Context) error {
		reach, err := l.reach(ctx, 0, 0)
		if err != nil {
			return err
		}
		connected, proxies, short := 0, 0, []string{}
		for _, z := range reach.Zones {
			if z.Connected {
				connected++
			}
			proxies += z.Proxies
			if z.Behind > 0 || z.Rejected > 0 {
				short = append(short, fmt.Sprintf("zone %s: %d behind, %d refuse: %v", z.Zone, z.Behind, z.Rejected, z.Laggards))
			}
		}
		switch {
		case connected != len(l.zones):
			return fmt.Errorf("%d of %d zones are connected", connected, len(l.zones))
		case proxies != len(l.instances):
			return fmt.Errorf("%d of %d proxies are connected", proxies, len(l.instances))
		case len(short) > 0:
			return errors.New(strings.Join(short, "; "))
		case !reach.Converged:
			return fmt.Errorf("revision %d is not everywhere: %+v", reach.Revision, reach.Zones)
		}
		return nil
	})
}
