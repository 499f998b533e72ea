package metrics

import (
	"regexp"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/atoll-mesh/atoll/api"
)

// profile says which of Envoy's metrics are passed on.
type profile struct {
	name             string // All, Basic or None
	exclude, include []func(name string) bool
}

func newProfile(s *api.SidecarMetrics) profile {
	p := profile{name: "Basic"}
	if s == nil || s.Profiles == nil {
		return p
	}
	for i, name := range []string{"None", "Basic", "All"} {
		if i == 0 && len(s.Profiles.AppendProfiles) > 0 || slices.Contains(s.Profiles.AppendProfiles, api.MetricProfile{Name: name}) {
			p.name = name // the broadest comes last
		}
	}
	p.exclude, p.include = selectors(s.Profiles.Exclude), selectors(s.Profiles.Include)
	return p
}

func selectors(list []api.MetricSelector) (out []func(string) bool) {
	for _, s := range list {
		switch s.Type {
		case "Prefix":
			out = append(out, func(name string) bool { return strings.HasPrefix(name, s.Match) })
		case "Contains":
			out = append(out, func(name string) bool { return strings.Contains(name, s.Match) })
		case "Exact":
			out = append(out, func(name string) bool { return name == s.Match })
		case "Regex":
			if re, err := regexp.Compile(s.Match); err == nil { // else: refused when it was written
				out = append(out, re.MatchString)
			}
		}
	}
	return out
}

// passes reports whether metrics of the name are passed on.
func (p profile) passes(name string) bool {
	matches := func(selects func(string) bool) bool { return selects(name) }
	switch {
	case slices.ContainsFunc(p.include, matches):
		return true
	case slices.ContainsFunc(p.exclude, matches), p.name == "None":
		return false
	}
	return p.name == "All" || basic(name)
}

// filter keeps the families that pass. What Envoy does for the mesh itself, its
// stream to the control plane or these reads, is only in All.
func (p profile) filter(families []*dto.MetricFamily) []*dto.MetricFamily {
	return slices.DeleteFunc(families, func(f *dto.MetricFamily) bool {
		if !p.passes(f.GetName()) {
			return true
		}
		if p.name != "All" {
			f.Metric = slices.DeleteFunc(f.Metric, ofSystem)
		}
		return len(f.Metric) == 0
	})
}

// systemPrefix begins the names of what is in a proxy for the mesh itself.
const systemPrefix = "system_"

func ofSystem(m *dto.Metric) bool {
	return slices.ContainsFunc(m.Label, func(l *dto.LabelPair) bool { return strings.HasPrefix(l.GetValue(), systemPrefix) })
}

// basic reports whether a metric is of profile Basic: traffic, errors, latency and
// saturation of what a proxy calls and of what calls it, what policies refuse, the
// health of endpoints and of the proxy itself. Their names are those of
// https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/stats_overview.
func basic(name string) bool {
	rest, ok := strings.CutPrefix(name, "envoy_")
	if !ok {
		return false
	}
	for _, group := range basicGroups {
		if of, ok := strings.CutPrefix(rest, group.prefix); ok {
			return slices.Contains(group.names, of) || slices.ContainsFunc(group.prefixes, func(p string) bool { return strings.HasPrefix(of, p) })
		}
	}
	return false
}

type metricGroup struct {
	prefix   string // of the group, which no later group has a part in
	names    []string
	prefixes []string
}

var basicGroups = [...]metricGroup{
	{"cluster_upstream_", []string{
		"cx_active", "cx_total", "cx_connect_fail", "cx_connect_timeout", "cx_connect_ms", "cx_overflow", "cx_none_healthy",
		"cx_destroy_local_with_active_rq", "cx_destroy_remote_with_active_rq", "cx_rx_bytes_total", "cx_tx_bytes_total",
		"rq", "rq_active", "rq_completed", "rq_total", "rq_xx", "rq_time", "rq_timeout", "rq_per_try_timeout", "rq_cancelled",
		"rq_rx_reset", "rq_tx_reset", "rq_pending_active", "rq_pending_overflow", "rq_pending_total", "rq_pending_failure_eject",
	}, []string{"rq_retry"}},
	{"cluster_manager_", []string{"active_clusters", "warming_clusters"}, []string{"cds_update_"}},
	{"cluster_", []string{
		"membership_healthy", "membership_total", "membership_degraded", "membership_excluded", "lb_healthy_panic",
		"ssl_handshake", "ssl_connection_error", "ssl_fail_verify_error", "ssl_fail_verify_no_cert", "ssl_fail_verify_san",
		"health_check_attempt", "health_check_failure", "health_check_success", "health_check_healthy",
		"default_total_match_count",
	}, []string{"outlier_detection_ejections_", "circuit_breakers_default_"}},
	{"http_", []string{
		"downstream_cx_active", "downstream_cx_total", "downstream_cx_rx_bytes_total", "downstream_cx_tx_bytes_total",
		"downstream_rq_active", "downstream_rq_completed", "downstream_rq_total", "downstream_rq_xx", "downstream_rq_time",
		"downstream_rq_timeout", "downstream_rq_rx_reset", "downstream_rq_tx_reset", "no_route", "no_cluster",
	}, []string{"rbac_", "fault_", "local_rate_limit_"}},
	{"tcp_", []string{
		"downstream_cx_total", "downstream_cx_no_route", "downstream_cx_rx_bytes_total", "downstream_cx_tx_bytes_total", "idle_timeout",
	}, []string{"rbac_", "local_rate_limit_"}},
	{"", []string{
		"control_plane_connected_state", "listener_manager_total_listeners_active", "listener_manager_total_listeners_warming",
		"listener_downstream_cx_active", "listener_downstream_cx_total", "listener_no_filter_chain_match",
		"listener_ssl_handshake", "listener_ssl_connection_error", "listener_ssl_fail_verify_error", "listener_ssl_fail_verify_no_cert", "listener_ssl_fail_verify_san",
		"server_live", "server_state", "server_uptime", "server_concurrency", "server_version", "server_total_connections",
		"server_memory_allocated", "server_memory_heap_size", "server_memory_physical_size", "server_days_until_first_cert_expiring",
		"server_hot_restart_epoch", "server_initialization_time_ms",
	}, []string{"listener_manager_lds_update_", "rbac_", "local_rate_limit_", "local_rate_limiter_"}},
}
