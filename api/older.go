package api

import (
	"encoding/json"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strconv"
)

// Older forms of policies and references, as release 2.14 of the existing
// ecosystem has them. What is stored is what was written; here it gets the one
// meaning that the rest of the program knows. Whatever cannot have it is refused
// with what to write instead.
//
//	written                                          meant
//	targetRef: {kind: MeshSubset, tags}        ─▶    {kind: Dataplane, older: {as: MeshSubset, tags}}
//	to[].targetRef: {kind: MeshService, name}  ─▶    {kind: MeshService, labels: {kuma.io/display-name}}
//	from: [{targetRef, default}]               ─▶    rules: [{matches: [{caller: {tags}}], default}]
//
// # Why
//
// It is a function of one document alone, so that every control plane gets the
// same meaning and nothing has to be rewritten when other rows change. What a
// document cannot know, which proxies carry a tag and by which SPIFFE IDs they
// call, stays a selector in the model (in fields that only this file sets) and
// is answered by queries. All policies share it because they share the forms.

// OlderRef is what a targetRef says beyond its fields because it was written in
// an older form. Nobody can write it.
type OlderRef struct {
	// As is the kind it was written as, [RefDataplane] for one that is named: it
	// counts when policies are ordered. Empty: the kind it has now.
	As string `json:"as,omitempty"`
	// Tags are what an inbound of the Dataplane carries, see [Tag].
	Tags map[string]string `json:"tags,omitempty"`
	// From says that the policy's rules were written as `from`, which may stand
	// beside `to` and concern a whole mesh in every kind.
	From bool `json:"from,omitempty"`
}

// Caller selects callers by the tags of their proxies, see [Tag]; no tags: all.
// SPIFFE IDs say who they are, so where it stands it is resolved to these.
type Caller struct {
	Tags map[string]string `json:"tags,omitempty"`
}

// Kinds that references of older forms name.
const (
	RefSubset        = "MeshSubset"
	RefServiceSubset = "MeshServiceSubset"
	RefGateway       = "MeshGateway"
)

// wasFrom reports whether the policy's rules were written as `from`.
func (ref *TargetRef) wasFrom() bool { return ref != nil && ref.Older != nil && ref.Older.From }

// meant is a value that an upgrade put into a tree, in a field that nobody may
// write: no JSON decodes to this type.
type meant map[string]any

// older upgrades the references of one document.
type older struct {
	mesh string
	kind Facts
}

// upgradePolicy turns older forms in a policy's spec into what they mean. It
// returns whether `from` became `rules`: faults are then told of `from`.
func upgradePolicy(kind Facts, mesh string, spec map[string]any, r *Report) (from bool) {
	u := older{mesh, kind}
	if list, ok := spec["from"].([]any); ok && kind.Policy.Rules {
		if _, both := spec["rules"]; both {
			r.At("from").Add("must not be set together with 'rules', which replaces it")
			delete(spec, "from")
		} else {
			from = true
			delete(spec, "from")
			spec["rules"] = u.from(list, r)
		}
	}
	if top, ok := spec["targetRef"].(map[string]any); ok {
		u.top(spec, top, r)
	}
	for i, item := range objects(spec["to"]) {
		if ref, ok := item["targetRef"].(map[string]any); ok {
			u.to(ref, r.Index("to", i).At("targetRef"))
		}
	}
	for _, field := range []string{"to", "rules", "default"} {
		u.backends(spec[field], r.At(field))
	}
	if from {
		top, ok := spec["targetRef"].(map[string]any)
		if !ok && spec["targetRef"] == nil {
			top = map[string]any{"kind": RefMesh}
			spec["targetRef"] = top
		}
		if top != nil {
			understand(top)["from"] = true
		}
	}
	return from
}

// objects lists the elements of a list that are objects, by position.
func objects(v any) iter.Seq2[int, map[string]any] {
	list, _ := v.([]any)
	return func(yield func(int, map[string]any) bool) {
		for i, e := range list {
			if object, ok := e.(map[string]any); ok && !yield(i, object) {
				return
			}
		}
	}
}

// understand returns the part of a reference that is only meant.
func understand(ref map[string]any) meant {
	m, ok := ref["older"].(meant)
	if !ok {
		m = meant{}
		ref["older"] = m
	}
	return m
}

// take removes a field of text from a reference; what is no text stays, for the
// shape to judge.
func take(ref map[string]any, field string) string {
	text, ok := ref[field].(string)
	if ok {
		delete(ref, field)
	}
	return text
}

