package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// grantFor is who may read (or write) the kind.
func (s *server) grantFor(info api.Facts, write bool) auth.Grant {
	switch {
	case info.AdminOnly:
		return s.Access.AdminResources
	case write:
		return s.Access.WriteResources
	default:
		return s.Access.ReadResources
	}
}

func acceptsJSON(r *http.Request) error {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return nil
	}
	for part := range strings.SplitSeq(accept, ",") {
		switch t, _, _ := strings.Cut(part, ";"); strings.ToLower(strings.TrimSpace(t)) {
		case "*/*", "application/*", "application/json":
			return nil
		case "text/event-stream":
			if watches(r) {
				return nil
			}
		}
	}
	return &Problem{Status: http.StatusNotAcceptable}
}

func bodyIsJSON(r *http.Request) error {
	if r.Method != http.MethodPut && r.Method != http.MethodPost {
		return nil
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return &Problem{Status: http.StatusUnsupportedMediaType}
	}
	return nil
}

// MeshOf returns the mesh in the path, which must exist; empty for kinds
// outside of meshes.
func MeshOf(snap *db.Snapshot, r *http.Request) (string, error) {
	mesh := r.PathValue("mesh")
	if mesh == "" {
		return "", nil
	}
	if _, ok := api.Meshes.Named(snap, "", mesh); !ok {
		p := notFound("Failed to retrieve Mesh")
		if near := nearMesh(snap, mesh); near != "" {
			p.Faults = []api.Fault{{Field: "mesh", Reason: fmt.Sprintf("there is no mesh %q%s", mesh, near), Rule: api.RuleUnknown}}
		}
		return "", p
	}
	return mesh, nil
}

// nearMesh ends a message about a mesh that is not there with the one whose
// name it resembles, or with nothing.
func nearMesh(r db.Reader, name string) string {
	var known []string
	for m := range api.Meshes.All(r) {
		known = append(known, m.Core)
	}
	if near := api.Nearest(name, known); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return ""
}

func (s *server) get(k api.AnyKind) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.allow(r, s.grantFor(k.Info(), false), k.Info().Name); err != nil {
			return err
		}
		snap := s.DB.Snapshot()
		mesh, err := MeshOf(snap, r)
		if err != nil {
			return err
		}
		name := r.PathValue("name")
		if watches(r) {
			return s.watch(w, r, k, view{render: s.item}, func(row api.Row) bool {
				return row.Head().Mesh == mesh && row.Head().Core == name
			})
		}
		row, ok := k.RowNamed(snap, mesh, name)
		if !ok {
			return notFound("")
		}
		return s.show(w, r, snap, k, row)
	}
}

// show answers with one row, in the format of the query.
func (s *server) show(w http.ResponseWriter, r *http.Request, snap *db.Snapshot, k api.AnyKind, row api.Row) error {
	if err := s.mayRow(r, snap, api.ActionRead, row); err != nil {
		return err
	}
	var (
		body json.RawMessage
		err  error
	)
	switch r.URL.Query().Get("format") {
	case "", "universal":
		body, err = s.item(snap, k, row)
	case "k8s", "kubernetes":
		body, err = s.kubernetes(snap, k, row, r.URL.Query().Get("namespace"))
	default:
		return invalid(api.Fault{
			Reason: `"format" must be one of ["k8s", "kubernetes", "universal"]`,
			Rule:   api.RuleEnum, Choices: []string{"k8s", "kubernetes", "universal"},
		})
	}
	if err != nil {
		return err
	}
	s.stamp(w, k, snap)
	WriteJSON(w, http.StatusOK, body)
	return nil
}

// readBody returns the JSON body of a write.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, err
		}
		return nil, badRequest("bad request: the body could not be read: %v", err)
	}
	return body, nil
}

// readOnly says why the kind cannot be written here, or nil.
func (s *server) readOnly(info api.Facts) error {
	global := s.Site.IsGlobal()
	switch {
	case info.ReadOnly, s.ReadOnly, global && info.ZoneOnly, !global && s.Site.Federated && !info.ZoneWritable():
	default:
		return nil
	}
	detail := "On zone control plane you can only modify zone resources with 'kumactl apply' or via the HTTP API. Use the global control plane for the others.\n"
	if global {
		detail = "On global control plane you can not modify dataplane resources with 'kumactl apply' or via the HTTP API. Use a zone control plane for them.\n"
	}
	return &Problem{Status: http.StatusMethodNotAllowed, Title: "Method not allowed", Detail: detail}
}

