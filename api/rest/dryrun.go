package rest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// dryRun reports whether a write asks what it would do. A value that is not
// understood is refused: the caller expects that nothing is written.
func dryRun(r *http.Request) (bool, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return false, badRequest("bad request: the query cannot be read: %v", err)
	}
	texts, asked := query["dryRun"]
	if !asked {
		return false, nil
	}
	yes, err := strconv.ParseBool(texts[0])
	if err != nil || len(texts) > 1 {
		return false, invalid(api.Fault{Field: "dryRun", Reason: "must be true or false", Rule: api.RuleEnum, Choices: []string{"true", "false"}})
	}
	return yes, nil
}

// tryPut answers what a PUT of the document would do: all that judges a write
// has its say, and nothing is written.
func (s *server) tryPut(w http.ResponseWriter, r *http.Request, k api.AnyKind, doc api.Document, mesh, name string) error {
	snap := s.DB.Snapshot()
	ops, _, created, err := s.planPut(r, snap, k, doc, mesh, name)
	if err != nil {
		return err
	}
	trial := client.Trial{Result: resultOf(ops, created)}
	row, _ := k.RowNamed(snap, mesh, name)
	if len(ops) > 0 {
		row = s.wouldBe(k, ops[len(ops)-1])
	}
	if trial.Document, err = s.itemFor(r, snap, k, row); err != nil {
		return err
	}
	trial.Warnings = warningsOf(snap, k, row)
	WriteJSON(w, http.StatusOK, trial)
	return nil
}

// wouldBe is the row that the write makes.
func (s *server) wouldBe(k api.AnyKind, op store.Op) api.Row {
	r := op.Record
	m := api.Meta{ID: r.ID, Labels: r.Labels, Created: r.Created, Modified: r.Modified, Owner: r.Owner}
	m.Core = api.CoreName(k, &m)
	var judged api.Report // was empty when the write was planned
	return k.Decode(m, r.Spec, false, &judged)
}

// tryDelete answers what a DELETE would take away beside the row.
func (s *server) tryDelete(w http.ResponseWriter, r *http.Request, snap *db.Snapshot, k api.AnyKind, mesh, name string) error {
	ops, err := s.planDelete(r, snap, k, mesh, name)
	if err != nil {
		return err
	}
	trial := client.Trial{Result: client.Deleted, Also: len(ops) - 1}
	if row, ok := k.RowNamed(snap, mesh, name); ok {
		if trial.Document, err = s.itemFor(r, snap, k, row); err != nil {
			return err
		}
	}
	WriteJSON(w, http.StatusOK, trial)
	return nil
}

// itemFor is the document of a row for a caller who may write it; nil: who may
// not read it.
func (s *server) itemFor(r *http.Request, snap *db.Snapshot, k api.AnyKind, row api.Row) (json.RawMessage, error) {
	info := k.Info()
	if s.allow(r, s.grantFor(info, false), info.Name) != nil || !s.reads(r, snap, row) {
		return nil, nil
	}
	return s.item(snap, k, row)
}