// takeTags removes the tags; ok is false when they are not a map of texts.
func takeTags(ref map[string]any, r *Report) (tags map[string]any, ok bool) {
	written, has := ref["tags"]
	if !has {
		return map[string]any{}, true
	}
	tags, ok = written.(map[string]any)
	delete(ref, "tags")
	if !ok {
		r.At("tags").Add("in body must be of type object: %q", typeName(written))
		return nil, false
	}
	texts := map[string]string{}
	for _, name := range sortedKeys(tags) {
		text, isText := tags[name].(string)
		if !isText {
			r.Key("tags", name).Add("in body must be of type string: %q", typeName(tags[name]))
			ok = false
			continue
		}
		texts[name] = text
	}
	checkTags(texts, r)
	return tags, ok
}

func checkServiceTag(name string, r *Report) {
	if !tagValue.MatchString(name) {
		r.At("name").Add("must consist of alphanumeric characters, dots, dashes, colons and underscores")
	}
}

// sameMesh drops the field mesh, by which a reference could leave the mesh of
// its policy.
func (u older) sameMesh(ref map[string]any, r *Report) {
	if mesh := take(ref, "mesh"); mesh != "" && mesh != u.mesh {
		r.At("mesh").Add("must be the mesh of the policy: write a policy in mesh %q instead", mesh)
	}
}

// top upgrades the top-level reference.
func (u older) top(spec, ref map[string]any, root *Report) {
	r := root.At("targetRef")
	u.sameMesh(ref, r)
	proxyType, narrowed := takeProxyTypes(ref, r)
	kind, _ := ref["kind"].(string)
	if bare := ref["name"] == nil && ref["tags"] == nil && ref["labels"] == nil && !narrowed; bare && kind != RefGateway {
		return // nothing older in it; the shape judges
	}
	selects := func(tags map[string]any) {
		ref["kind"] = RefDataplane
		m := understand(ref)
		m["as"] = kind
		if narrowed {
			tags[TagProxyType] = proxyType
		}
		if len(tags) > 0 {
			m["tags"] = tags
		}
	}
	switch kind {
	case RefMesh:
		if narrowed {
			selects(map[string]any{})
		}
	case RefDataplane:
		named := u.labels(ref, r)
		if named || narrowed {
			selects(map[string]any{})
		}
		if narrowed && !named {
			delete(understand(ref), "as")
		}
	case RefSubset:
		tags, ok := takeTags(ref, r)
		if ok {
			selects(tags)
		}
		ref["kind"] = RefDataplane // also where it is refused: it is judged already
	case RefService, RefServiceSubset:
		tags, ok := takeTags(ref, r)
		name := take(ref, "name")
		switch {
		case !ok:
		case name == "":
			r.At("name").Add("must be set with kind %s", kind)
		case take(ref, "namespace") != "":
			r.At("namespace").Add("cannot tell proxies apart; use kind Dataplane with labels")
		default:
			checkServiceTag(name, r)
			tags[LabelService] = name
			selects(tags)
		}
		ref["kind"] = RefDataplane
	case RefGateway:
		r.At("kind").Add("builtin gateways are no longer supported; run a gateway of your own, with a Dataplane that has networking.gateway, and use kind Dataplane with its labels")
		clear(ref)
		ref["kind"] = RefDataplane
	case RefHTTPRoute:
		u.route(spec, ref, root)
	}
}

// takeProxyTypes removes proxyTypes; narrowed says that it excludes something.
func takeProxyTypes(ref map[string]any, r *Report) (proxyType string, narrowed bool) {
	written, has := ref["proxyTypes"]
	if !has {
		return "", false
	}
	delete(ref, "proxyTypes")
	list, ok := written.([]any)
	if !ok {
		r.At("proxyTypes").Add("in body must be of type array: %q", typeName(written))
		return "", false
	}
	types := map[string]string{"Sidecar": ProxySidecar, "Gateway": ProxyGateway}
	found := map[string]bool{}
	for i, e := range list {
		name, _ := e.(string)
		if types[name] == "" {
			r.Index("proxyTypes", i).Add("in body should be one of [Sidecar Gateway]")
			continue
		}
		proxyType = types[name]
		found[name] = true
	}
	return proxyType, len(found) == 1
}

// route: a policy about one route says for all destinations what is now said
// for the route as a destination.
func (u older) route(spec, ref map[string]any, root *Report) {
	r := root.At("targetRef")
	u.labels(ref, r)
	target := map[string]any{"kind": RefHTTPRoute, "labels": ref["labels"]}
	if ref["labels"] == nil {
		delete(target, "labels")
	}
	list, _ := spec["to"].([]any)
	for _, item := range objects(list) {
		to, _ := item["targetRef"].(map[string]any)
		if len(to) == 1 && to["kind"] == RefMesh {
			item["targetRef"] = maps.Clone(target)
			list = list[1:] // one less to explain
		}
	}
	if spec["to"] == nil || spec["rules"] != nil || len(list) > 0 {
		r.At("kind").Add("MeshHTTPRoute is no longer supported here; use to[].targetRef with kind MeshHTTPRoute and labels")
	}
	spec["targetRef"] = map[string]any{"kind": RefMesh, "older": meant{"as": RefHTTPRoute}}
}

