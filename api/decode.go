package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Decode turns the written spec into a row; see [AnyKind].
func (k *Kind[S]) Decode(m Meta, spec json.RawMessage, strict bool, r *Report) Row {
	m.Kind = k.Name
	o := &Object[S]{Meta: m, Written: Compact(spec)}
	at := r
	if !k.Flat {
		at = r.At("spec")
	}
	before := len(r.Faults())
	tree, err := readTree(spec)
	if err != nil {
		at.Add("must be an object: %v", err)
		return o
	}
	if k.upgrade(m.Mesh, tree, at) {
		defer r.rename(before, at.At("rules").Path(), at.At("from").Path())
	}
	meaning := &Report{up: at}
	for _, path := range checkShape(k.shape, tree, strict, k.Flat, at, meaning) {
		top := r.top()
		top.unknown = append(top.unknown, strings.TrimPrefix(path, at.Path()+"."))
	}
	if len(r.Faults()) == before { // meaning is judged on what has the right shape
		k.read(o, tree, meaning)
	}
	at.join(meaning, k.Place)
	return o
}

// read fills the row with what the tree says.
func (k *Kind[S]) read(o *Object[S], tree map[string]any, r *Report) {
	body, err := json.Marshal(tree)
	if err == nil {
		err = json.Unmarshal(body, &o.Spec)
	}
	if err != nil {
		r.Add("%v", err)
		return
	}
	if k.Default != nil {
		k.Default(&o.Spec)
	}
	if k.Label != nil {
		o.Labels = k.Label(&o.Meta, &o.Spec)
	}
	if k.Validate != nil {
		k.Validate(&o.Meta, &o.Spec, r)
	}
}

// upgrade turns older forms into the newer; from as of [upgradePolicy].
func (k *Kind[S]) upgrade(mesh string, tree map[string]any, r *Report) (from bool) {
	if k.Policy != nil {
		from = upgradePolicy(k.Facts, mesh, tree, r)
	}
	if k.Upgrade != nil {
		k.Upgrade(tree, r)
	}
	return from
}

// readTree keeps numbers as they are written, so that no digit is lost.
func readTree(spec json.RawMessage) (map[string]any, error) {
	tree := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(orEmpty(spec)))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		return nil, err
	}
	if tree == nil { // null
		tree = map[string]any{}
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("there is more after the object")
	}
	return tree, nil
}

func orEmpty(spec json.RawMessage) json.RawMessage {
	if len(spec) == 0 {
		return json.RawMessage("{}")
	}
	return spec
}

// Compact is the form in which rows keep a spec: without spaces. What has none is
// returned as it is, so that a row, its record and whoever wrote it share the text.
func Compact(spec json.RawMessage) json.RawMessage {
	spec = orEmpty(spec)
	var b bytes.Buffer
	if json.Compact(&b, spec) != nil || b.Len() == len(spec) {
		return spec
	}
	return b.Bytes()
}

// Document is a resource as people write and read it, in either shape: flat
// kinds keep their spec fields beside type and name, the others under spec.
type Document struct {
	Type   string
	Mesh   string
	Name   string
	Labels map[string]string
	Spec   json.RawMessage
}

// metaFields are the fields of a document that are not spec in the flat shape.
// Those that a control plane computes are accepted and ignored, because a
// document that was read may be written back.
var metaFields = map[string]bool{
	"type": true, "mesh": true, "name": true, "labels": true, "spec": false,
	"creationTime": true, "modificationTime": true, "kri": true, "snis": true, "status": true,
}

// ParseDocument splits a JSON document. Faults are those of the envelope; the
// spec is judged by the kind (see [AnyKind]). The kind is nil when `type` is
// missing or names no kind.
func ParseDocument(body []byte, r *Report) (Document, AnyKind) {
	d, fields, ok := envelope(body, r)
	if !ok {
		return d, nil
	}
	if d.Type == "" {
		r.At("type").Add("cannot be empty")
		return d, nil
	}
	k, ok := ByName(d.Type)
	if use, removed := Replacement(d.Type); !ok && removed {
		r.At("type").Add("kind %q is no longer supported; use %s", d.Type, use)
		return d, nil
	} else if !ok {
		r.At("type").Misnamed(d.Type, kindNames(), "unknown kind %q", d.Type)
		return d, nil
	}
	d.split(k, fields, r)
	return d, k
}

// ParseDocumentOf is ParseDocument where the kind is known from elsewhere, and
// `type` only has to say the same. ok is false when the spec cannot be judged:
// it is missing, or the document is of another kind.
func ParseDocumentOf(k AnyKind, body []byte, r *Report) (d Document, ok bool) {
	d, fields, ok := envelope(body, r)
	if !ok {
		return d, false
	}
	switch name := k.Info().Name; {
	case d.Type == name:
	case k.Info().Flat:
		r.At("type").Add("type from the URL has to be the same as in body")
	case d.Type == "":
		r.Add(".type in body is required")
	default:
		r.OneOf(d.Type, []string{name}, "type in body should be one of [%s]", name)
	}
	if _, other := ByName(d.Type); other && d.Type != k.Info().Name {
		return d, false
	}
	d.split(k, fields, r)
	return d, k.Info().Flat || d.Spec != nil
}

// maxDepth is how deep a document may be nested.
const maxDepth = 64

