package api_test

import (
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
)

func TestSyncNames(t *testing.T) {
	for _, c := range []struct {
		kind                        api.AnyKind
		mesh, name, zone, namespace string
		want                        string
	}{
		{api.MeshTimeouts, "default", "default-timeout-global", "", "", "default-timeout-global-54dbd4c66zwbcf9c"},
		{api.MeshTimeouts, "default", "default-timeout-zone-1", "zone-1", "", "default-timeout-zone-1-c58w24w4vw27f454"},
		{api.HostnameGenerators, "", "foo", "", "", "foo-zxw6c95d42zfz9cc"},
		{api.MeshServices, "default", "redis-zone-1", "zone-1", "", "redis-zone-1-2v6wfvvcvbc9f55d"},
		{api.MeshServices, "default", "redis-zone-2", "zone-2", "", "redis-zone-2-ff29vc4685c6f594"},
		{api.MeshServices, "default", "backend", "zone-1", "kuma-demo", "backend-5b4f4xdx76x7zxxx"},
		{api.MeshServices, "mesh-1", "foo", "", "", "foo-5z44d8cbd495vbxb"},
		{api.HostnameGenerators, "", "hg-1", "", "", "hg-1-4w5cccxx9c9zd426"},
		{api.MeshTimeouts, "default", "mt1", "", "", "mt1-xz4845xdv4b254b6"},
		{api.MeshServices, "default", "backend", "z1", "", "backend-6d9f849w6wvcb45w"},
		{api.MeshServices, "default", "backend", "z1", "kuma-demo", "backend-dxdxw8xz79cdv764"},
		{api.MeshMultiZoneServices, "mesh-1", "mz", "", "", "mz-ffcw7cb4xfv49w85"},
		{api.Meshes, "", "shop", "", "", "shop"},
		{api.Secrets, "shop", "key", "", "", "key"},
	} {
		id := api.ID{Kind: c.kind.Info().Name, Mesh: c.mesh, Zone: c.zone, Namespace: c.namespace, Name: c.name}
		if got := api.SyncName(c.kind, id); got != c.want {
			t.Errorf("%v: %s, want %s", id, got, c.want)
		}
	}
	long := strings.Repeat("a", 247)
	a := api.SyncName(api.MeshServices, api.ID{Mesh: "m", Name: long})
	b := api.SyncName(api.MeshServices, api.ID{Mesh: "m", Name: long[:246]})
	if len(a) != 253 || a[:237] != b[:237] || a == b {
		t.Errorf("only the visible part of a long name is cut: %s %s", a, b)
	}
}

func TestKRI(t *testing.T) {
	for _, c := range []struct {
		kind    api.AnyKind
		id      api.ID
		section string
		want    string
	}{
		{api.Meshes, api.ID{Kind: "Mesh", Name: "default"}, "", "kri_m____default_"},
		{api.MeshServices, api.ID{Kind: "MeshService", Mesh: "default", Zone: "east", Namespace: "ns", Name: "api"}, "http", "kri_msvc_default_east_ns_api_http"},
		{api.MeshHTTPRoutes, api.ID{Kind: "MeshHTTPRoute", Mesh: "default", Name: "split"}, "rule0", "kri_mhttpr_default___split_rule0"},
		{api.Dataplanes, api.ID{Kind: "Dataplane", Mesh: "shop", Zone: "east", Name: "cart-01"}, "", "kri_dp_shop_east__cart-01_"},
	} {
		if got := c.kind.Info().KRI(c.id, c.section); got != c.want {
			t.Errorf("%v: %s, want %s", c.id, got, c.want)
		}
		if id, section, err := api.ParseKRI(c.want); err != nil || id != c.id || section != c.section {
			t.Errorf("%s: %v %q %v", c.want, id, section, err)
		}
	}
	if got := api.DataplaneInsights.KRI(api.ID{Name: "x"}, ""); got != "" {
		t.Errorf("a kind without short name has a KRI: %s", got)
	}
	for _, bad := range []string{"", "kri_msvc_default", "x_msvc_____", "kri_nope_a_b_c_d_e"} {
		if _, _, err := api.ParseKRI(bad); err == nil {
			t.Errorf("%q is taken for a KRI", bad)
		}
	}
	if _, section, err := api.ParseKRI("kri_mhttpr_default___split_rule_0"); err != nil || section != "rule_0" {
		t.Errorf("parts beyond the seventh: %q %v", section, err)
	}
}

