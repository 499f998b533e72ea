package plan

import (
	"cmp"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var healthSet = newPolicySet("health-checks", api.MeshHealthChecks, func(s *api.MeshHealthCheck) *api.TargetRef { return s.TargetRef })

var healthTo = newToPolicy("health-checks-to", healthSet, func(s *api.MeshHealthCheck) []policy.To[api.MeshHealthCheckConf] {
	return convert(s.To, func(t api.MeshHealthCheckTo) policy.To[api.MeshHealthCheckConf] {
		return policy.To[api.MeshHealthCheckConf](t)
	})
}, healthChecksOf)

// healthChecks is the check for each protocol of a destination; the zero word is
// none.
type healthChecks struct{ HTTP, HTTP2, GRPC, TCP word[ir.HealthCheck] }

func (c healthChecks) of(protocol string) word[ir.HealthCheck] {
	switch protocol {
	case "http":
		return c.HTTP
	case "http2":
		return c.HTTP2
	case "grpc":
		return c.GRPC
	}
	return c.TCP
}

// healthChecksOf: a protocol's own check, or that of tcp where its own is disabled.
// Of what upstream sends with every probe, the labels of the prober are left out:
// nothing reads them, and they would make a cluster for each proxy.
func healthChecksOf(c api.MeshHealthCheckConf) healthChecks {
	with := func(set func(*ir.HealthCheck)) word[ir.HealthCheck] {
		out := ir.HealthCheck{
			Interval: duration(c.Interval).Or(ir.Span(time.Minute)), Timeout: duration(c.Timeout).Or(ir.Span(15 * time.Second)),
			Unhealthy: cmp.Or(uint32(value(c.UnhealthyThreshold)), 5), Healthy: cmp.Or(uint32(value(c.HealthyThreshold)), 1),
			InitialJitter: duration(c.InitialJitter), IntervalJitter: duration(c.IntervalJitter),
			IntervalJitterPercent: uint32(value(c.IntervalJitterPercent)), NoTrafficInterval: duration(c.NoTrafficInterval),
			EventLog: value(c.EventLogPath), LogEveryFailure: value(c.AlwaysLogHealthCheckFailures), FailOnPanic: value(c.FailTrafficOnPanic),
		}
		if c.ReuseConnection != nil {
			out.ReuseConnection = ir.SwitchOf(*c.ReuseConnection)
		}
		set(&out)
		return wordOf(out)
	}
	var out healthChecks
	if c.TCP != nil && !value(c.TCP.Disabled) {
		out.TCP = with(func(h *ir.HealthCheck) { h.TCP = &ir.TCPCheck{Send: value(c.TCP.Send), Receive: c.TCP.Receive} })
	}
	if c.HTTP != nil {
		out.HTTP, out.HTTP2 = out.TCP, out.TCP
		if !value(c.HTTP.Disabled) {
			probe := ir.HTTPCheck{Path: cmp.Or(value(c.HTTP.Path), "/")}
			if h := c.HTTP.RequestHeadersToAdd; h != nil {
				probe.Headers = headerChange(&api.HeaderModifier{Set: h.Set, Add: h.Add})
			}
			for _, status := range c.HTTP.ExpectedStatuses {
				probe.Statuses = append(probe.Statuses, uint32(status))
			}
			out.HTTP = with(func(h *ir.HealthCheck) { h.HTTP = new(probe) })
			probe.HTTP2 = true
			out.HTTP2 = with(func(h *ir.HealthCheck) { h.HTTP = new(probe) })
		}
	}
	if c.GRPC != nil {
		out.GRPC = out.TCP
		if !value(c.GRPC.Disabled) {
			out.GRPC = with(func(h *ir.HealthCheck) {
				h.GRPC = &ir.GRPCCheck{Service: value(c.GRPC.ServiceName), Authority: value(c.GRPC.Authority)}
			})
		}
	}
	return out
}
