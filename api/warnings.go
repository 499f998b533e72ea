package api

import "encoding/json"

// Warnings are what the writer of a valid row should know: which fields are accepted
// and do nothing, as those of earlier releases ("spec.to: limits nothing; …"), and
// what it says that can have no result.
func Warnings(k AnyKind, row Row) []string {
	var tree map[string]any
	if json.Unmarshal(row.Raw(), &tree) != nil {
		return nil // a row that was decoded is an object
	}
	var root Report
	at := &root
	if !k.Info().Flat {
		at = root.At("spec")
	}
	noteIdle(k.Shape(), tree, at)
	if spec, ok := row.Body().(interface{ warn(*Report) }); ok {
		spec.warn(at)
	}
	var out []string
	for _, f := range root.Faults() {
		out = append(out, f.String())
	}
	return out
}

// noteIdle notes the fields with the tag idle that a value has. What is inside a
// field of any JSON has no shape.
func noteIdle(s *Shape, value any, at *Report) {
	if s == nil {
		return
	}
	switch v := value.(type) {
	case []any:
		for i, elem := range v {
			noteIdle(s.Elem, elem, at.Index("", i))
		}
	case map[string]any:
		for _, f := range s.Fields {
			switch member, ok := v[f.Name]; {
			case !ok || member == nil:
			case f.Idle != "":
				at.At(f.Name).Add("%s", f.Idle)
			default:
				noteIdle(f.Shape, member, at.At(f.Name))
			}
		}
	}
}

func (s *MeshService) warn(r *Report) {
	if len(s.Selector.DataplaneTags) == 0 && s.Selector.DataplaneRef == nil && s.Selector.DataplaneLabels == nil {
		r.At("selector").Add("selects no Dataplane; give it dataplaneLabels")
	}
}

func (s *MeshHTTPRoute) warn(r *Report) {
	for i, to := range s.To {
		for j, rule := range to.Rules {
			for k, f := range rule.Default.Filters {
				if f.RequestMirror != nil && f.RequestMirror.BackendRef.Weight != nil {
					at := r.Index("to", i).Index("rules", j).Index("default.filters", k)
					at.At("requestMirror.backendRef.weight").Add("does nothing; percentage is the share of the requests")
				}
			}
		}
	}
}
