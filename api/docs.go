package api

import (
	_ "embed"
	"encoding/json"
)

// docs.json holds the comments of the structs of this package and of their
// fields, by Type and Type.Field: what explanations and schemas say of a field
// is what its source says. Written by cmd/gen; a test there keeps it current.
//
//go:embed docs.json
var docsJSON []byte

var docs = func() (m map[string]string) {
	if err := json.Unmarshal(docsJSON, &m); err != nil {
		panic("api: docs.json: " + err.Error()) // it is part of the program
	}
	return m
}()

// Field returns the field of that name of an object with fixed fields.
func (s *Shape) Field(name string) (Field, bool) {
	if f := s.field(name); f != nil {
		return *f, true
	}
	return Field{}, false
}

// Suggest ends a message about a field that is not there: with the one that may
// be meant, with all if they are few, or with nothing.
func (s *Shape) Suggest(name string) string { return didYouMean(name, s.names()) }
