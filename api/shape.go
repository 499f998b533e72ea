package api

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Shape is what a JSON value may look like: made once of the Go struct of a
// spec and its tags. It is the one source of validation, of the published
// schemas and of the reference. The tags of a field are
//
//	req:"true"           must be there
//	enum:"A,B"           one of these; enumFrom:"1" is the protobuf number of the first (0)
//	min, max             bounds of a number, a length of time or an int-or-string
//	above                what a number or a length of time must be greater than
//	range:"0,100"        min and max as one rule, for a number or an int-or-string
//	minItems, maxItems   bounds of a list
//	minLen, maxLen       bounds of a text
//	pattern              a regular expression for text
//	default              what absence means
//	kinds:"A,B"          enum of the `kind` inside a reference
//	items:"A,B"          enum of the elements of a list
//	when:"A"             a member of a union: there if, and only if, the field type is A
//	union:"backend"      on a blank field: what messages call the union
//	gone:"a,b" use:"c"   on a blank field: older names, refused with the replacement
//	own:"true"           of this project alone: the existing ecosystem would drop it without a word
//	meant:"true"         set by an upgrade only; to people there is no such field
//	idle:"…"             accepted and does nothing: what writers are told, see [Warnings]
//
// What breaks above, range or when has the right shape but no meaning: it does
// not keep the rest from being judged.
type Shape struct {
	// Doc describes an object with fixed fields: the comment of its struct.
	Doc string
	// Type is object, array, string, integer, number, boolean, or empty: anything.
	Type string
	// Format says more of a text: duration, proto-duration, date-time, byte, int-or-string, uint64.
	Format string
	// Fields of an object with fixed fields, in the order of the struct.
	Fields []Field
	// Elem is the shape of list elements, or of the values of an object without
	// fixed fields.
	Elem *Shape
	// Gone maps older names of fields to what replaces them.
	Gone map[string]string

	Enum               []string
	Default            string
	Pattern            string
	Min, Max, Above    *float64 // seconds, for a length of time
	MinItems, MaxItems *int
	MinLen, MaxLen     *int

	pattern  *regexp.Regexp
	enumFrom int
	union    string
	meant    []string // fields that only an upgrade sets
	ranged   bool
	fits     func(float64) bool // into the Go type
	leaf     reflect.Type       // has its own JSON form
}

// Field is a field of an object. Doc is its comment, or empty.
type Field struct {
	Name, Doc string
	Required  bool
	// When is the value of the field type that this member belongs to.
	When string
	// Idle says why the field does nothing, and what does; empty: it acts.
	Idle string
	// Own fields are of this project alone.
	Own   bool
	Shape *Shape
}

func (s *Shape) field(name string) *Field {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return &s.Fields[i]
		}
	}
	return nil
}

func (s *Shape) names() []string {
	names := make([]string, len(s.Fields))
	for i, f := range s.Fields {
		names[i] = f.Name
	}
	return names
}

// leafOf names the types that have a JSON form of their own.
func leafOf(t reflect.Type) (format string, ok bool) {
	switch t {
	case reflect.TypeFor[Duration]():
		return "duration", true
	case reflect.TypeFor[ProtoDuration]():
		return "proto-duration", true
	case reflect.TypeFor[IntOrString]():
		return "int-or-string", true
	case reflect.TypeFor[Uint64]():
		return "uint64", true
	case reflect.TypeFor[time.Time]():
		return "date-time", true
	case reflect.TypeFor[[]byte]():
		return "byte", true
	}
	return "", false
}

// exact is the largest magnitude up to which JSON numbers are exact everywhere.
const exact = 1 << 53

func shapeOf(t reflect.Type) *Shape {
	if t.Kind() == reflect.Pointer {
		return shapeOf(t.Elem())
	}
	if format, ok := leafOf(t); ok {
		return &Shape{Type: "string", Format: format, leaf: t}
	}
	if t == reflect.TypeFor[json.RawMessage]() {
		return &Shape{Type: "object", Elem: &Shape{}}
	}
	bounded := func(lo, hi float64) *Shape {
		return &Shape{Type: "integer", Min: &lo, Max: &hi, fits: func(n float64) bool { return lo <= n && n <= hi }}
	}
	switch t.Kind() {
	case reflect.Struct:
		return structShape(t)
	case reflect.Slice:
		return &Shape{Type: "array", Elem: shapeOf(t.Elem())}
	case reflect.Map:
		return &Shape{Type: "object", Elem: shapeOf(t.Elem())}
	case reflect.String:
		return &Shape{Type: "string"}
	case reflect.Bool:
		return &Shape{Type: "boolean"}
	case reflect.Int32:
		return bounded(math.MinInt32, math.MaxInt32)
	case reflect.Int:
		return bounded(-exact, exact)
	case reflect.Uint64:
		return bounded(0, exact)
	case reflect.Uint, reflect.Uint32:
		return bounded(0, math.MaxUint32)
	case reflect.Interface:
		return &Shape{}
	}
	panic("api: no JSON shape for " + t.String()) // a spec is made of the types above
}

