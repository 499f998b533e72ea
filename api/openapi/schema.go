// Package openapi publishes the model: JSON schema of every kind, custom
// resource definitions, and the reference of kinds.
//
// It owns how an [api.Shape] is said in the words of JSON schema and of
// Kubernetes. The REST API, the command line and cmd/gen call it. It reads no
// files, knows no kind by name, and holds nothing back: what a shape demands
// stands in its schema, and what only code demands ([api.Kind.Validate]) does not.
//
//	struct and tags ─▶ api.Shape ─┬▶ JSON schema ─▶ OpenAPI, editors
//	                              ├▶ CRD
//	                              └▶ reference, explain
//
// # Why
//
// One source: the Go struct of a spec. Published schemas that are written or
// generated beside it disagree with what is accepted sooner or later.
package openapi

import (
	"encoding/json"
	"fmt"

	"github.com/atoll-mesh/atoll/api"
)

// Draft is the dialect of the schemas, that of OpenAPI 3.1.
const Draft = "https://json-schema.org/draft/2020-12/schema"

// Schema is a JSON schema, or a part of one.
type Schema = map[string]any

// Patterns of the texts that have a form of their own.
const (
	goDuration    = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$|^0$`
	protoDuration = `^-?[0-9]+(\.[0-9]+)?s$`
)

// Of returns the schema of values of the shape.
func Of(s *api.Shape) Schema {
	out := Schema{}
	if s.Doc != "" {
		out["description"] = s.Doc
	}
	bounds(out, s)
	switch s.Format {
	case "duration":
		return with(out, Schema{"type": "string", "pattern": goDuration, "examples": []string{"10s"}})
	case "proto-duration":
		return with(out, Schema{"type": "string", "pattern": protoDuration, "examples": []string{"10s"}})
	case "int-or-string":
		return with(out, Schema{"type": []string{"integer", "string"}})
	case "uint64":
		return with(out, Schema{"type": []string{"integer", "string"}, "pattern": `^[0-9]+$`})
	case "byte":
		return with(out, Schema{"type": "string", "contentEncoding": "base64"})
	case "date-time":
		return with(out, Schema{"type": "string", "format": "date-time"})
	}
	switch s.Type {
	case "":
	case "object":
		object(out, s, Of)
	case "array":
		out["type"], out["items"] = "array", Of(s.Elem)
	default:
		out["type"] = s.Type
	}
	return out
}

func object(out Schema, s *api.Shape, of func(*api.Shape) Schema) {
	out["type"] = "object"
	if s.Fields == nil {
		if values := of(s.Elem); len(values) > 0 {
			out["additionalProperties"] = values
		}
		return
	}
	properties := Schema{}
	var required []string
	for _, f := range s.Fields {
		p := of(f.Shape)
		if f.Doc != "" {
			p["description"] = f.Doc
		}
		properties[f.Name] = p
		if f.Required {
			required = append(required, f.Name)
		}
	}
	out["properties"] = properties
	if required != nil {
		out["required"] = required
	}
}

// bounds adds what limits a value of any type.
func bounds(out Schema, s *api.Shape) {
	if s.Enum != nil {
		values := make([]any, len(s.Enum))
		for i, v := range s.Enum {
			values[i] = literal(s, v)
		}
		out["enum"] = values
	}
	if s.Default != "" {
		out["default"] = literal(s, s.Default)
	}
	if s.Pattern != "" {
		out["pattern"] = s.Pattern
	}
	if s.Type == "integer" || s.Type == "number" || s.Format == "int-or-string" {
		for word, n := range map[string]*float64{"minimum": s.Min, "maximum": s.Max, "exclusiveMinimum": s.Above} {
			if n != nil {
				out[word] = *n
			}
		}
	}
	for word, n := range map[string]*int{
		"minItems": s.MinItems, "maxItems": s.MaxItems, "minLength": s.MinLen, "maxLength": s.MaxLen,
	} {
		if n != nil {
			out[word] = *n
		}
	}
}

// literal is a value of the shape, from the text of its tag.
func literal(s *api.Shape, text string) any {
	switch s.Type {
	case "integer":
		return json.Number(text)
	case "boolean":
		return text == "true"
	}
	return text
}

func with(out, more Schema) Schema {
	for word, v := range more {
		if _, set := out[word]; !set {
			out[word] = v
		}
	}
	return out
}

// Written is the shape of a kind's whole documents, as they are written.
func Written(k api.AnyKind) *api.Shape {
	i := k.Info()
	one, most := 1, 253
	text := &api.Shape{Type: "string"}
	fields := []api.Field{{Name: "type", Doc: "The kind.", Required: true, Shape: &api.Shape{Type: "string", Enum: []string{i.Name}}}}
	where := ""
	if i.Scope == api.MeshScope {
		where = " in its mesh"
		fields = append(fields, api.Field{Name: "mesh", Doc: "The mesh that the document is in.", Shape: &api.Shape{Type: "string", MaxLen: &most}})
	}
	fields = append(fields,
		api.Field{Name: "name", Doc: "Unique among the documents of the kind" + where + ".", Required: true, Shape: &api.Shape{Type: "string", MinLen: &one, MaxLen: &most}},
		api.Field{Name: "labels", Doc: "What policies and services select by.", Shape: &api.Shape{Type: "object", Elem: text}},
	)
	if i.Flat {
		fields = append(fields, k.Shape().Fields...)
	} else {
		fields = append(fields, api.Field{Name: "spec", Required: true, Shape: k.Shape()})
	}
	return &api.Shape{Doc: k.Shape().Doc, Type: "object", Fields: fields}
}

// Inner is the shape of what is in lists and maps of the shape: where fields are.
func Inner(s *api.Shape) *api.Shape {
	for s.Type == "array" || s.Type == "object" && s.Fields == nil {
		s = s.Elem
	}
	return s
}

// Document returns the schema of a kind's documents. What a control plane adds
// to its answers is marked read-only.
func Document(k api.AnyKind) Schema {
	i := k.Info()
	out := Of(Written(k))
	out["title"] = i.Name
	properties := out["properties"].(Schema)
	also := func(name, doc string, s Schema) {
		s["readOnly"], s["description"] = true, doc
		properties[name] = s
	}
	also("creationTime", "When it was first written.", Schema{"type": "string", "format": "date-time"})
	also("modificationTime", "When it was last written.", Schema{"type": "string", "format": "date-time"})
	if i.Short != "" {
		also("kri", "The name of the document in every zone.", Schema{"type": "string"})
	}
	if !i.Flat {
		also("status", "What control planes found out.", Schema{"type": "object"})
	}
	return out
}

// Standalone is a Document schema that stands in a file of its own, for editors.
func Standalone(k api.AnyKind) Schema {
	s := Document(k)
	s["$schema"] = Draft
	s["$id"] = fmt.Sprintf("https://atoll-mesh.github.io/schema/%s.json", k.Info().Name)
	return s
}
