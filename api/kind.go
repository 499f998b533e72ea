package api

import (
	"encoding/json"
	"iter"
	"reflect"

	"github.com/atoll-mesh/atoll/api/db"
)

// Facts are what can be said of a kind without its Go type.
type Facts struct {
	// Name is the kind as in `type:`; Plural its REST path; Short its part in KRIs.
	Name, Plural, Short string
	// Alias is a second REST path, if there is one.
	Alias string
	Scope Scope
	Flow  Flow
	// Flat kinds have their spec fields beside `type` and `name`, and cross KDS
	// as protobuf; the others have `spec`, and cross as JSON.
	Flat bool
	// Unhashed kinds keep their name on sync.
	Unhashed bool
	// Memory kinds are not durable: what proxies and peers report.
	Memory bool
	// ReadOnly kinds are written by control planes only.
	ReadOnly bool
	// AdminOnly kinds may be read and written by administrators only.
	AdminOnly bool
	// Hidden kinds have no REST path.
	Hidden bool
	// ZoneOnly kinds may be written in zones but not at global; GlobalOnly the
	// other way round (a zone without global writes everything).
	ZoneOnly, GlobalOnly bool
	// Own kinds are of this project alone: they are sent only to control planes
	// that are known to be of it.
	Own bool
	// DNSName kinds have an RFC 1035 label as display name.
	DNSName bool
	// Policy is set for the policy kinds.
	Policy *PolicyInfo
	// Destination kinds are what proxies call: they have names and addresses.
	Destination bool
	// Kube says what the kind is on Kubernetes.
	Kube KubeForm
}

// KubeForm is what rows of a kind are on Kubernetes.
type KubeForm uint8

const (
	// KubeNamespaced is a custom resource in a namespace.
	KubeNamespaced KubeForm = iota
	// KubeCluster is a custom resource of the cluster.
	KubeCluster
	// KubeCore is an object of Kubernetes itself: a Secret or ConfigMap.
	KubeCore
	// KubeNone is not stored there.
	KubeNone
)

// PolicyInfo says which shape a policy has (contract: support matrix).
type PolicyInfo struct {
	To, Rules, Single bool
	// Callers: the older form `from` may select callers.
	Callers bool
}

// ZoneWritable reports whether zones may originate rows of the kind.
func (i Facts) ZoneWritable() bool { return !i.GlobalOnly && i.Name != "Mesh" }

// Kind is all that the system needs to know of a kind: adding one is a file
// that declares it and a line in [Kinds].
type Kind[S any] struct {
	Facts
	// Default fills what the user left out. It runs on the model, not on what
	// is given back.
	Default func(*S)
	// Upgrade turns older forms of the written spec (a generic JSON object,
	// changed in place) into the newer before it is decoded; nil: none.
	Upgrade func(spec map[string]any, r *Report)
	// ByRows are fields of older forms for which a control plane makes other rows,
	// which say the same to those who know the newer form only.
	ByRows []string
	// Label returns the labels of a row: those it was written with and those
	// that follow from its spec. It does not change its argument; nil: as written.
	Label func(m *Meta, s *S) map[string]string
	// Validate notes every fault of the spec; paths start at the spec.
	Validate func(m *Meta, s *S, r *Report)
	// Place says where a fault of meaning is reported, of where it is: the
	// existing ecosystem names another path for some, which its clients show.
	// nil: where it is.
	Place func(path string) string
	// Cross narrows Across: may this row be sent on to other zones?
	Cross func(Row) bool
	// Share lets a row that is entered use the parts of another, of the same
	// workload, that say the same: many say the same at length, and rows never
	// change; nil: nothing is shared.
	Share func(o, with *S)

	shape   *Shape
	table   *db.Table[*Object[S]]
	byMesh  *db.Index[*Object[S]]
	byName  *db.Index[*Object[S]]
	byLabel *db.Index[*Object[S]]
}

