package plan

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/envoy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

// logBackends is where logs go, in the words of the API; the zero word: nowhere.
type logBackends = word[[]api.AccessLogBackend]

func logBackendsOf(c api.MeshAccessLogConf) logBackends {
	if len(c.Backends) == 0 {
		return logBackends{}
	}
	return wordOf(c.Backends)
}

var logSet = newPolicySet("access-logs", api.MeshAccessLogs, func(s *api.MeshAccessLog) *api.TargetRef { return s.TargetRef })

var logsTo = newToPolicy("access-logs-to", logSet, func(s *api.MeshAccessLog) []policy.To[api.MeshAccessLogConf] {
	return convert(s.To, func(t api.MeshAccessLogTo) policy.To[api.MeshAccessLogConf] {
		return policy.To[api.MeshAccessLogConf](t)
	})
}, logBackendsOf)

// callerLogs is where logs of certain callers go.
type callerLogs struct {
	Peer     ir.PeerMatch // zero: all
	Backends logBackends
}

// logsIn is where a section logs who calls it. Each condition on callers adds to
// the others; of several policies with one condition the most important counts.
var logsIn = newInPolicy("access-logs-in", logSet, inboundLogRules, func(rules []policy.InboundRule[api.MeshAccessLogConf]) (out []callerLogs) {
	steps := map[ir.PeerMatch][]policy.Step[api.MeshAccessLogConf]{}
	var order []ir.PeerMatch
	for _, rule := range rules {
		if rule.Match.Caller != nil {
			continue // of an older form, which names nobody here
		}
		peer := peerMatch(rule.Match)
		if steps[peer] == nil {
			order = append(order, peer)
		}
		steps[peer] = append(steps[peer], rule.Step)
	}
	for _, peer := range order {
		if b := logBackendsOf(policy.NewRule(steps[peer]).Conf); b != (logBackends{}) {
			out = append(out, callerLogs{peer, b})
		}
	}
	return out
})

func inboundLogRules(s *api.MeshAccessLog) []policy.Inbound[api.MeshAccessLogConf] {
	return convert(s.Rules, func(rule api.MeshAccessLogRule) policy.Inbound[api.MeshAccessLogConf] {
		return policy.Inbound[api.MeshAccessLogConf](rule)
	})
}

// routeLogs is where logs of requests go that take a route.
type routeLogs struct {
	Route    string
	Backends logBackends
}

// routeLogsOf lists the routes to a port whose logs go elsewhere than those of the
// port.
func routeLogsOf(r *incr.Run, k routesKey, others logBackends) (out []routeLogs) {
	for _, rule := range httpRulesFor.Get(r, k.calls()) {
		from := routeSource(rule)
		said := callsTo.Get(r, callsKey{k.Class, k.To.Port, from})
		name := api.MeshHTTPRoutes.KRI(from.ID, from.Section)
		if said.Logs != others && !slices.ContainsFunc(out, func(l routeLogs) bool { return l.Route == name }) {
			out = append(out, routeLogs{name, said.Logs})
		}
	}
	return out
}

// parties is what the placeholders of the mesh stand for in a listener's logs, as
// Envoy's command operators or with percent signs doubled.
type parties struct {
	mesh, zone, direction, workload    string
	source, sourceAddress, destination string
}

// callingParties are those of what a class calls. The proxy itself says who it is.
func callingParties(r *incr.Run, mesh, destination string) parties {
	site := settings(r).Site
	before, after, _ := strings.Cut(workloadKRI(mesh, site, "\x00"), "\x00")
	return parties{
		mesh: mesh, zone: site.Zone, direction: "OUTBOUND", workload: envoy.OwnWorkloadIn(before, after),
		source: envoy.OwnWorkload, sourceAddress: envoy.OwnAddress, destination: destination,
	}
}

// calledParties are those of a section of a Dataplane: of its callers it is known
// what their certificate and their connection say.
func calledParties(r *incr.Run, dp *api.Object[api.Dataplane], destination string) parties {
	site := settings(r).Site
	return parties{
		mesh: dp.Mesh, zone: site.Zone, direction: "INBOUND", workload: workloadKRI(dp.Mesh, site, api.WorkloadOf(dp)),
		source: "%DOWNSTREAM_PEER_URI_SAN%", sourceAddress: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", destination: destination,
	}
}

const (
	defaultLogTCP = `[%START_TIME%] %RESPONSE_FLAGS% %KUMA_MESH% %KUMA_SOURCE_ADDRESS_WITHOUT_PORT%(%KUMA_SOURCE_SERVICE%)->` +
		`%UPSTREAM_HOST%(%KUMA_DESTINATION_SERVICE%) took %DURATION%ms, sent %BYTES_SENT% bytes, received: %BYTES_RECEIVED% bytes`
	defaultLogHTTP = `[%START_TIME%] %KUMA_MESH% "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" ` +
		`%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ` +
		`"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-B3-TRACEID?X-DATADOG-TRACEID)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" ` +
		`"%KUMA_SOURCE_SERVICE%" "%KUMA_DESTINATION_SERVICE%" "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%" "%UPSTREAM_HOST%"`
)

// logger makes the logs of one listener.
type logger struct {
	r        *incr.Run
	ways     ways
	mesh     string
	parties  parties
	http     bool
	clusters *systemClusters // that the logs need; nil: they are named elsewhere
}

