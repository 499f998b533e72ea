package plan

import (
	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/xds/envoy"
)

// Judge notes the faults of a row that only show to who knows Envoy, which
// package api does not: values of MeshProxyPatch that are no protobuf of their
// target. It is for the doors of people, after the row was found good otherwise.
func Judge(row api.Row, r *api.Report) {
	patch, ok := row.Body().(*api.MeshProxyPatch)
	if !ok {
		return
	}
	for i, m := range patch.Default.AppendModifications {
		for _, c := range m.Changes() {
			if c.Value == "" {
				continue
			}
			value, err := c.JSON()
			if err == nil {
				_, err = envoy.ParsePatch(c.Target, value, c.Operation != "Patch")
			}
			if err != nil {
				r.At("spec.default").Index("appendModifications", i).At(c.Target).At("value").Add("%v", err)
			}
		}
	}
}