// newKind gives the kind its table in [Schema], with more indexes than all kinds have.
func newKind[S any](k Kind[S], more ...*db.Index[*Object[S]]) *Kind[S] {
	k.shape = shapeOf(reflect.TypeFor[S]())
	k.byMesh = db.NewIndex("mesh", func(o *Object[S]) []string { return []string{o.Mesh} })
	k.byName = db.NewIndex("name", func(o *Object[S]) []string { return []string{o.Mesh + "\x00" + o.Core} })
	k.byLabel = db.NewIndex("label", func(o *Object[S]) []string {
		keys := make([]string, 0, len(o.Labels))
		for name, value := range o.Labels {
			keys = append(keys, labelKey(o.Mesh, name, value))
		}
		return keys
	})
	k.table = db.NewTable(Schema, k.Name, func(o *Object[S]) string { return o.ID.Key() }, append(more, k.byMesh, k.byName, k.byLabel)...)
	return &k
}

func labelKey(mesh, name, value string) string { return mesh + "\x00" + name + "=" + value }

// Get returns the row of the ID.
func (k *Kind[S]) Get(r db.Reader, id ID) (*Object[S], bool) { return k.table.Get(r, id.Key()) }

// Named returns the row that this control plane's API calls name.
func (k *Kind[S]) Named(r db.Reader, mesh, name string) (*Object[S], bool) {
	for o := range k.byName.Of(r, mesh+"\x00"+name) {
		return o, true
	}
	return nil, false
}

// In lists the rows of a mesh, ordered by ID; mesh is empty for global kinds.
func (k *Kind[S]) In(r db.Reader, mesh string) iter.Seq[*Object[S]] { return k.byMesh.Of(r, mesh) }

// All lists all rows, ordered by ID.
func (k *Kind[S]) All(r db.Reader) iter.Seq[*Object[S]] { return k.table.All(r) }

// Count returns how many rows there are.
func (k *Kind[S]) Count(r db.Reader) int { return k.table.Len(r) }

// Labelled lists the rows of a mesh that carry all the labels, ordered by ID;
// no labels select every row. It depends on one label only: the one that says
// most, so that a change elsewhere in the mesh does not wake the reader.
func (k *Kind[S]) Labelled(r db.Reader, mesh string, labels map[string]string) iter.Seq[*Object[S]] {
	if len(labels) == 0 {
		return k.In(r, mesh)
	}
	name := mostSelective(labels)
	rows := k.byLabel.Of(r, labelKey(mesh, name, labels[name]))
	return func(yield func(*Object[S]) bool) {
		for o := range rows {
			if HasLabels(o.Labels, labels) && !yield(o) {
				return
			}
		}
	}
}

// mostSelective picks the label to look up by: first those that name one thing
// or one workload, then the user's own, last those that a whole zone carries.
func mostSelective(labels map[string]string) string {
	rank := func(name string) int {
		switch name {
		case LabelDisplayName:
			return 0
		case LabelWorkload:
			return 1
		case LabelMesh, LabelOrigin, LabelZone, LabelEnv:
			return 3
		}
		return 2
	}
	best := ""
	for name := range labels {
		if best == "" || rank(name) < rank(best) || rank(name) == rank(best) && name < best {
			best = name
		}
	}
	return best
}

