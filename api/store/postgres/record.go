package postgres

import (
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/store"
)

const (
	idColumns     = "kind, mesh, zone, namespace, name"
	recordColumns = idColumns + ", revision, created, modified, source, owner, labels, spec"
)

// columns are the values of records, one array per column, so that any number of
// them is one statement.
type columns struct {
	kinds, meshes, zones, namespaces, names []string
	revisions                               []int64
	created, modified, sources, owners      []string
	labels                                  []*string
	specs                                   [][]byte
	deleted                                 []bool
}

func (c *columns) id(id api.ID) {
	c.kinds, c.meshes, c.zones = append(c.kinds, id.Kind), append(c.meshes, id.Mesh), append(c.zones, id.Zone)
	c.namespaces, c.names = append(c.namespaces, id.Namespace), append(c.names, id.Name)
}

func (c *columns) ids() []any { return []any{c.kinds, c.meshes, c.zones, c.namespaces, c.names} }

// batch adds what a commit changes.
func (c *columns) batch(b *store.Batch) {
	for i := range b.Puts {
		c.record(&b.Puts[i], b.Revision, false)
	}
	for _, id := range b.Deletes {
		c.record(&store.Record{ID: id}, b.Revision, true)
	}
}

func (c *columns) record(r *store.Record, at store.Revision, deleted bool) {
	c.id(r.ID)
	c.revisions = append(c.revisions, int64(at))
	c.created, c.modified = append(c.created, r.Created.Format(time.RFC3339Nano)), append(c.modified, r.Modified.Format(time.RFC3339Nano))
	c.sources, c.owners = append(c.sources, r.Source), append(c.owners, r.Owner)
	var labels *string
	if len(r.Labels) > 0 {
		text, _ := json.Marshal(r.Labels) // of strings: it cannot fail
		labels = new(string(text))
	}
	c.labels, c.specs, c.deleted = append(c.labels, labels), append(c.specs, r.Spec), append(c.deleted, deleted)
}

func (c *columns) all() []any {
	return append(c.ids(), c.revisions, c.created, c.modified, c.sources, c.owners, c.labels, c.specs, c.deleted)
}

// scanned is a record as it comes out of the database. Its columns are never
// NULL, except labels and spec.
type scanned struct {
	store.Record
	created, modified string
	labels, spec      []byte
}

// into are the targets of recordColumns.
func (s *scanned) into() []any {
	return []any{&s.Kind, &s.Mesh, &s.Zone, &s.Namespace, &s.Name, &s.Revision, &s.created, &s.modified, &s.Source, &s.Owner, &s.labels, &s.spec}
}

// record decodes what was scanned.
func (s *scanned) record(o *Options) (store.Record, error) {
	r := s.Record
	damaged := func(column string, err error) (store.Record, error) {
		return store.Record{}, &store.Corrupt{Path: o.String(), What: "the " + column + " of " + r.ID.String() + " cannot be read", Err: err}
	}
	var err error
	if r.Created, err = time.Parse(time.RFC3339Nano, s.created); err != nil {
		return damaged("created", err)
	}
	if r.Modified, err = time.Parse(time.RFC3339Nano, s.modified); err != nil {
		return damaged("modified", err)
	}
	if len(s.labels) > 0 {
		if err := json.Unmarshal(s.labels, &r.Labels); err != nil {
			return damaged("labels", err)
		}
	}
	if len(s.spec) > 0 {
		r.Spec = s.spec
	}
	return r, nil
}

// scan reads one record of the current row.
func scan(rows pgx.Rows, o *Options) (store.Record, error) {
	var s scanned
	if err := rows.Scan(s.into()...); err != nil {
		return store.Record{}, err
	}
	return s.record(o)
}
