package api

import (
	"fmt"
	"strings"
)

// Fault is one thing wrong with a document.
type Fault struct {
	// Field is the JSON path from the root of the document, such as
	// spec.to[0].targetRef.kind; empty for the document as a whole.
	Field string `json:"field"`
	// Reason says what is wrong and, where it can, what would be right.
	Reason string `json:"reason"`
	// Rule names the rule that was broken, where it is one of a schema: enum
	// for a value that is none of Choices, unknown for a field that is none.
	Rule string `json:"rule,omitempty"`
	// Choices are all that would be right, if they can be listed.
	Choices []string `json:"choices,omitempty"`
}

// Rules that a [Fault] may name.
const (
	RuleEnum    = "enum"
	RuleUnknown = "unknown"
)

func (f Fault) String() string {
	if f.Field == "" {
		return f.Reason
	}
	return f.Field + ": " + f.Reason
}

// Report collects every fault of a document. The zero value is ready to use.
// A sub-report made by At, Index or Key adds to its parent. It remembers only its
// step: most places have no fault, and need no text of their path.
type Report struct {
	root, up *Report
	step     string
	index    int
	indexed  bool // the step is that of an element of a list

	faults  []Fault
	unknown []string
}

func (r *Report) top() *Report {
	if r.root != nil {
		return r.root
	}
	return r
}

// At is the report of a place below this one; path is written as it continues.
func (r *Report) At(path string) *Report { return &Report{root: r.top(), up: r, step: path} }

// Index is the report of element i of a list field: At("to[0]").
func (r *Report) Index(field string, i int) *Report {
	return &Report{root: r.top(), up: r, step: field, index: i, indexed: true}
}

// Key is the report of a key of a map field: At(`labels["key"]`).
func (r *Report) Key(field, key string) *Report {
	return r.At(fmt.Sprintf("%s[%q]", field, key))
}

// Add notes a fault here.
func (r *Report) Add(format string, args ...any) {
	r.add(Fault{Reason: fmt.Sprintf(format, args...)})
}

func (r *Report) add(f Fault) {
	t := r.top()
	f.Field = r.Path()
	t.faults = append(t.faults, f)
}

// join adds the faults of another report, at the places that place gives them.
func (r *Report) join(other *Report, place func(string) string) {
	t := r.top()
	for _, f := range other.Faults() {
		if place != nil {
			f.Field = place(f.Field)
		}
		t.faults = append(t.faults, f)
	}
}

// OneOf notes that the value here is none of the choices, and which of them it
// resembles. The format says it in words; it does not need to list the choices.
func (r *Report) OneOf(value string, choices []string, format string, args ...any) {
	r.add(Fault{Reason: fmt.Sprintf(format, args...) + suggestion(Nearest(value, choices)), Rule: RuleEnum, Choices: choices})
}

// Misnamed notes that the name here, of a field or of a kind, is none of the
// choices: the one it resembles, or all if they are few.
func (r *Report) Misnamed(name string, choices []string, format string, args ...any) {
	r.add(Fault{Reason: fmt.Sprintf(format, args...) + didYouMean(name, choices), Rule: RuleUnknown, Choices: choices})
}

// Faults returns all that was noted, in order.
func (r *Report) Faults() []Fault { return r.top().faults }

// rename tells faults noted since the given number of another path than the one
// they were found under.
func (r *Report) rename(since int, old, written string) {
	for i, f := range r.Faults()[since:] {
		if rest, ok := strings.CutPrefix(f.Field, old); ok {
			r.Faults()[since+i].Field = written + rest
		}
	}
}

// Unknown lists the paths, from the spec, that a decoding that is not strict has
// met and no field matches.
func (r *Report) Unknown() []string { return r.top().unknown }

// Path is where this report stands.
func (r *Report) Path() string {
	if r.up == nil {
		return ""
	}
	step := r.step
	if r.indexed {
		step = fmt.Sprintf("%s[%d]", step, r.index)
	}
	path := r.up.Path()
	if path != "" && step != "" && step[0] != '[' {
		path += "."
	}
	return path + step
}

// Err returns nil when there is no fault, else an *Invalid.
func (r *Report) Err() error {
	if len(r.Faults()) == 0 {
		return nil
	}
	return &Invalid{Faults: r.Faults()}
}

// Invalid is the error of a document with faults.
type Invalid struct{ Faults []Fault }

func (e *Invalid) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "; ")
}