// HasLabels reports whether have contains every pair of want.
func HasLabels(have, want map[string]string) bool {
	for name, value := range want {
		if got, ok := have[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// PutObject inserts or replaces a row. Only feeders may call it.
func (k *Kind[S]) PutObject(tx *db.Tx, o *Object[S]) {
	if k.Share != nil {
		for with := range k.byLabel.Of(tx, labelKey(o.Mesh, LabelWorkload, o.Labels[LabelWorkload])) {
			k.Share(&o.Spec, &with.Spec)
			break // the first stands for all
		}
	}
	k.table.Put(tx, o)
}

// Remove deletes the row of the ID, if there is one. Only feeders may call it.
func (k *Kind[S]) Remove(tx *db.Tx, id ID) bool { return k.table.Delete(tx, id.Key()) }

// New makes an object of a spec that the control plane itself wrote.
func (k *Kind[S]) New(m Meta, spec S) *Object[S] {
	m.Kind = k.Name
	raw, err := json.Marshal(spec)
	if err != nil {
		panic("api: spec of " + k.Name + " cannot be encoded: " + err.Error()) // specs are plain structs
	}
	return &Object[S]{Meta: m, Spec: spec, Written: raw}
}

// AnyKind is a kind without its Go type: what generic code (REST, sync, store)
// works with. Only *Kind implements it.
type AnyKind interface {
	Info() Facts
	// Shape is the schema of the spec; the caller must not change it.
	Shape() *Shape
	// Decode turns the written spec into a row. Strict decoding refuses unknown
	// fields; the other keeps and ignores them, and the report lists them.
	// Faults, with paths from the root of the document, go to the report too.
	// The row keeps the written spec, which must not be changed any more.
	Decode(m Meta, spec json.RawMessage, strict bool, r *Report) Row
	// Newer is the spec of a row in the newer form, or the very same if there is
	// nothing older in it. The error, an *Invalid, says what has no newer form. The
	// spec may be what the row is derived to, rather than what was written.
	Newer(m *Meta, spec json.RawMessage) (json.RawMessage, error)
	// Known is nil if all releases of the existing ecosystem that have the fields
	// of a spec at all understand them. The error, an *Invalid, names those of this
	// project alone, which they would drop without a word.
	Known(spec json.RawMessage) error
	Put(tx *db.Tx, row Row)
	Delete(tx *db.Tx, id ID) bool
	Row(r db.Reader, id ID) (Row, bool)
	RowNamed(r db.Reader, mesh, name string) (Row, bool)
	Rows(r db.Reader, mesh string) iter.Seq[Row]
	AllRows(r db.Reader) iter.Seq[Row]
	Count(r db.Reader) int
	RowsLabelled(r db.Reader, mesh string, labels map[string]string) iter.Seq[Row]
	Page(s *db.Snapshot, mesh string, all bool) iter.Seq[Row]
	MayCross(row Row) bool
}

// Info returns the facts of the kind.
func (k *Kind[S]) Info() Facts { return k.Facts }

// Shape is the schema of the spec; the caller must not change it.
func (k *Kind[S]) Shape() *Shape { return k.shape }

// Put inserts or replaces a row of this kind. Only feeders may call it.
func (k *Kind[S]) Put(tx *db.Tx, row Row) { k.PutObject(tx, row.(*Object[S])) }

// Delete deletes the row of the ID, if there is one. Only feeders may call it.
func (k *Kind[S]) Delete(tx *db.Tx, id ID) bool { return k.table.Delete(tx, id.Key()) }

// Row is Get without the Go type.
func (k *Kind[S]) Row(r db.Reader, id ID) (Row, bool) {
	o, ok := k.Get(r, id)
	return o, ok
}

// RowNamed is Named without the Go type.
func (k *Kind[S]) RowNamed(r db.Reader, mesh, name string) (Row, bool) {
	o, ok := k.Named(r, mesh, name)
	return o, ok
}

// Rows is In without the Go type.
func (k *Kind[S]) Rows(r db.Reader, mesh string) iter.Seq[Row] { return rows(k.In(r, mesh)) }

// AllRows is All without the Go type.
func (k *Kind[S]) AllRows(r db.Reader) iter.Seq[Row] { return rows(k.All(r)) }

// RowsLabelled is Labelled without the Go type.
func (k *Kind[S]) RowsLabelled(r db.Reader, mesh string, labels map[string]string) iter.Seq[Row] {
	return rows(k.Labelled(r, mesh, labels))
}

// Page lists the rows of one mesh, or of all, by mesh and name at this control
// plane. It leaves no touch: it is for one answer, not for a query.
func (k *Kind[S]) Page(s *db.Snapshot, mesh string, all bool) iter.Seq[Row] {
	from, before := mesh+"\x00", mesh+"\x01"
	if all {
		from, before = "", "\xff"
	}
	return func(yield func(Row) bool) {
		for _, o := range k.byName.Range(s, from, before) {
			if !yield(o) {
				return
			}
		}
	}
}

// MayCross reports whether a row that a zone wrote may be sent to other zones.
func (k *Kind[S]) MayCross(row Row) bool {
	return k.Flow.Has(Across) && (k.Cross == nil || k.Cross(row))
}

func rows[S any](seq iter.Seq[*Object[S]]) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for o := range seq {
			if !yield(o) {
				return
			}
		}
	}
}
