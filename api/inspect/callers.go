package inspect

import (
	"fmt"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
)

// sharedCallers tells of each SPIFFE ID by which others call, or may, than those
// whom an older permission names by tags: what becomes of it, why, and how the
// newer form says it. Other policies have none.
func sharedCallers(snap *db.Snapshot, policy api.ID) ([]string, error) {
	if policy.Kind != api.MeshTrafficPermissions.Name {
		return nil, nil
	}
	shared, err := incr.Peek(incr.New(snap, incr.WithWorkers(1)), plan.SharedCallers.Ref(policy))
	if err != nil {
		return nil, fmt.Errorf("callers of %s: %w", policy, err)
	}
	var out []string
	for _, s := range shared {
		outcome, with := "is not let in", "calls by it too, without "+s.Tags
		if s.List == "deny" {
			outcome = "is refused"
		}
		if s.May {
			with = "does not say whether its proxies carry " + s.Tags
		}
		out = append(out, fmt.Sprintf("spec.from[%d]: %s %s: %s %s; to decide it by the ID alone, write rules: [{default: {%s: [{spiffeID: {type: Exact, value: %q}}]}}]",
			s.Index, s.ID, outcome, kri(s.With, ""), with, s.List, s.ID))
	}
	return out, nil
}