// document reads and judges the document of a PUT: every fault at once.
func (s *server) document(k api.AnyKind, body []byte, mesh, name string) (api.Document, error) {
	info := k.Info()
	if err := api.CheckJSON(body); err != nil {
		return api.Document{}, badRequest("invalid %s object: %q", info.Name, err.Error())
	}
	var report api.Report
	doc, same := api.ParseDocumentOf(k, body, &report)
	s.place(info, &doc, mesh, name, &report)
	api.CheckMeta(k, doc, s.Site, &report)
	if same {
		id := api.LocalID(k, mesh, "", name, s.Site)
		row := k.Decode(api.Meta{ID: id, Labels: doc.Labels}, doc.Spec, true, &report)
		if s.Judge != nil && report.Err() == nil {
			s.Judge(row, &report)
		}
	}
	return doc, report.Err()
}

// place compares name and mesh of the document with those of the path, which
// stand in for them where they are missing, so that no fault is told twice.
func (s *server) place(info api.Facts, doc *api.Document, mesh, name string, report *api.Report) {
	switch {
	case doc.Name == name:
	case doc.Name == "" && !info.Flat:
		report.Add(".name in body is required")
		doc.Name = name
	default:
		report.At("name").Add("name from the URL has to be the same as in body")
		doc.Name = cmp.Or(doc.Name, name)
	}
	if info.Scope == api.MeshScope && doc.Mesh != mesh {
		report.At("mesh").Add("mesh from the URL has to be the same as in body")
		doc.Mesh = cmp.Or(doc.Mesh, mesh)
	}
}

func (s *server) put(k api.AnyKind) handler {
	info := k.Info()
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.mayWrite(r, info); err != nil {
			return err
		}
		mesh, err := MeshOf(s.DB.Snapshot(), r)
		if err != nil {
			return err
		}
		name := r.PathValue("name")
		body, err := readBody(w, r)
		if err != nil {
			return err
		}
		doc, err := s.document(k, body, mesh, name)
		if err != nil {
			return err
		}
		if dry, err := dryRun(r); err != nil {
			return err
		} else if dry {
			return s.tryPut(w, r, k, doc, mesh, name)
		}
		var result string
		rev, err := s.write(r.Context(), func(snap *db.Snapshot) (ops []store.Op, same store.Revision, err error) {
			ops, same, created, err := s.planPut(r, snap, k, doc, mesh, name)
			result = resultOf(ops, created)
			return ops, same, err
		})
		if err != nil {
			return err
		}
		if err := s.undoWithoutMesh(r.Context(), k, mesh, name); err != nil {
			return err
		}
		status := http.StatusOK
		if result == client.Created {
			status = http.StatusCreated
		}
		w.Header().Set(ResultHeader, result)
		w.Header().Set(RevisionHeader, strconv.FormatUint(uint64(rev), 10))
		WriteJSON(w, status, warned{s.warnings(k, mesh, name)})
		return nil
	}
}

// resultOf names what the planned writes of a PUT do.
func resultOf(ops []store.Op, created bool) string {
	switch {
	case len(ops) == 0:
		return client.Unchanged
	case created:
		return client.Created
	}
	return client.Updated
}

type warned struct {
	Warnings []string `json:"warnings,omitempty"`
}

func (s *server) mayWrite(r *http.Request, info api.Facts) error {
	if err := s.allow(r, s.grantFor(info, true), info.Name); err != nil {
		return err
	}
	return s.readOnly(info)
}