func TestSNI(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		kind    api.AnyKind
		id      api.ID
		section string
		want    string
		ok      bool
	}{
		{api.MeshMultiZoneServices, api.ID{Mesh: "shop", Name: "cart"}, "http", "sni.mzsvc.shop.cart.http", true},
		{api.MeshExternalServices, api.ID{Mesh: "shop", Name: "mail"}, "443", "sni.extsvc.shop.mail.443", true},
		{api.MeshServices, api.ID{Mesh: "shop", Zone: "east", Name: "cart"}, "80", "sni.msvc.shop.east.cart.80", true},
		{api.MeshServices, api.ID{Mesh: "shop", Zone: "east", Namespace: "ns", Name: "cart"}, "80", "sni.msvc.shop.east.ns.cart.80", true},
		{api.MeshServices, api.ID{Mesh: "shop", Namespace: "ns", Name: "cart"}, "80", "sni.msvc.shop.cart.80", true},
		{api.MeshServices, api.ID{Mesh: "shop", Name: long}, "80", "sni.msvc.shop." + long + ".80", false},
		{api.MeshServices, api.ID{Mesh: "my_shop", Name: "cart"}, "80", "sni.msvc.my_shop.cart.80", false},
		{api.MeshServices, api.ID{Mesh: "shop", Name: "cart"}, "my_port", "sni.msvc.shop.cart.my_port", false},
		{api.MeshServices, api.ID{Mesh: long[1:], Zone: long[1:], Name: long[1:]}, long[:52],
			"sni.msvc." + long[1:] + "." + long[1:] + "." + long[1:] + "." + long[:52], true},
		{api.MeshServices, api.ID{Mesh: long[1:], Zone: long[1:], Name: long[1:]}, long[:53],
			"sni.msvc." + long[1:] + "." + long[1:] + "." + long[1:] + "." + long[:53], false},
	} {
		if got, ok := api.SNI(c.kind, c.id, c.section); got != c.want || ok != c.ok {
			t.Errorf("%v: %s %v, want %s %v", c.id, got, ok, c.want, c.ok)
		}
	}
}

// The registry of the contract, in short: name, plural, short, flow.
func TestKinds(t *testing.T) {
	want := map[string]string{
		"Mesh": "meshes m ↓", "Zone": "zones z ", "ZoneInsight": "zone-insights  ",
		"Secret": "secrets  ↓", "GlobalSecret": "globalsecrets  ↓", "Config": "configs  ↓",
		"HostnameGenerator": "hostnamegenerators hg ↓↑", "MeshIdentity": "meshidentities mid ↓↑",
		"MeshTrust": "meshtrusts mtrust ↓↑→", "MeshService": "meshservices msvc ↑→",
		"MeshMultiZoneService": "meshmultizoneservices mzsvc ↓", "MeshZoneAddress": "meshzoneaddresses mza ↑→",
		"Dataplane": "dataplanes dp ↑", "DataplaneInsight": "dataplane-insights  ↑", "Convergence": "convergences  ↑",
		"ZoneIngress": "zoneingresses zi ", "ZoneEgress": "zoneegresses ze ", // which others have no use for
		"MeshTrafficPermission": "meshtrafficpermissions mtp ↓↑→", "MeshTimeout": "meshtimeouts mt ↓↑→",
		"MeshHTTPRoute":       "meshhttproutes mhttpr ↓↑→",
		"MeshPassthrough":     "meshpassthroughs mp ↓↑→",
		"MeshProxyPatch":      "meshproxypatches mpp ↓↑→",
		"MeshRateLimit":       "meshratelimits mrl ↓↑→",
		"MeshRetry":           "meshretries mr ↓↑→",
		"MeshTCPRoute":        "meshtcproutes mtcpr ↓↑→",
		"MeshTLS":             "meshtlses mtls ↓↑→",
		"MeshExternalService": "meshexternalservices extsvc ↓↑", "MeshOpenTelemetryBackend": "meshopentelemetrybackends motb ↓↑",
		"Workload": "workloads wl ↑", "MeshInsight": "mesh-insights  ", "ServiceInsight": "service-insights  ↓",
		"ContainerPatch": "containerpatches  ", "VirtualIP": "virtualips  ", "Lease": "leases  ", "AccessRole": "access-roles  ↓", "AccessRoleBinding": "access-role-bindings  ↓",
		"MeshAccessLog": "meshaccesslogs mal ↓↑→", "MeshCircuitBreaker": "meshcircuitbreakers mcb ↓↑→",
		"MeshFaultInjection": "meshfaultinjections mfi ↓↑→", "MeshHealthCheck": "meshhealthchecks mhc ↓↑→",
		"MeshLoadBalancingStrategy": "meshloadbalancingstrategies mlbs ↓↑→",
		"MeshMetric":                "meshmetrics mm ↓↑→", "MeshTrace": "meshtraces mtr ↓↑→",
	}
	for _, k := range api.Kinds {
		i := k.Info()
		got := i.Plural + " " + i.Short + " "
		for _, f := range []struct {
			flow api.Flow
			sign string
		}{{api.Down, "↓"}, {api.Up, "↑"}, {api.Across, "→"}} {
			if i.Flow.Has(f.flow) {
				got += f.sign
			}
		}
		if got != want[i.Name] {
			t.Errorf("%s: %q, want %q", i.Name, got, want[i.Name])
		}
		delete(want, i.Name)
		if by, ok := api.ByName(i.Name); !ok || by != k {
			t.Errorf("%s is not found by name", i.Name)
		}
		if by, ok := api.ByPlural(i.Plural); ok == i.Hidden || ok && by != k {
			t.Errorf("%s by path: %v", i.Name, ok)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	if k, ok := api.ByPlural("global-secrets"); !ok || k != api.AnyKind(api.GlobalSecrets) {
		t.Error("the alias of GlobalSecrets is not found")
	}
}
