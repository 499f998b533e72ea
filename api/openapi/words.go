package openapi

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/atoll-mesh/atoll/api"
)

// Takes says what a field takes: its type, whether it must be there, its limits
// and its default.
func Takes(f api.Field) string {
	words := []string{TypeName(f.Shape)}
	if f.Required {
		words = append(words, "required")
	}
	if f.When != "" {
		words = append(words, "with type "+f.When)
	}
	return strings.Join(append(words, limits(f.Shape)...), "; ")
}

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

// limits says what limits values of the shape, each in a few words.
func limits(s *api.Shape) []string {
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
	unit := ""
	if s.Format == "duration" || s.Format == "proto-duration" {
		unit = "s"
	}
	number := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) + unit }
	if s.Enum == nil && !wide(s) {
		switch {
		case s.Above != nil && s.Max != nil:
			out = append(out, "more than "+number(*s.Above)+", at most "+number(*s.Max))
		case s.Above != nil:
			out = append(out, "more than "+number(*s.Above))
		case s.Min != nil && s.Max != nil:
			out = append(out, number(*s.Min)+" to "+number(*s.Max))
		case s.Min != nil:
			out = append(out, "at least "+number(*s.Min))
		case s.Max != nil:
			out = append(out, "at most "+number(*s.Max))
		}
	}
	between(s.MinItems, s.MaxItems, "items")
	between(s.MinLen, s.MaxLen, "characters")
	return out
}

// wide reports whether the bounds of a number are only those of its type.
func wide(s *api.Shape) bool {
	return s.Above == nil && s.Min != nil && s.Max != nil && *s.Max >= 1<<31-1 && (*s.Min == 0 || *s.Min <= -1<<31)
}