// planPut says which rows a document changes, seen from the snapshot. No ops
// and no error: the row is so already, since revision same.
func (s *server) planPut(r *http.Request, snap *db.Snapshot, k api.AnyKind, doc api.Document, mesh, name string) (ops []store.Op, same store.Revision, created bool, err error) {
	now := s.Now().UTC()
	old, exists := k.RowNamed(snap, mesh, name)
	record := store.Record{Created: now, Modified: now}
	expect := store.Absent
	if exists {
		head := old.Head()
		if err := s.ours(head); err != nil {
			return nil, 0, false, err
		}
		record.ID, record.Created = head.ID, head.Created
		if doc.Labels[api.LabelManagedBy] == head.Owner {
			record.Owner = head.Owner // else the writer takes it over from the duty that made it
		}
		expect = store.At(store.Revision(head.Revision))
	} else {
		record.ID = api.LocalID(k, mesh, "", name, s.Site)
	}
	c, misunderstood := s.misunderstood(record.ID)
	if misunderstood {
		expect = store.At(c.Revision)
	}
	var report api.Report
	labels := api.ComputeLabels(k, record.ID, doc.Labels, s.Site)
	row := k.Decode(api.Meta{ID: record.ID, Labels: labels}, doc.Spec, true, &report)
	record.Labels, record.Spec = api.RoleLabels(k, row, s.SystemNamespace, &report), row.Raw()
	if err := report.Err(); err != nil {
		return nil, 0, false, err
	}
	action := api.ActionCreate
	if misunderstood {
		action = api.ActionUpdate
		if err := s.mayStored(r, snap, action, record.ID); err != nil {
			return nil, 0, false, err
		}
	}
	if exists {
		action = api.ActionUpdate
		if err := s.mayRow(r, snap, action, old); err != nil {
			return nil, 0, false, err
		}
	}
	if err := s.mayRow(r, snap, action, row); err != nil {
		return nil, 0, false, err
	}
	if exists {
		head := old.Head()
		if err := zoneKept(head.Labels, record.Labels); err != nil {
			return nil, 0, false, err
		}
		if !misunderstood && maps.Equal(head.Labels, record.Labels) && head.Owner == record.Owner && bytes.Equal(old.Raw(), row.Raw()) {
			return nil, store.Revision(head.Revision), false, nil
		}
	} else if err := s.needMesh(snap, k, mesh); err != nil {
		return nil, 0, false, err
	}
	op := store.Op{Record: record, Expect: expect}
	if exists || k.Info().Name != api.Meshes.Name {
		return []store.Op{op}, 0, !exists, nil
	}
	ops, err = s.withMesh(snap, row, now)
	// The Mesh comes last: where a batch is not atomic, a failed one is then
	// completed by writing the same document again.
	return append(ops, op), 0, true, err
}

// misunderstood finds what the store holds under the ID and this program could
// not act upon, so that the database has an older row, or none. It can be
// replaced and deleted like any other.
func (s *server) misunderstood(id api.ID) (store.Condition, bool) {
	c, ok := s.Feeder.Condition(id)
	return c, ok && c.Err != nil
}

// ours refuses the change of a row that another control plane wrote.
func (s *server) ours(head *api.Meta) error {
	if head.Local() {
		return nil
	}
	want := api.OriginZone
	if s.Site.IsGlobal() {
		want = api.OriginGlobal
	}
	return invalid(api.Fault{
		Field:  fmt.Sprintf("labels[%q]", api.LabelOrigin),
		Reason: fmt.Sprintf("the origin label must be set to '%s': the resource comes from %s and can be changed there only", want, head.Source),
	})
}

func zoneKept(was, is map[string]string) error {
	old, had := was[api.LabelZone]
	now, has := is[api.LabelZone]
	at := fmt.Sprintf("labels[%q]", api.LabelZone)
	switch {
	case had && !has:
		return invalid(api.Fault{Field: at, Reason: fmt.Sprintf("is immutable, cannot be removed (was %q)", old)})
	case had && old != now:
		return invalid(api.Fault{Field: at, Reason: fmt.Sprintf("is immutable, cannot be changed from %q to %q", old, now)})
	}
	return nil
}

func (s *server) needMesh(r db.Reader, k api.AnyKind, mesh string) error {
	if k.Info().Scope != api.MeshScope {
		return nil
	}
	if _, ok := api.Meshes.Named(r, "", mesh); ok {
		return nil
	}
	return &Problem{
		Status: http.StatusBadRequest, Detail: "Mesh is not found",
		Faults: []api.Fault{{Field: "mesh", Reason: fmt.Sprintf("mesh of name %s is not found%s", mesh, nearMesh(r, mesh))}},
	}
}

// writeTime is how long a write may take in all, less than a server has for an
// answer.
const writeTime = 20 * time.Second

// attempts is how often a write is planned anew after others were faster.
const attempts = 8

// write applies what plan makes of a snapshot, and plans again while other
// writes get in between. No ops: the answer is revision same.
func (s *server) write(ctx context.Context, plan func(*db.Snapshot) (ops []store.Op, same store.Revision, err error)) (store.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	for attempt := 1; ; attempt++ {
		snap := s.DB.Snapshot()
		ops, same, err := plan(snap)
		if err != nil || len(ops) == 0 {
			return same, err
		}
		rev, err := s.Feeder.Apply(ctx, ops)
		switch {
		case err == nil:
			return rev, nil
		case !moved(err) || attempt == attempts:
			return 0, storeError{err}
		}
		s.await(ctx, snap.Revision())
	}
}

// moved reports whether the write failed because another one was faster.
func moved(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound)
}

// overtaken is how long a write waits for the one that was faster to arrive.
const overtaken = 100 * time.Millisecond

