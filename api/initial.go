package api

import (
	"slices"
	"time"
)

// InitialRows are what a new mesh starts with: policies that say aloud what
// would otherwise be hidden defaults, and an identity for every proxy. They are
// made once and may then be changed and deleted like any others; kinds in
// skipCreatingInitialPolicies are left out, * leaves out all.
//
// The identity is ours (the existing ecosystem creates none): a mesh is
// encrypted from the start, with an authority that the control plane makes. A
// mesh that speaks of identities itself, as in earlier releases, gets none.
func InitialRows(mesh *Object[Mesh], site Site) []Row {
	skip := mesh.Spec.SkipCreatingInitialPolicies
	if slices.Contains(skip, "*") {
		return nil
	}
	rows := initialTimeouts(mesh.Name, site)
	rows = append(rows,
		MeshCircuitBreakers.New(initialMeta(MeshCircuitBreakers, mesh.Name, "mesh-circuit-breaker-all-"+mesh.Name, site), initialBreaker()),
		MeshRetries.New(initialMeta(MeshRetries, mesh.Name, "mesh-retry-all-"+mesh.Name, site), initialRetry()))
	if mesh.Spec.MTLS == nil {
		rows = append(rows, InitialIdentity(mesh.Name, site))
	}
	return slices.DeleteFunc(rows, func(row Row) bool { return slices.Contains(skip, row.Head().Kind) })
}

func initialMeta(k AnyKind, mesh, name string, site Site) Meta {
	id := LocalID(k, mesh, "", name, site)
	return Meta{ID: id, Core: name, Labels: ComputeLabels(k, id, nil, site)}
}

func initialTimeouts(mesh string, site Site) []Row {
	span := func(d time.Duration) *Duration { return &Duration{d} }
	everyone := &TargetRef{Kind: RefMesh}
	inbound := MeshTimeout{
		TargetRef: everyone,
		Rules: []MeshTimeoutRule{{Default: MeshTimeoutConf{
			ConnectionTimeout: span(10 * time.Second), IdleTimeout: span(2 * time.Hour),
			HTTP: &MeshTimeoutHTTP{RequestTimeout: span(0), StreamIdleTimeout: span(time.Hour), MaxStreamDuration: span(0)},
		}}},
	}
	outbound := MeshTimeout{
		TargetRef: everyone,
		To: []MeshTimeoutTo{{TargetRef: TargetRef{Kind: RefMesh}, Default: MeshTimeoutConf{
			ConnectionTimeout: span(5 * time.Second), IdleTimeout: span(time.Hour),
			HTTP: &MeshTimeoutHTTP{RequestTimeout: span(15 * time.Second), StreamIdleTimeout: span(30 * time.Minute)},
		}}},
	}
	return []Row{
		MeshTimeouts.New(initialMeta(MeshTimeouts, mesh, "mesh-timeout-all-"+mesh, site), inbound),
		MeshTimeouts.New(initialMeta(MeshTimeouts, mesh, "mesh-timeout-to-all-"+mesh, site), outbound),
	}
}

func initialBreaker() MeshCircuitBreaker {
	return MeshCircuitBreaker{
		TargetRef: &TargetRef{Kind: RefMesh},
		To: []MeshCircuitBreakerTo{{TargetRef: TargetRef{Kind: RefMesh}, Default: MeshCircuitBreakerConf{
			ConnectionLimits: &ConnectionLimits{
				MaxConnections: new(uint32(1024)), MaxPendingRequests: new(uint32(1024)), MaxRetries: new(uint32(3)), MaxRequests: new(uint32(1024)),
			},
		}}},
	}
}

func initialRetry() MeshRetry {
	perTry := &Duration{16 * time.Second}
	wait := &BackOff{BaseInterval: &Duration{25 * time.Millisecond}, MaxInterval: &Duration{250 * time.Millisecond}}
	return MeshRetry{
		TargetRef: &TargetRef{Kind: RefMesh},
		To: []MeshRetryTo{{TargetRef: TargetRef{Kind: RefMesh}, Default: MeshRetryConf{
			TCP:  &RetryTCP{MaxConnectAttempt: new(uint32(5))},
			HTTP: &RetryHTTP{NumRetries: new(uint32(5)), PerTryTimeout: perTry, BackOff: wait},
			GRPC: &RetryGRPC{NumRetries: new(uint32(5)), PerTryTimeout: perTry, BackOff: wait},
		}}},
	}
}

// InitialIdentity selects all proxies. Its path is the default of each proxy's
// platform, because a mesh may span both.
func InitialIdentity(mesh string, site Site) *Object[MeshIdentity] {
	return MeshIdentities.New(initialMeta(MeshIdentities, mesh, "default", site), MeshIdentity{
		Selector: &IdentitySelector{Dataplane: &LabelSelector{}},
		Provider: &IdentityProvider{Type: "Bundled", Bundled: &BundledProvider{
			InsecureAllowSelfSigned: true, Autogenerate: &Autogenerate{Enabled: true},
		}},
	})
}

// DefaultHostnameGenerators are those that a control plane creates when it
// starts for the first time. Global names what comes from zones, and hands these
// generators down; a zone names what is its own.
func DefaultHostnameGenerators(site Site) []Row {
	services := func(pairs ...string) HostnameSelector {
		return HostnameSelector{MeshService: &LabelSelector{MatchLabels: pairsOf(pairs)}}
	}
	row := func(name string, sel HostnameSelector, template string) Row {
		m := initialMeta(HostnameGenerators, "", name, site)
		return HostnameGenerators.New(m, HostnameGenerator{Selector: sel, Template: template})
	}
	external := func(origin string) HostnameSelector {
		return HostnameSelector{MeshExternalService: &LabelSelector{MatchLabels: map[string]string{LabelOrigin: origin}}}
	}
	const headless = "k8s.kuma.io/is-headless-service"
	if site.IsGlobal() {
		return []Row{
			row("synced-mesh-multi-zone-service",
				HostnameSelector{MeshMultiZoneService: &LabelSelector{MatchLabels: pairsOf([]string{LabelOrigin, OriginGlobal})}},
				"{{ .DisplayName }}.mzsvc.mesh.local"),
			row("synced-kube-mesh-service", services(LabelOrigin, OriginGlobal, headless, "false", LabelEnv, "kubernetes"),
				"{{ .DisplayName }}.{{ .Namespace }}.svc.{{ .Zone }}.mesh.local"),
			row("synced-headless-kube-mesh-service", services(LabelOrigin, OriginGlobal, headless, "true", LabelEnv, "kubernetes"),
				`{{ label "statefulset.kubernetes.io/pod-name" }}.{{ label "k8s.kuma.io/service-name" }}.{{ .Namespace }}.svc.{{ .Zone }}.mesh.local`),
			row("synced-universal-mesh-service", services(LabelOrigin, OriginGlobal, LabelEnv, "universal"),
				"{{ .DisplayName }}.svc.{{ .Zone }}.mesh.local"),
			row("synced-mesh-external-service", external(OriginGlobal), "{{ .DisplayName }}.extsvc.mesh.local"),
		}
	}
	rows := []Row{row("local-mesh-external-service", external(OriginZone), "{{ .DisplayName }}.extsvc.mesh.local")}
	if site.Env == "kubernetes" {
		return rows // services have the names that Kubernetes gave them
	}
	return append(rows, row("local-universal-mesh-service", services(LabelOrigin, OriginZone), "{{ .DisplayName }}.svc.mesh.local"))
}

func pairsOf(list []string) map[string]string {
	m := map[string]string{}
	for i := 0; i+1 < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}
