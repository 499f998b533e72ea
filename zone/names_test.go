package zone_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/zone"
)

// Services of all kinds have an address and names in their status, and the API says
// the same where it is asked for names.
func TestServicesHaveNamesAndAddresses(t *testing.T) {
	p := start(t, func(c *zone.Config) { c.IPAM.MeshExternalService.CIDR = "10.99.0.0/30" })
	p.apply(t, `{type: HostnameGenerator, name: multi, spec: {selector: {meshMultiZoneService: {}}, template: "{{ .DisplayName }}.svc.mesh.local"}}`)
	p.apply(t, `{type: MeshService, mesh: default, name: cart, spec: {ports: [{port: 80}]}}`)
	p.apply(t, `{type: MeshMultiZoneService, mesh: default, name: cart, spec: {selector: {meshService: {matchLabels: {a: b}}}, ports: [{port: 80}]}}`)
	p.apply(t, `{type: MeshMultiZoneService, mesh: default, name: all, spec: {selector: {meshService: {matchLabels: {a: b}}}, ports: [{port: 80}]}}`)
	for _, name := range []string{"mail", "bank", "late"} {
		p.apply(t, fmt.Sprintf(`{type: MeshExternalService, mesh: default, name: %s, spec: {match: {port: 443}}}`, name))
	}
	type status struct {
		VIPs       []api.VIP
		VIP        api.VIP
		Addresses  []api.ServiceAddress
		Generators []api.HostnameGeneratorStatus `json:"hostnameGenerators"`
		Conditions []api.Condition
	}
	check := func(k api.AnyKind, name, in, host, reason, lacks string) {
		t.Helper()
		eventually(t, "the status of "+name, func() error {
			raw, err := p.client.Get(t.Context(), k, "default", name)
			if err != nil {
				return err
			}
			var doc struct{ Status status }
			if err := json.Unmarshal(raw, &doc); err != nil {
				return err
			}
			s := doc.Status
			vip := s.VIP.IP
			if len(s.VIPs) == 1 {
				vip = s.VIPs[0].IP
			}
			var hosts []string
			for _, a := range s.Addresses {
				hosts = append(hosts, a.Hostname)
			}
			lacking := slices.ContainsFunc(s.Conditions, func(c api.Condition) bool { return c.Type == lacks && c.Status == "False" })
			if !strings.HasPrefix(vip, in) || (in == "") != (vip == "") || len(s.Generators) != 1 || s.Generators[0].Conditions[0].Reason != reason ||
				strings.Join(hosts, " ") != host || lacking != (lacks != "") {
				return fmt.Errorf("%s", raw)
			}
			var names struct{ Items []struct{ Hostname string } }
			if _, err := p.client.Do(t.Context(), http.MethodGet, "/meshes/default/"+k.Info().Plural+"/"+name+"/_hostnames", nil, nil, &names); err != nil {
				return err
			}
			if len(names.Items) != len(hosts) || len(hosts) == 1 && names.Items[0].Hostname != hosts[0] {
				return fmt.Errorf("_hostnames says %v", names)
			}
			return nil
		})
	}
	check(api.MeshServices, "cart", "241.", "cart.svc.mesh.local", "Generated", "")
	check(api.MeshMultiZoneServices, "cart", "243.", "", "Collision", "MeshServicesMatched")
	check(api.MeshMultiZoneServices, "all", "243.", "all.svc.mesh.local", "Generated", "MeshServicesMatched")
	// Of three services two fit into the range; which one does not, time decides.
	var with, without []string
	eventually(t, "two addresses are given and one service has none", func() error {
		with, without = nil, nil
		for _, name := range []string{"mail", "bank", "late"} {
			raw, err := p.client.Get(t.Context(), api.MeshExternalServices, "default", name)
			switch {
			case err != nil:
				return err
			case strings.Contains(string(raw), api.VIPAllocated):
				without = append(without, name)
			case strings.Contains(string(raw), `"ip"`):
				with = append(with, name)
			}
		}
		if len(with) != 2 || len(without) != 1 {
			return fmt.Errorf("with %v, without %v", with, without)
		}
		return nil
	})
	for _, name := range with {
		check(api.MeshExternalServices, name, "10.99.0.", name+".extsvc.mesh.local", "Generated", "")
	}
	check(api.MeshExternalServices, without[0], "", without[0]+".extsvc.mesh.local", "Generated", api.VIPAllocated)
}

func TestRangesOfAddresses(t *testing.T) {
	c := config(t)
	c.IPAM.MeshService.CIDR, c.IPAM.MeshExternalService.CIDR, c.IPAM.MeshMultiZoneService.CIDR = "241.0.0.0", "241.0.0.0/31", "fd00::/64"
	c.IPAM.ReuseAfter = -1
	var r api.Report
	c.Validate(&r)
	var paths []string
	for _, f := range r.Faults() {
		paths = append(paths, f.String())
	}
	if got := strings.Join(paths, "\n"); len(paths) != 3 || !strings.HasPrefix(got, `ipam.meshService.cidr: is "241.0.0.0"; want `) ||
		!strings.Contains(got, `ipam.meshExternalService.cidr: is "241.0.0.0/31"`) || !strings.Contains(got, "ipam.reuseAfter") {
		t.Error(got)
	}
}