// logs is what is written to the backends, about that which one says.
func (g logger) logs(to logBackends, about ir.AccessLog) (out []ir.AccessLog) {
	for _, b := range to.value() {
		l := about
		switch {
		case b.File != nil:
			l.Path = b.File.Path
			g.line(&l, b.File.Format)
		case b.TCP != nil && g.ways.Lines == "":
			continue // Envoy would make a file there, which only grows
		case b.TCP != nil:
			l.Path, l.Reader = g.ways.Lines, b.TCP.Address
			g.line(&l, b.TCP.Format)
		case b.OpenTelemetry != nil:
			if !g.record(&l, b.OpenTelemetry) {
				continue
			}
		}
		out = append(out, l)
	}
	return out
}

func (g logger) standard() string {
	if g.http {
		return defaultLogHTTP
	}
	return defaultLogTCP
}

func (g logger) line(l *ir.AccessLog, f *api.LogFormat) {
	l.Format = g.standard()
	if f != nil {
		l.OmitEmpty = f.OmitEmptyValues
		switch {
		case f.Plain != nil:
			l.Format = *f.Plain
		case len(f.JSON) > 0:
			l.Format = ""
			l.Fields = convert(f.JSON, func(one api.LogField) ir.LogField { return ir.LogField{Key: one.Key, Value: g.parties.fill(one.Value)} })
		}
	}
	l.Format = g.parties.fill(l.Format)
}

// record is false where there is no collector.
func (g logger) record(l *ir.AccessLog, o *api.CollectorLogs) bool {
	to := collectors.Get(g.r, collectorRef(g.mesh, o.BackendRef, o.Endpoint))
	if to.Name == "" {
		return false
	}
	collector, cluster := g.ways.send(to, logPrefix, signalLogs, ir.OriginLog)
	if g.clusters != nil {
		g.clusters.add(cluster)
	}
	l.Collector, l.Resource = &collector, g.ways.resource(g.r, g.mesh)
	l.Attributes = convert(o.Attributes, func(one api.LogAttribute) ir.LogField {
		return ir.LogField{Key: one.Key, Value: g.parties.fill(one.Value)}
	})
	switch body := o.Body.(type) {
	case nil:
		l.Format = g.parties.fill(g.standard())
	case string:
		l.Format = g.parties.fill(body)
	default:
		text, err := json.Marshal(g.parties.fillAll(body))
		if err != nil {
			g.r.Fail(err)
			return false
		}
		if envoy.ReadAnyValue(text) == nil {
			l.Body = text
		} else {
			l.Format = string(text)
		}
	}
	return true
}

// fillAll fills in every text of a JSON value.
func (p parties) fillAll(v any) any {
	switch v := v.(type) {
	case string:
		return p.fill(v)
	case []any:
		return convert(v, p.fillAll)
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, one := range v {
			out[key] = p.fillAll(one)
		}
		return out
	}
	return v
}

// meshOperators are the placeholders of the mesh.
func meshOperators() (names []string) {
	for _, one := range new(parties).operators() {
		names = append(names, one.name)
	}
	return names
}

// operator is a placeholder of the mesh and what it stands for.
type operator struct{ name, value string }

func (p *parties) operators() []operator {
	return []operator{
		{"KUMA_MESH", p.mesh}, {"KUMA_ZONE", p.zone}, {"KUMA_TRAFFIC_DIRECTION", p.direction}, {"KUMA_WORKLOAD", p.workload},
		{"KUMA_SOURCE_ADDRESS_WITHOUT_PORT", p.sourceAddress}, {"KUMA_SOURCE_ADDRESS", p.sourceAddress + ":0"},
		{"KUMA_SOURCE_SERVICE", p.source}, {"KUMA_DESTINATION_SERVICE", p.destination},
	}
}

// fill replaces the placeholders of the mesh. What Envoy knows stays, and so does a
// doubled percent sign, which stands for one.
func (p parties) fill(format string) string {
	ours := p.operators()
	var out strings.Builder
	for format != "" {
		before, rest, found := strings.Cut(format, "%")
		out.WriteString(before)
		if !found {
			break
		}
		if strings.HasPrefix(rest, "%") {
			out.WriteString("%%")
			format = rest[1:]
			continue
		}
		said := rest[:envoy.OperatorEnd(rest)]
		if i := slices.IndexFunc(ours, func(o operator) bool { return o.name+"%" == said }); i >= 0 {
			out.WriteString(ours[i].value)
		} else {
			out.WriteString("%" + said)
		}
		format = rest[len(said):]
	}
	return out.String()
}

// sectionLogs is the logs of a section of a Dataplane, and what they need.
func sectionLogs(r *incr.Run, dp *api.Object[api.Dataplane], section sectionKey, destination string, http bool) (out []ir.AccessLog, need systemClusters) {
	said := logsIn.Get(r, section)
	if len(said) == 0 {
		return nil, nil
	}
	g := logger{r, waysOf(r, dp), dp.Mesh, calledParties(r, dp, destination), http, &need}
	for _, one := range said {
		out = append(out, g.logs(one.Backends, ir.AccessLog{Peer: one.Peer})...)
	}
	return out, need
}

// inboundDestination is the name of an inbound in logs.
func inboundDestination(dp *api.Object[api.Dataplane], in api.Inbound) string {
	if in.Name != "" {
		return api.Dataplanes.KRI(dp.ID, in.Name)
	}
	return api.WorkloadOf(dp)
}