// await returns when the database has moved past the revision, or soon.
func (s *server) await(ctx context.Context, seen db.Revision) {
	commit := make(chan struct{}, 1)
	stop := s.DB.OnCommit(func(db.Commit) {
		select {
		case commit <- struct{}{}:
		default:
		}
	})
	defer stop()
	if s.DB.Snapshot().Revision() != seen {
		return
	}
	timer := time.NewTimer(overtaken)
	defer timer.Stop()
	select {
	case <-commit:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// undoWithoutMesh takes back a write whose mesh was deleted meanwhile. The
// deletion looks for leftovers after it, as this looks for the mesh: whichever
// comes second sees the other.
func (s *server) undoWithoutMesh(ctx context.Context, k api.AnyKind, mesh, name string) error {
	snap := s.DB.Snapshot()
	gone := s.needMesh(snap, k, mesh)
	if gone == nil {
		return nil
	}
	if row, ok := k.RowNamed(snap, mesh, name); ok {
		_, err := s.Feeder.Apply(ctx, []store.Op{s.deletion(row)})
		if err != nil && !moved(err) {
			return storeError{err}
		}
	}
	return gone
}

func (s *server) deletion(row api.Row) store.Op {
	head := row.Head()
	revision := store.Revision(head.Revision)
	if c, ok := s.misunderstood(head.ID); ok {
		revision = c.Revision
	}
	return store.Op{Record: store.Record{ID: head.ID}, Delete: true, Expect: store.At(revision)}
}

func (s *server) delete(k api.AnyKind) handler {
	info := k.Info()
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.mayWrite(r, info); err != nil {
			return err
		}
		name := r.PathValue("name")
		mesh, err := MeshOf(s.DB.Snapshot(), r)
		if err != nil {
			return err
		}
		if dry, err := dryRun(r); err != nil {
			return err
		} else if dry {
			return s.tryDelete(w, r, s.DB.Snapshot(), k, mesh, name)
		}
		rev, err := s.write(r.Context(), func(snap *db.Snapshot) ([]store.Op, store.Revision, error) {
			ops, err := s.planDelete(r, snap, k, mesh, name)
			return ops, 0, err
		})
		if err != nil {
			return err
		}
		if info.Name == api.Meshes.Name {
			if err := s.deleteLeftovers(r.Context(), name); err != nil {
				return err
			}
		}
		w.Header().Set(RevisionHeader, strconv.FormatUint(uint64(rev), 10))
		WriteJSON(w, http.StatusOK, warned{})
		return nil
	}
}

// planDelete says which rows a deletion takes away, seen from the snapshot; that
// of the name comes last.
func (s *server) planDelete(r *http.Request, snap *db.Snapshot, k api.AnyKind, mesh, name string) ([]store.Op, error) {
	row, ok := k.RowNamed(snap, mesh, name)
	if !ok {
		id := api.LocalID(k, mesh, "", name, s.Site)
		if c, stored := s.misunderstood(id); stored {
			if err := s.mayStored(r, snap, api.ActionDelete, id); err != nil {
				return nil, err
			}
			return []store.Op{{Record: store.Record{ID: id}, Delete: true, Expect: store.At(c.Revision)}}, nil
		}
		return nil, notFound("")
	}
	if err := s.mayRow(r, snap, api.ActionDelete, row); err != nil {
		return nil, err
	}
	if _, misunderstood := s.misunderstood(row.Head().ID); misunderstood {
		if err := s.mayStored(r, snap, api.ActionDelete, row.Head().ID); err != nil {
			return nil, err
		}
	}
	if err := s.ours(row.Head()); err != nil {
		return nil, err
	}
	more, err := s.alsoDeleted(snap, row)
	return append(more, s.deletion(row)), err
}

// warnings are what should be known about a row that is valid.
func (s *server) warnings(k api.AnyKind, mesh, name string) []string {
	snap := s.DB.Snapshot()
	row, ok := k.RowNamed(snap, mesh, name)
	if !ok {
		return nil
	}
	return warningsOf(snap, k, row)
}

func warningsOf(r db.Reader, k api.AnyKind, row api.Row) []string {
	out := append(nameTaken(r, k, row), api.Warnings(k, row)...)
	for _, p := range portsOf(row) {
		if sni, ok := api.SNI(k, row.Head().ID, p.section); !ok {
			out = append(out, fmt.Sprintf("port %d cannot be reached over mTLS: its SNI %q is no valid host name", p.number, sni))
		}
	}
	slices.Sort(out)
	return out
}
