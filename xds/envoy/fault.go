package envoy

import (
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// fault is a filter of its own for each fault: Envoy's one holds one of each sort.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/http/fault/v3/fault.proto
func (w *work) fault(f ir.Fault) *hcmv3.HttpFilter {
	out := new(faultv3.HTTPFault)
	if d := f.Delay; d != nil {
		out.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: span(d.For)}, Percentage: fraction(d.Share).DefaultValue,
		}
	}
	if a := f.Abort; a != nil {
		out.Abort = &faultv3.FaultAbort{
			ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: a.Status}, Percentage: fraction(a.Share).DefaultValue,
		}
	}
	if s := f.Slow; s != nil {
		out.ResponseRateLimit = &commonfaultv3.FaultRateLimit{
			LimitType:  &commonfaultv3.FaultRateLimit_FixedLimit_{FixedLimit: &commonfaultv3.FaultRateLimit_FixedLimit{LimitKbps: s.Kibps}},
			Percentage: fraction(s.Share).DefaultValue,
		}
	}
	return w.forCallers(f.Callers, f.Policy, "envoy.filters.http.fault", out)
}
