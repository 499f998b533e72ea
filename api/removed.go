package api

// removed is the kinds of older releases that are no more, and what replaces
// each: by name and by REST path.
var removed = indexRemoved([][3]string{
	{"CircuitBreaker", "circuit-breakers", "MeshCircuitBreaker"},
	{"FaultInjection", "fault-injections", "MeshFaultInjection"},
	{"HealthCheck", "health-checks", "MeshHealthCheck"},
	{"RateLimit", "rate-limits", "MeshRateLimit"},
	{"Retry", "retries", "MeshRetry"},
	{"Timeout", "timeouts", "MeshTimeout"},
	{"TrafficLog", "traffic-logs", "MeshAccessLog"},
	{"TrafficPermission", "traffic-permissions", "MeshTrafficPermission"},
	{"TrafficRoute", "traffic-routes", "MeshHTTPRoute or MeshTCPRoute"},
	{"TrafficTrace", "traffic-traces", "MeshTrace"},
	{"VirtualOutbound", "virtual-outbounds", "HostnameGenerator"},
	{"ProxyTemplate", "proxytemplates", "MeshProxyPatch"},
	{"ExternalService", "external-services", "MeshExternalService"},
	{"MeshGateway", "meshgateways", "a gateway of your own, with a Dataplane that has networking.gateway"},
	{"MeshGatewayRoute", "meshgatewayroutes", "the routes of a gateway of your own, and MeshHTTPRoute for what it calls"},
	{"MeshGatewayInstance", "meshgatewayinstances", "a gateway of your own, with a Dataplane that has networking.gateway"},
	{"MeshGatewayConfig", "meshgatewayconfigs", "a gateway of your own, with a Dataplane that has networking.gateway"},
	{"ZoneIngressInsight", "zone-ingress-insights", "DataplaneInsight"},
	{"ZoneEgressInsight", "zoneegressinsights", "DataplaneInsight"},
})

func indexRemoved(table [][3]string) map[string]string {
	index := map[string]string{}
	for _, row := range table {
		index[row[0]], index[row[1]] = row[2], row[2]
	}
	return index
}

// Replacement says what replaces a kind of older releases, given its name or
// its REST path; ok is false for what never was a kind or still is.
func Replacement(kind string) (use string, ok bool) {
	use, ok = removed[kind]
	return use, ok
}
