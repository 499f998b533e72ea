package plan

import (
	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/xds/ir"
)

var breakerSet = newPolicySet("breakers", api.MeshCircuitBreakers, func(s *api.MeshCircuitBreaker) *api.TargetRef { return s.TargetRef })

var breakersTo = newToPolicy("breakers-to", breakerSet, func(s *api.MeshCircuitBreaker) []policy.To[api.MeshCircuitBreakerConf] {
	return convert(s.To, func(t api.MeshCircuitBreakerTo) policy.To[api.MeshCircuitBreakerConf] {
		return policy.To[api.MeshCircuitBreakerConf](t)
	})
}, func(c api.MeshCircuitBreakerConf) word[ir.Breaker] { return wordOf(breakerOf(c)) })

// breakersIn is the limits of what a proxy passes to its own application.
var breakersIn = newInPolicy("breakers-in", breakerSet, func(s *api.MeshCircuitBreaker) []policy.Inbound[api.MeshCircuitBreakerConf] {
	return convert(s.Rules, func(rule api.MeshCircuitBreakerRule) policy.Inbound[api.MeshCircuitBreakerConf] {
		return policy.Inbound[api.MeshCircuitBreakerConf]{Default: rule.Default}
	})
}, func(rules []policy.InboundRule[api.MeshCircuitBreakerConf]) ir.Breaker {
	all, _ := policy.CatchAll(rules)
	return breakerOf(all.Conf)
})

func breakerOf(c api.MeshCircuitBreakerConf) ir.Breaker {
	var out ir.Breaker
	if l := c.ConnectionLimits; l != nil {
		out.Limits = ir.Limits{
			Connections: value(l.MaxConnections), Pools: value(l.MaxConnectionPools), Pending: value(l.MaxPendingRequests),
			Retries: value(l.MaxRetries), Requests: value(l.MaxRequests),
		}
	}
	if o := c.OutlierDetection; o != nil && !value(o.Disabled) {
		out.Outliers = outliersOf(o)
		if p := o.HealthyPanicThreshold; p != nil {
			out.PanicThreshold = new(p.Decimal())
		}
	}
	return out
}

func outliersOf(o *api.OutlierDetection) *ir.Outliers {
	out := &ir.Outliers{
		Interval: duration(o.Interval), BaseEjection: duration(o.BaseEjectionTime), MaxEjectionPercent: o.MaxEjectionPercent,
		SplitLocal: value(o.SplitExternalAndLocalErrors),
	}
	d := o.Detectors
	if d == nil {
		return out
	}
	consecutive := func(f *api.ConsecutiveFailures) *ir.Consecutive {
		if f == nil {
			return nil
		}
		return &ir.Consecutive{Failures: value(f.Consecutive)}
	}
	out.Total, out.Gateway, out.Local = consecutive(d.TotalFailures), consecutive(d.GatewayFailures), consecutive(d.LocalOriginFailures)
	if s := d.SuccessRate; s != nil {
		out.SuccessRate = &ir.SuccessRate{MinimumHosts: value(s.MinimumHosts), RequestVolume: value(s.RequestVolume)}
		if f := s.StandardDeviationFactor; f != nil {
			out.SuccessRate.Deviations = f.Decimal()
		}
	}
	if f := d.FailurePercentage; f != nil {
		out.FailurePercentage = &ir.FailurePercentage{MinimumHosts: value(f.MinimumHosts), RequestVolume: value(f.RequestVolume), Threshold: f.Threshold}
	}
	return out
}

// value is what p points to, the zero value where nothing was said.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
