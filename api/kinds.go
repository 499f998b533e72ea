package api

import "slices"

// Kinds is every kind, ordered so that what others refer to comes first.
var Kinds = []AnyKind{
	Meshes, MeshInsights, Zones, ZoneInsights, Secrets, GlobalSecrets, Configs,
	AccessRoles, AccessRoleBindings,
	HostnameGenerators, MeshIdentities, MeshTrusts, MeshOpenTelemetryBackends,
	MeshServices, MeshExternalServices, MeshMultiZoneServices, MeshZoneAddresses, VirtualIPs, Leases, ServiceInsights,
	Dataplanes, DataplaneInsights, ZoneIngresses, ZoneEgresses, Workloads, ContainerPatches, Convergences,
	MeshTrafficPermissions, MeshTimeouts, MeshHTTPRoutes,
	MeshAccessLogs, MeshCircuitBreakers, MeshFaultInjections, MeshHealthChecks, MeshLoadBalancingStrategies, MeshMetrics, MeshTraces,
	MeshPassthroughs, MeshProxyPatches, MeshRateLimits, MeshRetries, MeshTCPRoutes, MeshTLSes,
}

var kindsByName, kindsByPlural, kindsByShort = indexKinds(Kinds)

func indexKinds(kinds []AnyKind) (name, plural, short map[string]AnyKind) {
	name, plural, short = map[string]AnyKind{}, map[string]AnyKind{}, map[string]AnyKind{}
	for _, k := range kinds {
		i := k.Info()
		name[i.Name] = k
		for _, path := range []string{i.Plural, i.Alias} {
			if path != "" && !i.Hidden {
				plural[path] = k
			}
		}
		if i.Short != "" {
			short[i.Short] = k
		}
	}
	return name, plural, short
}

// ByName finds a kind by the `type` of documents.
func ByName(name string) (AnyKind, bool) {
	k, ok := kindsByName[name]
	return k, ok
}

// ByPlural finds a kind by its REST path; hidden kinds have none.
func ByPlural(path string) (AnyKind, bool) {
	k, ok := kindsByPlural[path]
	return k, ok
}

// ByShort finds a kind by its part in KRIs.
func ByShort(short string) (AnyKind, bool) {
	k, ok := kindsByShort[short]
	return k, ok
}

// kindNames lists the names that `type` may have.
func kindNames() []string {
	names := make([]string, 0, len(Kinds))
	for _, k := range Kinds {
		names = append(names, k.Info().Name)
	}
	slices.Sort(names)
	return names
}
