package api_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/api"
)

var (
	global     = api.Site{Env: "universal"}
	federated  = api.Site{Zone: "east", Env: "universal", Federated: true}
	kubernetes = api.Site{Zone: "east", Env: "kubernetes"}
)

const systemNamespace = "kuma-system"

type labels = map[string]string

// What a row carries after it was written: its author's labels, and those that
// the control plane computes.
func TestComputedLabels(t *testing.T) {
	const (
		producer = `{"to":[{"targetRef":{"kind":"MeshService","labels":{"kuma.io/display-name":"cart"}},"default":{"idleTimeout":"1s"}}]}`
		consumer = `{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1s"}}]}`
		owner    = `{"rules":[{"default":{"idleTimeout":"1s"}}]}`
		mixed    = `{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"1s"}},{"targetRef":{"kind":"MeshService","labels":{"kuma.io/display-name":"cart"}},"default":{"idleTimeout":"1s"}}]}`
	)
	for _, c := range []struct {
		name      string
		kind      api.AnyKind
		site      api.Site
		namespace string
		user      labels
		spec      string
		want      labels // beside kuma.io/display-name
		fault     string
	}{
		{name: "global", kind: api.MeshTimeouts, site: global, user: labels{"a": "b"}, spec: consumer,
			want: labels{"a": "b", "kuma.io/mesh": "shop", "kuma.io/origin": "global"}},
		{name: "a kind without a mesh", kind: api.HostnameGenerators, site: global, spec: `{"selector":{"meshService":{}},"template":"a"}`,
			want: labels{"kuma.io/origin": "global"}},
		{name: "a mesh of a zone", kind: api.Meshes, site: zone, want: labels{"kuma.io/origin": "zone"}},
		{name: "zone", kind: api.MeshTimeouts, site: zone, spec: consumer,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone", "kuma.io/zone": "east", "kuma.io/env": "universal"}},
		{name: "federated zone", kind: api.MeshTimeouts, site: federated, user: labels{"kuma.io/origin": "zone"}, spec: consumer,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone", "kuma.io/zone": "east", "kuma.io/env": "universal"}},
		{name: "a kind that only global writes", kind: api.MeshMultiZoneServices, site: zone,
			spec: `{"selector":{"meshService":{"matchLabels":{"a":"b"}}},"ports":[{"port":80}]}`,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone"}},
		{name: "what is set and what is only filled in", kind: api.MeshTimeouts, site: zone, spec: consumer,
			user: labels{"kuma.io/display-name": "x", "kuma.io/origin": "global", "kuma.io/mesh": "other", "kuma.io/zone": "west", "kuma.io/env": "kubernetes"},
			want: labels{"kuma.io/origin": "zone", "kuma.io/mesh": "other", "kuma.io/zone": "west", "kuma.io/env": "kubernetes"}},
		{name: "no role outside of namespaces", kind: api.MeshTimeouts, site: global, user: labels{"kuma.io/policy-role": "system"}, spec: consumer,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "global", "kuma.io/policy-role": "system"}},
		{name: "the system namespace", kind: api.MeshTimeouts, site: kubernetes, namespace: systemNamespace, spec: mixed,
			want: onKubernetes(systemNamespace, "kuma.io/policy-role", "system")},
		{name: "producer", kind: api.MeshTimeouts, site: kubernetes, namespace: "shop", user: labels{"kuma.io/policy-role": "system"}, spec: producer,
			want: onKubernetes("shop", "kuma.io/policy-role", "producer")},
		{name: "consumer", kind: api.MeshTimeouts, site: kubernetes, namespace: "shop", spec: consumer,
			want: onKubernetes("shop", "kuma.io/policy-role", "consumer")},
		{name: "workload owner", kind: api.MeshTimeouts, site: kubernetes, namespace: "shop", spec: owner,
			want: onKubernetes("shop", "kuma.io/policy-role", "workload-owner")},
		{name: "mixed", kind: api.MeshTimeouts, site: kubernetes, namespace: "shop", spec: mixed,
			want: onKubernetes("shop"), fault: "spec.to: it's not allowed to mix producer and consumer items in the same policy"},
		{name: "no policy", kind: api.MeshServices, site: kubernetes, namespace: "shop", spec: `{}`, want: onKubernetes("shop")},
		{name: "zone proxy", kind: api.Dataplanes, site: zone, user: labels{"kuma.io/proxy-type": "zoneingress", "kuma.io/listener-zoneegress": "enabled"},
			spec: `{"networking":{"address":"10.0.0.1","listeners":[{"type":"ZoneIngress","address":"10.0.0.1","port":1}]}}`,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone", "kuma.io/zone": "east", "kuma.io/env": "universal", "kuma.io/listener-zoneingress": "enabled"}},
		{name: "egress", kind: api.Dataplanes, site: zone,
			spec: `{"networking":{"address":"10.0.0.1","listeners":[{"type":"ZoneEgress","address":"10.0.0.1","port":1}]}}`,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone", "kuma.io/zone": "east", "kuma.io/env": "universal", "kuma.io/listener-zoneegress": "enabled"}},
		{name: "gateway", kind: api.Dataplanes, site: zone,
			spec: `{"networking":{"address":"10.0.0.1","gateway":{"tags":{"kuma.io/service":"edge"}}}}`,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone", "kuma.io/zone": "east", "kuma.io/env": "universal", "kuma.io/workload": "edge"}},
		{name: "workload", kind: api.Dataplanes, site: zone, user: labels{"kuma.io/workload": "cart"},
			spec: `{"networking":{"address":"10.0.0.1","inbound":[{"port":80}]}}`,
			want: labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone", "kuma.io/zone": "east", "kuma.io/env": "universal", "kuma.io/workload": "cart"}},
	} {
		id := api.LocalID(c.kind, "shop", c.namespace, "a", c.site)
		var r api.Report
		row := c.kind.Decode(api.Meta{ID: id, Labels: api.ComputeLabels(c.kind, id, c.user, c.site)}, []byte(c.spec), true, &r)
		if r.Err() != nil {
			t.Fatalf("%s: %v", c.name, r.Err())
		}
		got := api.RoleLabels(c.kind, row, systemNamespace, &r)
		c.want["kuma.io/display-name"] = "a"
		if !maps.Equal(got, c.want) {
			t.Errorf("%s: %v\nwant %v", c.name, got, c.want)
		}
		if faults := strings.Join(lines(&r), "; "); faults != c.fault {
			t.Errorf("%s: %s", c.name, faults)
		}
	}
	theirs := api.MeshTimeouts.New(api.Meta{ID: api.ID{Mesh: "shop", Namespace: "shop"}, Source: "east", Labels: labels{"kuma.io/policy-role": "producer"}}, api.MeshTimeout{})
	if got := api.RoleLabels(api.MeshTimeouts, theirs, systemNamespace, new(api.Report)); got["kuma.io/policy-role"] != "producer" {
		t.Errorf("a policy of another control plane: %v", got)
	}
}

func onKubernetes(namespace string, more ...string) labels {
	out := labels{"kuma.io/mesh": "shop", "kuma.io/origin": "zone", "kuma.io/zone": "east", "kuma.io/env": "kubernetes", "k8s.kuma.io/namespace": namespace}
	for i := 0; i < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

// Which labels may be written where.
func TestLabelChecks(t *testing.T) {
	for _, c := range []struct {
		kind   api.AnyKind
		site   api.Site
		labels labels
		want   []string
	}{
		{api.MeshTimeouts, global, nil, nil},
		{api.MeshTimeouts, global, labels{"kuma.io/origin": "global"}, nil},
		{api.MeshTimeouts, global, labels{"kuma.io/origin": "zone"}, []string{`labels["kuma.io/origin"]: the origin label must be set to 'global'`}},
		{api.MeshTimeouts, global, labels{"kuma.io/origin": "moon"}, []string{`labels["kuma.io/origin"]: unknown resource origin "moon"`}},
		{api.MeshTimeouts, zone, nil, nil},
		{api.MeshTimeouts, zone, labels{"kuma.io/origin": "global", "kuma.io/zone": "west", "kuma.io/mesh": "other"}, nil},
		{api.MeshTimeouts, federated, labels{"kuma.io/origin": "zone"}, nil},
		{api.MeshTimeouts, federated, nil, []string{`labels["kuma.io/origin"]: the origin label must be set to 'zone'`}},
		{api.MeshTimeouts, federated, labels{"kuma.io/origin": "global"}, []string{`labels["kuma.io/origin"]: the origin label must be set to 'zone'`}},
		{api.Dataplanes, federated, nil, nil}, // flat kinds need none
		{api.Dataplanes, zone, labels{"kuma.io/zone": "east", "kuma.io/mesh": "shop"}, nil},
		{api.Dataplanes, zone, labels{"kuma.io/zone": "west"}, []string{`labels["kuma.io/zone"]: kuma.io/zone label should have east value`}},
		{api.Dataplanes, zone, labels{"kuma.io/mesh": "other"}, []string{`labels["kuma.io/mesh"]: kuma.io/mesh label must not differ from mesh set on resource`}},
		{api.MeshTimeouts, zone, labels{"kuma.io/policy-role": "system"}, nil},
		{api.MeshTimeouts, zone, labels{"kuma.io/policy-role": "producer"}, []string{`labels["kuma.io/policy-role"]: kuma.io/policy-role label should have system value, got producer`}},
		{api.MeshServices, zone, labels{"kuma.io/policy-role": "producer"}, nil}, // no policy
		{api.MeshExternalServices, zone, labels{"atoll.io/exit": "direct"}, nil},
		{api.MeshExternalServices, zone, labels{"atoll.io/exit": "none"}, []string{`labels["atoll.io/exit"]: must be "direct", or absent: then it is called through a zone egress`}},
		{api.MeshServices, zone, labels{"atoll.io/exit": "none"}, nil}, // it means nothing there
		{api.Dataplanes, zone, labels{"a.b/c-d_e.F": "", "x": "A-b_c.9"}, nil},
		{api.Dataplanes, zone, labels{"A/b": "c", "a/": "b c"}, []string{
			`labels["A/b"]: prefix part "A" must be a lowercase RFC 1123 subdomain`,
			`labels["a/"]: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, at most 63`,
			`labels["a/"]: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character`}},
		{api.Dataplanes, zone, labels{"a": strings.Repeat("a", 64)}, []string{`labels["a"]: must be no more than 63 characters`}},
	} {
		var r api.Report
		api.CheckMeta(c.kind, api.Document{Mesh: "shop", Name: "a", Labels: c.labels}, c.site, &r)
		if got := lines(&r); !slices.Equal(got, c.want) {
			t.Errorf("%s %+v %v\ngot  %q\nwant %q", c.kind.Info().Name, c.site, c.labels, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	const (
		subdomain = "name: invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character"
		label     = "name: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name', or 'abc-123')"
		shorter   = "name: the length of the name must be shorter"
	)
	long := strings.Repeat("a", 254)
	for _, c := range []struct {
		kind api.AnyKind
		site api.Site
		name string
		want string
	}{
		{api.MeshTimeouts, global, "", "name: cannot be empty"},
		{api.MeshTimeouts, global, long[:253], ""},
		{api.MeshTimeouts, global, long, "name: value length must less or equal 253"},
		{api.MeshTimeouts, global, "9.a-b.c", ""},
		{api.MeshTimeouts, global, "A", subdomain},
		{api.MeshTimeouts, global, "a..b", subdomain},
		{api.MeshTimeouts, global, "-a", subdomain},
		{api.MeshTimeouts, zone, long[:253], ""},
		{api.Dataplanes, federated, long[:247], ""}, // east. and a name: 252
		{api.Dataplanes, federated, long[:248], shorter},
		{api.Workloads, zone, long[:253], ""},
		{api.Meshes, zone, long[:63], ""},
		{api.Meshes, zone, long[:64], "name: must be no more than 63 characters"},
		{api.Meshes, zone, "9a", label},
		{api.Zones, global, "a.b", label},
		{api.MeshServices, zone, "9a", label},
		{api.MeshExternalServices, zone, "a.b", label},
		{api.MeshMultiZoneServices, global, "a.b", label},
	} {
		var r api.Report
		api.CheckMeta(c.kind, api.Document{Mesh: "shop", Name: c.name}, c.site, &r)
		if got := strings.Join(lines(&r), "; "); got != c.want {
			t.Errorf("%s %q: %s, want %s", c.kind.Info().Name, c.name, got, c.want)
		}
	}
	for mesh, want := range map[string]string{
		"": "mesh: cannot be empty", "9.a_b-c": "", long: "mesh: value length must less or equal 253",
		"A": "mesh: invalid characters. Valid characters are numbers, lowercase latin letters and '-', '_', '.' symbols.",
	} {
		var r api.Report
		api.CheckMeta(api.MeshTimeouts, api.Document{Mesh: mesh, Name: "a"}, global, &r)
		if got := strings.Join(lines(&r), "; "); got != want {
			t.Errorf("mesh %q: %s, want %s", mesh, got, want)
		}
	}
}