func structShape(t reflect.Type) *Shape {
	of, _, _ := strings.Cut(t.Name(), "[") // comments know no type parameters
	s := &Shape{Doc: docs[of], Type: "object", Fields: []Field{}, Gone: map[string]string{}}
	for i := range t.NumField() {
		f := t.Field(i)
		if old, ok := f.Tag.Lookup("gone"); ok {
			for name := range strings.SplitSeq(old, ",") {
				s.Gone[name] = f.Tag.Get("use")
			}
			continue
		}
		if f.Name == "_" {
			s.union = f.Tag.Get("union")
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Tag.Get("meant") == "true" {
			s.meant = append(s.meant, name)
			continue
		}
		s.Fields = append(s.Fields, Field{
			Name: name, Doc: docs[of+"."+f.Name], Required: f.Tag.Get("req") == "true", When: f.Tag.Get("when"), Own: f.Tag.Get("own") == "true",
			Idle:  f.Tag.Get("idle"),
			Shape: tagged(shapeOf(f.Type), f),
		})
	}
	return s
}

// tagged completes a fresh shape with the tags of the field that has it.
func tagged(s *Shape, f reflect.StructField) *Shape {
	number := func(text string, into **float64) {
		if d, err := time.ParseDuration(text); s.Format == "duration" && err == nil {
			v := d.Seconds()
			*into = &v
		} else if v, err := strconv.ParseFloat(text, 64); err == nil {
			*into = &v
		}
	}
	whole := func(tag string, into **int) {
		if v, err := strconv.Atoi(f.Tag.Get(tag)); err == nil {
			*into = &v
		}
	}
	list := func(tag string) []string {
		if v := f.Tag.Get(tag); v != "" {
			return strings.Split(v, ",")
		}
		return nil
	}
	number(f.Tag.Get("min"), &s.Min)
	number(f.Tag.Get("max"), &s.Max)
	number(f.Tag.Get("above"), &s.Above)
	if least, most, ok := strings.Cut(f.Tag.Get("range"), ","); ok {
		s.ranged = true
		number(least, &s.Min)
		number(most, &s.Max)
	}
	whole("minItems", &s.MinItems)
	whole("maxItems", &s.MaxItems)
	whole("minLen", &s.MinLen)
	whole("maxLen", &s.MaxLen)
	s.Enum, s.Default, s.Pattern = list("enum"), f.Tag.Get("default"), f.Tag.Get("pattern")
	s.enumFrom, _ = strconv.Atoi(f.Tag.Get("enumFrom"))
	if s.Pattern != "" {
		s.pattern = regexp.MustCompile(s.Pattern)
	}
	if items := list("items"); items != nil {
		s.Elem.Enum = items
	}
	if kinds := list("kinds"); kinds != nil {
		s.field("kind").Shape.Enum = kinds
	}
	return s
}

// checker compares a JSON tree with a shape and notes every fault at once. It
// changes the tree, which is the caller's own copy: what is unknown or null
// goes, defaults come, and the looser forms that protobuf JSON allows (numbers
// as text, enums as numbers) become the ordinary ones.
type checker struct {
	strict, flat bool
	unknown      []string
	meaning      *Report
}

// checkShape notes faults of the shape in r, those of meaning in the other. It
// returns the paths in the tree that no field matches.
func checkShape(s *Shape, tree map[string]any, strict, flat bool, r, meaning *Report) (unknown []string) {
	c := checker{strict: strict, flat: flat, meaning: meaning}
	c.object(s, tree, r)
	return c.unknown
}

// means is the report of meaning at the place of r.
func (c *checker) means(r *Report) *Report { return &Report{root: c.meaning, up: r} }

func (c *checker) object(s *Shape, tree map[string]any, r *Report) {
	for _, name := range sortedKeys(tree) {
		if tree[name] == nil {
			delete(tree, name)
			continue
		}
		if s.Fields == nil {
			tree[name] = c.value(s.Elem, tree[name], r.Key("", name))
			continue
		}
		if _, ok := tree[name].(meant); s.field(name) != nil || ok && slices.Contains(s.meant, name) {
			continue
		}
		delete(tree, name) // else encoding/json would match it by another case
		at := r.At(name)
		c.unknown = append(c.unknown, at.Path())
		if !c.strict {
			continue
		}
		if use, old := s.Gone[name]; !old {
			at.Misnamed(name, s.names(), "unknown field")
		} else if use == "" {
			at.Add("is no longer supported and has no replacement")
		} else {
			at.Add("is no longer supported; use %s", use)
		}
	}
	for _, f := range s.Fields {
		v, ok := tree[f.Name]
		switch {
		case ok:
			tree[f.Name] = c.value(f.Shape, v, r.At(f.Name))
		case f.Required:
			r.At(f.Name).Add("in body is required")
		case f.Shape.Default != "" && f.Shape.Type == "integer":
			tree[f.Name] = json.Number(f.Shape.Default)
		case f.Shape.Default != "" && f.Shape.Type == "boolean":
			tree[f.Name] = f.Shape.Default == "true"
		case f.Shape.Default != "":
			tree[f.Name] = f.Shape.Default
		}
	}
	c.members(s, tree, r)
}

// members checks that a union has the member that its type names. One too many
// has no effect, so that it is a fault for people only, who may have meant it.
func (c *checker) members(s *Shape, tree map[string]any, r *Report) {
	kind, _ := tree["type"].(string)
	var names []string
	more := false
	for _, f := range s.Fields {
		if f.When == "" {
			continue
		}
		names = append(names, f.Name)
		_, set := tree[f.Name]
		switch {
		case f.When == kind && !set:
			c.means(r).At(f.Name).Add("must be defined")
		case f.When == kind || !set || !c.strict:
		case s.union == "":
			c.means(r).At(f.Name).Add("must not be defined with type %s", kind)
		default:
			more = true
		}
	}
	if more {
		c.means(r).Add("%s must have only one type defined: %s", s.union, strings.Join(names, ", "))
	}
}

func (c *checker) value(s *Shape, v any, r *Report) any {
	if s.leaf != nil {
		c.leaf(s, v, r)
		return v
	}
	wrong := func() any {
		r.Add("in body must be of type %s: %q", s.Type, typeName(v))
		return v
	}
	switch s.Type {
	case "object":
		tree, ok := v.(map[string]any)
		if !ok {
			return wrong()
		}
		c.object(s, tree, r)
	case "array":
		list, ok := v.([]any)
		if !ok {
			return wrong()
		}
		c.list(s, list, r)
	case "boolean":
		if _, ok := v.(bool); !ok {
			return wrong()
		}
	case "integer":
		if text, ok := v.(string); ok && c.flat {
			v = json.Number(text)
		}
		n, ok := v.(json.Number)
		whole, isWhole := wholeNumber(n)
		if !ok || !isWhole {
			return wrong()
		}
		c.number(s, whole, r)
		return json.Number(strconv.FormatFloat(whole, 'f', 0, 64))
	case "string":
		if n, ok := v.(json.Number); ok && c.flat && s.Enum != nil {
			if i, err := strconv.Atoi(string(n)); err == nil && i >= s.enumFrom && i-s.enumFrom < len(s.Enum) {
				v = s.Enum[i-s.enumFrom]
			}
		}
		text, ok := v.(string)
		if !ok {
			return wrong()
		}
		c.text(s, text, r)
	}
	return v
}

func (c *checker) list(s *Shape, list []any, r *Report) {
	if s.MinItems != nil && len(list) < *s.MinItems {
		r.Add("in body should have at least %d items", *s.MinItems)
	}
	if s.MaxItems != nil && len(list) > *s.MaxItems {
		r.Add("in body should have at most %d items", *s.MaxItems)
	}
	for i, v := range list {
		list[i] = c.value(s.Elem, v, r.Index("", i))
	}
}

func (c *checker) number(s *Shape, n float64, r *Report) {
	means := r
	if s.fits(n) { // else it cannot be decoded
		means = c.means(r)
	}
	switch {
	case s.Enum != nil:
		c.oneOf(s, strconv.FormatFloat(n, 'f', 0, 64), r)
	case s.outside(n):
		means.Add("must be in inclusive range [%v, %v]", *s.Min, *s.Max)
	case s.Above != nil && n <= *s.Above:
		means.Add("must be greater than %v", *s.Above)
	case s.Min != nil && n < *s.Min:
		r.Add("in body should be greater than or equal to %.0f", *s.Min)
	case s.Max != nil && n > *s.Max:
		r.Add("in body should be less than or equal to %.0f", *s.Max)
	}
}

func (s *Shape) outside(n float64) bool { return s.ranged && (n < *s.Min || n > *s.Max) }

func (c *checker) text(s *Shape, text string, r *Report) {
	length := len([]rune(text))
	switch {
	case s.Enum != nil:
		c.oneOf(s, text, r)
	case s.MinLen != nil && length < *s.MinLen:
		r.Add("in body should be at least %d chars long", *s.MinLen)
	case s.MaxLen != nil && length > *s.MaxLen:
		r.Add("in body should be at most %d chars long", *s.MaxLen)
	case s.pattern != nil && !s.pattern.MatchString(text):
		r.Add("in body should match '%s'", s.Pattern)
	}
}

func (c *checker) oneOf(s *Shape, text string, r *Report) {
	if !slices.Contains(s.Enum, text) {
		r.OneOf(text, s.Enum, "in body should be one of %v", s.Enum)
	}
}

func (c *checker) leaf(s *Shape, v any, r *Report) {
	value := reflect.New(s.leaf).Interface()
	body, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(body, value)
	}
	switch {
	case err == nil:
		c.limits(s, value, c.means(r))
	case s.Format == "date-time":
		r.Add("must be a time such as \"2006-01-02T15:04:05Z\"")
	case s.Format == "byte":
		r.Add("must be bytes in base64")
	default:
		r.Add("%v", err)
	}
}

