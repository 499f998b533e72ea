package api

import (
	"encoding/json"
	"reflect"
)

// The newer form of what was written in an older one, for control planes of the
// existing ecosystem that know no other: release 3.0 drops older fields without
// a word.
//
//	written ─▶ upgrade (older.go) ─▶ meant, with selectors that nobody can write ─▶ as it can be written ─▶ judged as if it were
//
// # Why
//
// The judge is the kind itself: what it does not accept as the newer form has
// none. A part of a policy is never given for the whole: what cannot be said is
// an error, and the one who sends decides.

// Newer renders a spec in the newer form; see [AnyKind].
func (k *Kind[S]) Newer(m *Meta, raw json.RawMessage) (json.RawMessage, error) {
	var r Report
	at := &r
	if !k.Flat {
		at = r.At("spec")
	}
	tree, err := readTree(raw)
	if err != nil {
		at.Add("must be an object: %v", err)
		return nil, r.Err()
	}
	from := k.upgrade(m.Mesh, tree, at)
	for _, field := range k.ByRows {
		delete(tree, field)
	}
	if k.Policy != nil {
		sayTop(tree, at.At("targetRef"))
		if from {
			k.sayCallers(tree, at.At("from"))
		}
	}
	sayParts(tree, at)
	if was, _ := readTree(raw); r.Err() == nil && reflect.DeepEqual(tree, was) {
		return raw, nil
	}
	body, err := json.Marshal(tree)
	if err != nil {
		at.Add("%v", err)
	}
	if r.Err() == nil {
		k.Decode(*m, body, false, &r)
	}
	if from {
		r.rename(0, at.At("rules").Path(), at.At("from").Path())
	}
	return body, r.Err()
}

// Known finds what has no form at all but that of this project; see [AnyKind].
func (k *Kind[S]) Known(raw json.RawMessage) error {
	var r Report
	at := &r
	if !k.Flat {
		at = r.At("spec")
	}
	tree, err := readTree(raw)
	if err != nil {
		at.Add("must be an object: %v", err)
	}
	sayOwn(k.shape, tree, at)
	return r.Err()
}

// sayOwn finds the fields of this project alone.
func sayOwn(s *Shape, v any, r *Report) {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			if s.Elem != nil {
				sayOwn(s.Elem, e, r.Index("", i))
			}
		}
	case map[string]any:
		for _, name := range sortedKeys(v) {
			if s.Elem != nil {
				sayOwn(s.Elem, v[name], r.Key("", name))
				continue
			}
			f := s.field(name)
			switch {
			case f == nil || v[name] == nil:
			case f.Own:
				r.At(name).Add("is known to control planes of this project only")
			default:
				sayOwn(f.Shape, v[name], r.At(name))
			}
		}
	}
}

// sayTop selects proxies by labels instead of tags. Who knows only the newer
// form has proxies without tags, so that their labels are all that tags can mean
// there.
func sayTop(spec map[string]any, r *Report) {
	ref, _ := spec["targetRef"].(map[string]any)
	older, _ := ref["older"].(meant)
	tags, _ := older["tags"].(map[string]any)
	delete(ref, "older")
	if len(tags) == 0 {
		return
	}
	labels, _ := ref["labels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
	}
	for _, name := range sortedKeys(tags) {
		switch name {
		case LabelService, LabelProtocol, TagProxyType:
			r.Add("proxies have no label for %s=%v; use kind %s with labels that they carry", name, tags[name], RefDataplane)
		default:
			labels[name] = tags[name]
		}
	}
	ref["labels"] = labels
}

// sayCallers judges what was written as `from`. What permissions say of callers
// in that form depends on which of them is more important, even of everybody.
func (k *Kind[S]) sayCallers(spec map[string]any, r *Report) {
	if k.Name == MeshTrafficPermissions.Name {
		r.Add("in this form the more important permission decides, in the newer a deny goes before every allow; use rules with deny and allow")
		return
	}
	for i, rule := range objects(spec["rules"]) {
		if rule["matches"] != nil { // only an upgrade sets them beside `from`
			r.Index("", i).At("targetRef").Add("tags do not say by which SPIFFE IDs callers call; use rules with matches by spiffeID")
		}
	}
}

// sayParts finds what else has no newer form.
func sayParts(v any, r *Report) {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			sayParts(e, r.Index("", i))
		}
	case map[string]any:
		if _, first := v["older"].(meant); first { // it means the first port
			r.Add("must name a port with port or sectionName")
		}
		for _, name := range sortedKeys(v) {
			at := r.At(name)
			if conf, ok := v[name].(map[string]any); ok && name == "openTelemetry" && conf["endpoint"] != nil {
				at.At("endpoint").Add("use backendRef with a MeshOpenTelemetryBackend that has this address")
			}
			if name != "value" { // free content
				sayParts(v[name], at)
			}
		}
	}
}
