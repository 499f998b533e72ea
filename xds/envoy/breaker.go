package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// circuitBreakers is https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/cluster/v3/circuit_breaker.proto.
func circuitBreakers(l ir.Limits, trackRemaining bool) *clusterv3.CircuitBreakers {
	if l == (ir.Limits{}) && !trackRemaining {
		return nil
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections:     number(l.Connections),
		MaxConnectionPools: number(l.Pools),
		MaxPendingRequests: number(l.Pending),
		MaxRetries:         number(l.Retries),
		MaxRequests:        number(l.Requests),
		TrackRemaining:     trackRemaining,
	}}}
}

// outlierDetection says of each detector whether it enforces, since some of them do by default.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/cluster/v3/outlier_detection.proto
func outlierDetection(o *ir.Outliers) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	off := wrapperspb.UInt32(0)
	out := &clusterv3.OutlierDetection{
		Interval:                               span(o.Interval),
		BaseEjectionTime:                       span(o.BaseEjection),
		MaxEjectionPercent:                     optional(o.MaxEjectionPercent),
		SplitExternalLocalOriginErrors:         o.SplitLocal,
		EnforcingConsecutive_5Xx:               off,
		EnforcingConsecutiveGatewayFailure:     off,
		EnforcingConsecutiveLocalOriginFailure: off,
		EnforcingSuccessRate:                   off,
		EnforcingLocalOriginSuccessRate:        off,
		EnforcingFailurePercentage:             off,
		EnforcingFailurePercentageLocalOrigin:  off,
	}
	on := wrapperspb.UInt32(100)
	if c := o.Total; c != nil {
		out.EnforcingConsecutive_5Xx, out.Consecutive_5Xx = on, number(c.Failures)
	}
	if c := o.Gateway; c != nil {
		out.EnforcingConsecutiveGatewayFailure, out.ConsecutiveGatewayFailure = on, number(c.Failures)
	}
	if c := o.Local; c != nil {
		out.EnforcingConsecutiveLocalOriginFailure, out.ConsecutiveLocalOriginFailure = on, number(c.Failures)
	}
	if s := o.SuccessRate; s != nil {
		out.EnforcingSuccessRate, out.EnforcingLocalOriginSuccessRate = on, on
		out.SuccessRateMinimumHosts, out.SuccessRateRequestVolume = number(s.MinimumHosts), number(s.RequestVolume)
		out.SuccessRateStdevFactor = number(uint32(s.Deviations * 1000))
	}
	if f := o.FailurePercentage; f != nil {
		out.EnforcingFailurePercentage, out.EnforcingFailurePercentageLocalOrigin = on, on
		out.FailurePercentageMinimumHosts, out.FailurePercentageRequestVolume = number(f.MinimumHosts), number(f.RequestVolume)
		out.FailurePercentageThreshold = optional(f.Threshold)
	}
	return out
}

// commonLB is nil where nothing is said.
func commonLB(c ir.Cluster) *clusterv3.Cluster_CommonLbConfig {
	out := new(clusterv3.Cluster_CommonLbConfig)
	said := false
	if p := c.Breaker.PanicThreshold; p != nil {
		out.HealthyPanicThreshold, said = &typev3.Percent{Value: *p}, true
	}
	switch { // Envoy has one of the two
	case c.WeightedLocalities:
		out.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		}
		said = true
	case c.HealthCheck != nil && c.HealthCheck.FailOnPanic:
		out.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig_{
			ZoneAwareLbConfig: &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig{FailTrafficOnPanic: true},
		}
		said = true
	}
	if !said {
		return nil
	}
	return out
}

// optional is *n, or unset.
func optional(n *uint32) *wrapperspb.UInt32Value {
	if n == nil {
		return nil
	}
	return wrapperspb.UInt32(*n)
}