// CheckJSON refuses what is no JSON, or too deep to be worth walking.
func CheckJSON(body []byte) error {
	depth, text := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case text && c == '\\':
			i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return fmt.Errorf("nested deeper than %d levels", maxDepth)
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	var whole json.RawMessage
	return json.Unmarshal(body, &whole)
}

// envelope reads the fields that all kinds have.
func envelope(body []byte, r *Report) (d Document, fields map[string]json.RawMessage, ok bool) {
	if err := json.Unmarshal(body, &fields); err != nil {
		r.Add("must be a JSON object: %v", err)
		return d, nil, false
	}
	read := func(name string, into any) {
		if raw, ok := fields[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				r.At(name).Add("must be a %s", map[bool]string{true: "map of strings", false: "string"}[name == "labels"])
			}
		}
	}
	read("type", &d.Type)
	read("mesh", &d.Mesh)
	read("name", &d.Name)
	read("labels", &d.Labels)
	return d, fields, true
}

// split finds the spec among the fields.
func (d *Document) split(k AnyKind, fields map[string]json.RawMessage, r *Report) {
	if k.Info().Flat {
		for name := range metaFields {
			if metaFields[name] {
				delete(fields, name)
			}
		}
		d.Spec, _ = json.Marshal(fields) // raw messages always encode
		return
	}
	spec, ok := fields["spec"]
	if !ok || string(spec) == "null" {
		r.Add(".spec in body is required")
		spec = nil
	}
	d.Spec = spec
	for _, name := range sortedKeys(fields) {
		if _, known := metaFields[name]; !known {
			r.At(name).Misnamed(name, []string{"type", "mesh", "name", "labels", "spec"}, "unknown field")
		}
	}
}

// CheckMeta notes the faults of name, mesh and labels of a document that is
// written at this control plane.
func CheckMeta(k AnyKind, d Document, site Site, r *Report) {
	if reason := CheckName(d.Name); reason != "" {
		r.At("name").Add("%s", reason)
	} else if k.Info().DNSName {
		if reason := CheckDNSLabel(d.Name); reason != "" {
			r.At("name").Add("%s", reason)
		}
	}
	if site.Federated && len(site.Zone+"."+d.Name) >= 253 {
		r.At("name").Add("the length of the name must be shorter")
	}
	if k.Info().Scope == MeshScope {
		if reason := CheckMeshName(d.Mesh); reason != "" {
			r.At("mesh").Add("%s", reason)
		}
	}
	checkLabels(k, d, site, r)
}

func checkLabels(k AnyKind, d Document, site Site, r *Report) {
	for _, name := range sortedKeys(d.Labels) {
		value := d.Labels[name]
		at := r.Key("labels", name)
		if reason := checkLabelName(name); reason != "" {
			at.Add("%s", reason)
		}
		if reason := checkLabelValue(value); reason != "" {
			at.Add("%s", reason)
		}
	}
	if workload, ok := d.Labels[LabelWorkload]; ok && k.Info().Name == Dataplanes.Name {
		if reason := CheckDNSLabel(workload); reason != "" { // a Workload is made of it
			r.Key("labels", LabelWorkload).Add("%s", reason)
		}
	}
	origin, has := d.Labels[LabelOrigin]
	at := r.Key("labels", LabelOrigin)
	switch {
	case has && origin != OriginGlobal && origin != OriginZone:
		at.Add("unknown resource origin %q", origin)
	case has && site.IsGlobal() && origin != OriginGlobal:
		at.Add("the origin label must be set to 'global'")
	case site.Federated && !k.Info().Flat && origin != OriginZone:
		at.Add("the origin label must be set to 'zone'")
	}
	if z, ok := d.Labels[LabelZone]; ok && z != site.Zone && origin != OriginGlobal {
		if site.IsGlobal() {
			r.Key("labels", LabelZone).Add("must not be set at global: it says in which zone a resource was written")
		} else {
			r.Key("labels", LabelZone).Add("%s label should have %s value", LabelZone, site.Zone)
		}
	}
	if m, ok := d.Labels[LabelMesh]; ok && k.Info().Scope == MeshScope && m != d.Mesh && origin != OriginGlobal {
		r.Key("labels", LabelMesh).Add("%s label must not differ from mesh set on resource", LabelMesh)
	}
	if exit, ok := d.Labels[LabelExit]; ok && exit != ExitDirect && k.Info().Name == MeshExternalServices.Name {
		r.Key("labels", LabelExit).Add("must be %q, or absent: then it is called through a zone egress", ExitDirect)
	}
	if role, ok := d.Labels[LabelPolicyRole]; ok && k.Info().Policy != nil && role != "system" {
		r.Key("labels", LabelPolicyRole).Add("%s label should have system value, got %s", LabelPolicyRole, role)
	}
}

// Strings of label rules follow Kubernetes: qualified names and label values.
func checkLabelName(name string) string {
	prefix, rest, found := cutLast(name, '/')
	if found && (len(prefix) > 253 || !dnsSubdomain.MatchString(prefix)) {
		return fmt.Sprintf("prefix part %q must be a lowercase RFC 1123 subdomain", prefix)
	}
	if rest == "" || len(rest) > 63 || !labelChars.MatchString(rest) {
		return "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, at most 63"
	}
	return ""
}

func checkLabelValue(value string) string {
	if len(value) > 63 {
		return "must be no more than 63 characters"
	}
	if value != "" && !labelChars.MatchString(value) {
		return "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
	}
	return ""
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == sep {
			return s[:i], s[i+1:], true
		}
	}
	return "", s, false
}