// labels turns name and namespace into labels; named reports whether there was
// a name.
func (u older) labels(ref map[string]any, r *Report) (named bool) {
	name, namespace := take(ref, "name"), take(ref, "namespace")
	switch {
	case name == "" && namespace == "":
		return false
	case name == "":
		r.At("name").Add("must be set when namespace is set")
		return false
	case ref["labels"] != nil:
		r.At("labels").Add("must not be set together with name")
		return false
	}
	labels := map[string]any{LabelDisplayName: name}
	if namespace != "" {
		labels[LabelNamespace] = namespace
	}
	ref["labels"] = labels
	return true
}

// serviceTag is how Kubernetes services were named in the tag kuma.io/service.
var serviceTag = regexp.MustCompile(`^([a-z0-9][-a-z0-9]*)_([a-z0-9][-a-z0-9]*)_svc_([0-9]+)$`)

// KubeService splits the name that a port of a Kubernetes Service had as
// kuma.io/service; ok is false for any other name.
func KubeService(tag string) (name, namespace string, port int, ok bool) {
	m := serviceTag.FindStringSubmatch(tag)
	if m == nil {
		return "", "", 0, false
	}
	port, err := strconv.Atoi(m[3])
	return m[1], m[2], port, err == nil
}

// service turns the name of a service into labels; it may be the one in tags.
func (u older) service(ref map[string]any, r *Report) {
	name, _ := ref["name"].(string)
	if m := serviceTag.FindStringSubmatch(name); m != nil && ref["namespace"] == nil {
		ref["name"], ref["namespace"] = m[1], m[2]
		if ref["sectionName"] == nil && ref["port"] == nil {
			ref["sectionName"] = m[3]
		}
	}
	u.labels(ref, r)
}

// subset turns the part of a service that tags select into labels, as far as
// services carry these tags.
func (u older) subset(ref map[string]any, r *Report) {
	tags, ok := takeTags(ref, r)
	if !ok {
		tags = map[string]any{}
	}
	ref["kind"] = RefService
	if service, has := tags[LabelService]; has && ref["name"] == nil {
		ref["name"] = service
	}
	u.service(ref, r)
	labels, _ := ref["labels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
	}
	for _, name := range sortedKeys(tags) {
		switch name {
		case LabelService:
		case LabelZone:
			labels[name] = tags[name]
		default:
			r.Key("tags", name).Add("cannot tell parts of a service apart; write a MeshService whose selector selects them and use kind MeshService with its labels")
		}
	}
	if len(labels) > 0 {
		ref["labels"] = labels
	} else if ok {
		r.At("tags").Add("must name a service with %s or a zone with %s", LabelService, LabelZone)
		ref["labels"] = map[string]any{LabelDisplayName: "unknown"} // it is judged already
	}
}

// to upgrades the reference to a destination.
func (u older) to(ref map[string]any, r *Report) {
	u.sameMesh(ref, r)
	switch ref["kind"] {
	case RefService:
		u.service(ref, r)
	case RefExternalService, RefMultiZoneService, RefHTTPRoute:
		u.labels(ref, r)
	case RefSubset, RefServiceSubset:
		u.subset(ref, r)
	case RefGateway:
		r.At("kind").Add("builtin gateways are no longer supported; nothing in the mesh can call one")
		clear(ref)
		ref["kind"] = RefMesh
	}
}

// backends upgrades every backendRef and backendRefs below v, wherever they are.
func (u older) backends(v any, r *Report) {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			u.backends(e, r.Index("", i))
		}
	case map[string]any:
		for _, name := range sortedKeys(v) {
			at := r.At(name)
			switch name {
			case "backendRef":
				if ref, ok := v[name].(map[string]any); ok {
					u.backend(ref, at)
				}
			case "backendRefs":
				for i, ref := range objects(v[name]) {
					u.backend(ref, r.Index(name, i))
				}
			case "openTelemetry": // its backendRef is no service, its body free content
				conf, _ := v[name].(map[string]any)
				if ref, ok := conf["backendRef"].(map[string]any); ok {
					at := at.At("backendRef")
					u.sameMesh(ref, at)
					u.labels(ref, at)
				}
			case "value": // free content
			default:
				u.backends(v[name], at)
			}
		}
	}
}

