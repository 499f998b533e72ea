package openapi

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// OfType returns the schema of what encoding/json makes of a Go type: answers
// that are no kind's document. What the type leaves open stays open.
func OfType(t reflect.Type) Schema {
	switch t {
	case reflect.TypeFor[time.Time]():
		return Schema{"type": "string", "format": "date-time"}
	case reflect.TypeFor[json.RawMessage]():
		return Schema{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return OfType(t.Elem())
	case reflect.Struct:
		properties, required := Schema{}, []string{}
		structFields(t, properties, &required)
		out := Schema{"type": "object", "properties": properties}
		if len(required) > 0 {
			out["required"] = required
		}
		return out
	case reflect.Slice:
		return Schema{"type": "array", "items": OfType(t.Elem())}
	case reflect.Map:
		return Schema{"type": "object", "additionalProperties": OfType(t.Elem())}
	case reflect.String:
		return Schema{"type": "string"}
	case reflect.Bool:
		return Schema{"type": "boolean"}
	case reflect.Float64, reflect.Float32:
		return Schema{"type": "number"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return Schema{"type": "integer"}
	}
	return Schema{}
}

func structFields(t reflect.Type, properties Schema, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported() && !f.Anonymous:
		case f.Anonymous && name == "":
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			structFields(inner, properties, required)
		default:
			if name == "" {
				name = f.Name
			}
			properties[name] = OfType(f.Type)
			if !strings.Contains(options, "omit") && f.Type.Kind() != reflect.Pointer && f.Type.Kind() != reflect.Slice {
				*required = append(*required, name)
			}
		}
	}
}