// limits judges a leaf that has a size.
func (c *checker) limits(s *Shape, leaf any, r *Report) {
	switch v := leaf.(type) {
	case *Duration:
		switch n := v.Seconds(); {
		case s.Above != nil && n <= *s.Above && *s.Above == 0:
			r.Add("must be greater than zero when defined")
		case s.Above != nil && n <= *s.Above:
			r.Add("must be greater than: %v", time.Duration(*s.Above*float64(time.Second)))
		case s.Min != nil && n < *s.Min:
			r.Add("must not be negative when defined")
		}
	case *IntOrString:
		n, ok := v.number()
		switch {
		case s.Min == nil && s.Above == nil: // a name as good as a number
		case !ok:
			r.Add("string must be a valid number")
		case s.outside(n):
			r.Add("must be in inclusive range [%v, %v]", *s.Min, *s.Max)
		case s.Above != nil && n <= *s.Above:
			r.Add("must be greater than: %v", *s.Above)
		case s.Min != nil && n < *s.Min:
			r.Add("must be greater or equal then: %v", *s.Min)
		}
	}
}

func wholeNumber(n json.Number) (float64, bool) {
	v, err := strconv.ParseFloat(string(n), 64)
	return v, err == nil && v == math.Trunc(v) && math.Abs(v) <= exact
}

func typeName(v any) string {
	switch v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case nil:
		return "null"
	}
	return "number"
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Nearest returns the known name that a name resembles so much that it may
// have been meant, or "". Of two that it resembles equally neither is meant.
func Nearest(name string, known []string) string {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	best, distance := "", max(1, len(name)/3)+1
	for _, k := range known {
		if plain(k) == plain(name) {
			return k
		}
		switch d := edits(plain(name), plain(k)); {
		case d >= len(name):
		case d < distance:
			best, distance = k, d
		case d == distance:
			best = ""
		}
	}
	return best
}

func suggestion(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", name)
}

// didYouMean ends a message about a name that is not known with the known name
// it resembles, or with all known names if they are few, or with nothing.
func didYouMean(name string, known []string) string {
	switch best := Nearest(name, known); {
	case best != "":
		return suggestion(best)
	case len(known) > 0 && len(known) <= 8:
		return "; known here: " + strings.Join(known, ", ")
	}
	return ""
}

// edits is the number of characters to insert, delete, replace or swap with the
// next one; long names, which come from outside, are not compared.
func edits(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			replaced := row[j]
			if a[i] != b[j] {
				replaced++
			}
			next[j+1] = min(row[j+1]+1, next[j]+1, replaced)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