// backend upgrades a reference to where traffic goes. One by the name of a
// service, which had one port then, needs no port.
func (u older) backend(ref map[string]any, r *Report) {
	u.sameMesh(ref, r)
	byName := ref["name"] != nil || ref["kind"] == RefServiceSubset
	switch ref["kind"] {
	case RefService:
		u.service(ref, r)
	case RefServiceSubset:
		u.subset(ref, r)
	default:
		u.labels(ref, r)
	}
	if byName && ref["kind"] == RefService && ref["port"] == nil && ref["sectionName"] == nil {
		understand(ref)["as"] = RefService
	}
}

// from turns the callers of an older policy into rules.
func (u older) from(list []any, r *Report) []any {
	rules := make([]any, len(list))
	for i, e := range list {
		at := r.Index("from", i)
		item, ok := e.(map[string]any)
		if !ok {
			at.Add("in body must be of type object: %q", typeName(e))
			rules[i] = map[string]any{}
			continue
		}
		rule := map[string]any{}
		for name, value := range item { // what is not known stays, and is named
			rule[name] = value
		}
		delete(rule, "targetRef")
		match := u.caller(item["targetRef"], at.At("targetRef"))
		if u.kind.Name == MeshTrafficPermissions.Name {
			u.action(rule, match, at.At("default"))
		} else if len(match) > 0 {
			rule["matches"] = []any{map[string]any{"caller": match}}
		}
		rules[i] = rule
	}
	return rules
}

// caller is the selector that a reference to callers means.
func (u older) caller(written any, r *Report) meant {
	ref, ok := written.(map[string]any)
	if !ok {
		r.Add("in body is required")
		return nil
	}
	u.sameMesh(ref, r)
	kind, _ := ref["kind"].(string)
	kinds := []string{RefMesh}
	if u.kind.Policy.Callers {
		kinds = append(kinds, RefSubset, RefService, RefServiceSubset)
	}
	if kind == "" {
		r.At("kind").Add("in body is required")
		return nil
	} else if !slices.Contains(kinds, kind) {
		r.At("kind").Add("value '%s' is not supported", kind)
		return nil
	}
	delete(ref, "kind")
	tags, ok := map[string]any{}, true
	if kind != RefMesh && kind != RefService {
		tags, ok = takeTags(ref, r)
	}
	if kind == RefService || kind == RefServiceSubset {
		if name := take(ref, "name"); name != "" {
			checkServiceTag(name, r)
			tags[LabelService] = name
		} else if ok {
			r.At("name").Add("must be set with kind %s", kind)
		}
	}
	for _, field := range sortedKeys(ref) {
		r.At(field).Add("must not be set with kind %s", kind)
	}
	if !ok || len(tags) == 0 {
		return meant{}
	}
	return meant{"tags": tags}
}

// action turns the action of an older permission into a list of callers.
func (u older) action(rule map[string]any, match meant, r *Report) {
	conf, _ := rule["default"].(map[string]any)
	lists := map[string]string{"Allow": "allow", "Deny": "deny", "AllowWithShadowDeny": "allowWithShadowDeny"}
	action, _ := conf["action"].(string)
	if lists[action] == "" {
		r.At("action").Add("in body should be one of [Allow Deny AllowWithShadowDeny]")
		action = "Deny"
	}
	if match == nil {
		match = meant{}
	}
	rule["default"] = map[string]any{lists[action]: []any{map[string]any{"caller": match}}}
	for _, name := range sortedKeys(conf) {
		if name != "action" {
			r.At(name).Add("must not be set together with action")
		}
	}
}

// upgradeOutbounds turns outbounds by tags into references to services.
func upgradeOutbounds(spec map[string]any, r *Report) {
	networking, _ := spec["networking"].(map[string]any)
	for i, out := range objects(networking["outbound"]) {
		if out["tags"] == nil || out["backendRef"] != nil {
			continue
		}
		at := r.At("networking").Index("outbound", i)
		tags, ok := out["tags"].(map[string]any)
		if ok && tags[LabelService] == nil {
			at.Key("tags", LabelService).Add("tag has to exist")
		}
		ref := map[string]any{"kind": RefServiceSubset, "tags": out["tags"]}
		delete(out, "tags")
		var u older
		u.backend(ref, at)
		delete(ref, "sectionName") // outbounds know ports by number
		if ok {
			name, _ := tags[LabelService].(string)
			if m := serviceTag.FindStringSubmatch(name); m != nil {
				ref["port"] = json.Number(m[3])
			}
		}
		out["backendRef"] = ref
	}
}
