package openapi

import (
	"fmt"
	"strings"

	"github.com/atoll-mesh/atoll/api"
)

// TypeName says in a word or two what values of the shape are: "list of
// objects", "duration", "integer".
func TypeName(s *api.Shape) string {
	switch s.Format {
	case "duration", "proto-duration":
		return "duration"
	case "int-or-string":
		return "integer or text"
	case "uint64":
		return "integer"
	case "date-time":
		return "time"
	case "byte":
		return "base64"
	}
	switch s.Type {
	case "":
		return "any"
	case "string":
		return "text"
	case "array":
		return "list of " + plural(TypeName(s.Elem))
	case "object":
		if s.Fields == nil {
			return "map to " + TypeName(s.Elem)
		}
	}
	return s.Type
}

func plural(name string) string {
	switch {
	case strings.HasPrefix(name, "list of"), strings.HasPrefix(name, "map to"), name == "any", name == "base64", strings.Contains(name, " "):
		return name
	}
	return name + "s"
}

// Limits says what limits values of the shape, each in a few words.
func Limits(s *api.Shape) []string {
	var out []string
	if s.Enum != nil {
		out = append(out, "one of "+strings.Join(s.Enum, ", "))
	}
	if s.Type == "array" && s.Elem.Enum != nil {
		out = append(out, "each one of "+strings.Join(s.Elem.Enum, ", "))
	}
	if s.Default != "" {
		out = append(out, "default "+s.Default)
	}
	between := func(lo, hi *int, what string) {
		switch {
		case lo != nil && hi != nil && *lo == *hi:
			out = append(out, fmt.Sprintf("%d %s", *lo, what))
		case lo != nil && hi != nil:
			out = append(out, fmt.Sprintf("%d to %d %s", *lo, *hi, what))
		case lo != nil:
			out = append(out, fmt.Sprintf("at least %d %s", *lo, what))
		case hi != nil:
			out = append(out, fmt.Sprintf("at most %d %s", *hi, what))
		}
	}
	if s.Enum == nil && !wide(s) {
		switch {
		case s.Min != nil && s.Max != nil:
			out = append(out, fmt.Sprintf("%.0f to %.0f", *s.Min, *s.Max))
		case s.Min != nil:
			out = append(out, fmt.Sprintf("at least %.0f", *s.Min))
		case s.Max != nil:
			out = append(out, fmt.Sprintf("at most %.0f", *s.Max))
		}
	}
	between(s.MinItems, s.MaxItems, "items")
	between(s.MinLen, s.MaxLen, "characters")
	return out
}

// wide reports whether the bounds of a number are only those of its type.
func wide(s *api.Shape) bool {
	return s.Min != nil && s.Max != nil && *s.Max >= 1<<31-1 && (*s.Min == 0 || *s.Min <= -1<<31)
}
