package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/zone"
)

// loopback makes the virtual addresses of a zone some of this host's own, so that
// proxies can have sockets there. Test processes that run at one time have
// different ones.
func loopback(c *zone.Config) {
	net := 210 + os.Getpid()%40
	c.IPAM.MeshService.CIDR = fmt.Sprintf("127.%d.0.0/18", net)
	c.IPAM.MeshExternalService.CIDR = fmt.Sprintf("127.%d.64.0/18", net)
	c.IPAM.MeshMultiZoneService.CIDR = fmt.Sprintf("127.%d.128.0/18", net)
}

// virtualAddresses: services of each kind are called by their virtual addresses,
// where a proxy has sockets there, and where its host redirects; there also by the
// host names that the proxy resolves.
func virtualAddresses(t *testing.T, l *lab) {
	outside := newApplication(t, "outside")
	at := listen(t, "127.0.0.1:0")
	go http.Serve(at, outside)
	t.Cleanup(func() { at.Close() })
	l.start(t, l.east, spec{name: "egress-east", service: "egress", egress: true})
	bound := l.start(t, l.east, spec{name: "bound-1", service: "bound", bound: true})
	redirected := l.start(t, l.east, spec{name: "redirected-1", service: "redirected", redirected: true})
	generator := func(kind, template string) string {
		return fmt.Sprintf("type: HostnameGenerator\nname: %s\nspec: {selector: {%s: {}}, template: '%s'}\n", strings.ToLower(kind), kind, template)
	}
	l.with(t,
		fmt.Sprintf("type: MeshExternalService\nmesh: default\nname: outside\nspec:\n  match: {port: 8080, protocol: http}\n  endpoints: [{address: 127.0.0.1, port: %d}]\n",
			at.Addr().(*net.TCPAddr).Port),
		"type: MeshMultiZoneService\nmesh: default\nname: all\nspec:\n  selector: {meshService: {matchLabels: {kuma.io/display-name: remote}}}\n  ports: [{name: http, port: 8080, appProtocol: http}]\n",
		generator("meshService", "{{ .DisplayName }}.{{ .Zone }}.mesh"), generator("meshExternalService", "{{ .DisplayName }}.mesh"),
		generator("meshMultiZoneService", "{{ .DisplayName }}.zones.mesh"),
		captured("redirected", false),
	)
	services := []struct {
		kind       api.AnyKind
		name, host string
		answers    []string
	}{
		{api.MeshServices, "api", "api.east.mesh", []string{"api-1", "api-2"}},
		{api.MeshServices, "remote", "remote.west.mesh", []string{"remote-1"}},
		{api.MeshMultiZoneServices, "all", "all.zones.mesh", []string{"remote-1"}},
		{api.MeshExternalServices, "outside", "outside.mesh", []string{"outside"}},
		{api.MeshServices, "late", "late.east.mesh", []string{"late-1"}}, // which comes after its callers
	}
	l.start(t, l.east, spec{name: "late-1", service: "late"})
	remote := virtualAddress(t, l.east, api.MeshServices, "remote")
	everyway := func(what string, dial func(context.Context, string, string) (net.Conn, error), names bool) {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}
		for _, s := range services {
			hosts := []string{virtualAddress(t, l.east, s.kind, s.name)}
			if names {
				hosts = append(hosts, s.host)
			}
			for _, host := range hosts {
				eventually(t, s.name+" "+what+" at "+host, func() error {
					a, err := sendBy(client, "http://"+host+":8080/virtual")
					if err == nil && (a.Status != http.StatusOK || !slices.Contains(s.answers, a.Name)) {
						err = fmt.Errorf("%d %s", a.Status, a.Text)
					}
					return err
				})
			}
		}
		eventually(t, "bytes "+what, func() error {
			c, err := dial(t.Context(), "tcp", remote+":9090")
			if err != nil {
				return err
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(5 * time.Second))
			if name, err := bufio.NewReader(c).ReadString('\n'); name != "remote-1\n" {
				return fmt.Errorf("%q %w", name, err)
			}
			return nil
		})
	}
	everyway("by a socket", new(net.Dialer).DialContext, false)
	bound.stop()
	if c, err := net.Dial("tcp", remote+":8080"); err == nil {
		c.Close()
		t.Fatal("somebody else has a socket at a virtual address")
	}
	everyway("by redirection", redirected.redirect.DialContext, true)
}

// virtualAddress waits for the address by which proxies of a zone call a service.
func virtualAddress(t testing.TB, z *plane, kind api.AnyKind, name string) (address string) {
	t.Helper()
	eventually(t, "an address of "+name, func() error {
		for raw, err := range z.client.List(t.Context(), kind, "default", nil) {
			if err != nil {
				return err
			}
			var doc struct {
				Labels map[string]string
				Status struct {
					VIP  struct{ IP string }
					VIPs []struct{ IP string }
				}
			}
			if err := json.Unmarshal(raw, &doc); err != nil {
				return err
			}
			if doc.Labels[api.LabelDisplayName] != name {
				continue
			}
			address = doc.Status.VIP.IP
			if len(doc.Status.VIPs) > 0 {
				address = doc.Status.VIPs[0].IP
			}
		}
		if address == "" {
			return errors.New("it has none")
		}
		return nil
	})
	return address
}

// redirect is how a host gives connections and lookups of an application to the
// proxy beside it. A test changes no rules of its host: it connects to the proxy
// itself and says where it wanted to go by the PROXY protocol, which the proxy takes
// as the word of the host when it is told so by captured.
type redirect struct{ out, dns int } // ports

// captured lets the proxies of a workload hear by the PROXY protocol where
// connections were made to. Where what may pass is listed, the listener tells
// protocols apart, which comes after.
func captured(workload string, listed bool) string {
	const filter = "{name: envoy.filters.listener.proxy_protocol, typedConfig: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}"
	patch := "{op: add, path: /listenerFilters, value: [" + filter + "]}"
	if listed {
		patch = "{op: add, path: /listenerFilters/0, value: " + filter + "}"
	}
	return fmt.Sprintf(`
type: MeshProxyPatch
mesh: default
name: captured-%s
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: %s}}
  default:
    appendModifications:
      - listener: {operation: Patch, match: {name: self_transparentproxy_passthrough_outbound_ipv4}, jsonPatches: [%s]}
`, workload, workload, patch)
}

// DialContext connects to host:port as the application of the proxy does.
func (r redirect) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if ip, err = r.lookup(ctx, host); err != nil {
			return nil, err
		}
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", r.out))
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "PROXY TCP4 127.0.0.1 %s 1 %s\r\n", ip, port); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (r redirect) lookup(ctx context.Context, host string) (netip.Addr, error) {
	answer, err := dns.ExchangeContext(ctx, new(dns.Msg).SetQuestion(host+".", dns.TypeA), fmt.Sprintf("127.0.0.1:%d", r.dns))
	if err != nil {
		return netip.Addr{}, err
	}
	for _, one := range answer.Answer {
		if a, ok := one.(*dns.A); ok {
			return netip.MustParseAddr(a.A.String()), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s: %s", host, dns.RcodeToString[answer.Rcode])
}
