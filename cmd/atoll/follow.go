package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// follower prints the events of a watch. It remembers what was told, so that
// after a stream was lost only what differs is printed.
type follower struct {
	*printer
	kind  api.AnyKind
	names []string // empty: all
	has   map[string]string
	began bool
}

// Changes, as tables show them.
const (
	added    = "ADDED"
	modified = "MODIFIED"
	deleted  = "DELETED"
)

func (f *follower) tell(e client.Event) error {
	if f.tables() && !f.began {
		f.head(f.kind, "EVENT")
	}
	f.began = true
	var err error
	switch e.Type {
	case client.Put:
		err = f.put(e.Document)
	case client.Gone:
		err = f.gone(headOf(e.Document), e.Document)
	case client.Reset:
		err = f.reset(e.Documents)
	}
	if err != nil {
		return err
	}
	return f.grid.flush()
}

func (f *follower) wants(h resourceHead) bool {
	return len(f.names) == 0 || slices.Contains(f.names, h.Name)
}

func (f *follower) put(row json.RawMessage) error {
	h := headOf(row)
	before, known := f.has[h.key()]
	if !f.wants(h) || known && before == string(row) {
		return nil
	}
	f.has[h.key()] = string(row)
	change := added
	if known {
		change = modified
	}
	return f.print(change, row)
}

// gone prints the last that was known.
func (f *follower) gone(h resourceHead, row json.RawMessage) error {
	before, known := f.has[h.key()]
	if !known {
		return nil
	}
	delete(f.has, h.key())
	if f.tables() {
		row = json.RawMessage(before)
	}
	return f.print(deleted, row)
}

// reset compares all there is with what was told.
func (f *follower) reset(rows []json.RawMessage) error {
	now := map[string]bool{}
	for _, row := range rows {
		now[headOf(row).key()] = true
		if err := f.put(row); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.has)) {
		if now[key] {
			continue
		}
		before := json.RawMessage(f.has[key])
		if err := f.gone(headOf(before), before); err != nil {
			return err
		}
	}
	return nil
}

// print prints one change: a row, a document, or a line of JSON.
func (f *follower) print(change string, row json.RawMessage) error {
	switch {
	case f.tables():
		return f.line(f.kind, row, change)
	case f.format == "json":
		line, err := json.Marshal(struct {
			Event    string          `json:"event"`
			Document json.RawMessage `json:"document"`
		}{change, row})
		if err == nil {
			_, err = fmt.Fprintf(f.out, "%s\n", line)
		}
		return err
	}
	if _, err := fmt.Fprintf(f.out, "--- # %s\n", change); err != nil {
		return err
	}
	return f.document(row)
}
