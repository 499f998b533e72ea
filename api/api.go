// Package api is the model: what users write, and what a control plane knows.
//
// It owns identity (ID, KRI, names on the wire), the row ([Object]), the list
// of kinds ([Kinds]) with their tables, defaults and validation, and the labels
// that a control plane computes. Every other package may call it; it calls only
// api/db. It never does I/O, never reads a clock and knows nothing of Envoy.
//
// What was written in a form of older releases is kept so and turned into the
// one model when it is read (older.go).
//
//	document (YAML, JSON) ─▶ Parse ─▶ Object ─▶ Kind.Put ─▶ db ─▶ Kind.Get, In, Labelled
//	                           │
//	                           └──▶ Report: every fault with its path
//
// # Why
//
// A kind is one file and one line in [Kinds]: a struct, its defaults, its
// validation. All that differs between kinds is data in [Kind]; all that is
// equal (tables, parsing, REST, sync) is written once over the generic
// [Object]. Registries, generated deep copies and per-kind packages were not
// chosen: rows are never changed, so nothing has to be copied.
//
// Tables are package-level values although several control planes run in one
// process: a db.Table is a position in the static [Schema] and holds no rows.
package api

import (
	"encoding/json"
	"maps"
	"time"

	"github.com/atoll-mesh/atoll/api/db"
)

// Schema lists the tables of every control plane.
var Schema = db.NewSchema()

// ID names a thing everywhere. Name is the display name: the name in the
// control plane where the thing was written. Zone is the zone of origin, empty
// for what global wrote. KRI, REST name and sync name derive from it.
type ID struct{ Kind, Mesh, Zone, Namespace, Name string }

// Key is the primary key of the ID inside the table of its kind.
func (id ID) Key() string {
	return id.Mesh + "/" + id.Zone + "/" + id.Namespace + "/" + id.Name
}

func (id ID) String() string { return id.Kind + " " + id.Key() }

// Meta is what all kinds have in common.
type Meta struct {
	ID
	// Labels as written plus as computed (see ComputeLabels). Never changed.
	Labels            map[string]string
	Created, Modified time.Time
	// Core is the name of the row at this control plane's own API: the display
	// name for what was written here, the hashed name for a synced copy.
	Core string
	// Source is the control plane the row came from: empty for this one,
	// [Global] or the name of a zone. Only its source may change a row.
	Source string
	// Owner says what made a local row: empty for a user, else the name of the
	// duty that may change and delete it again ("proxy", "meshservice-generator").
	Owner string
	// Instance is the instance of the control plane that owns a row of a kind
	// that is not durable; empty for durable kinds.
	Instance string
	// Revision is the store's revision of the last write of a durable row.
	Revision uint64
}

// Global is the Source of rows that a zone received from global.
const Global = "global"

// Local says that this control plane wrote the row.
func (m *Meta) Local() bool { return m.Source == "" }

// Label returns the value of one label, or "".
func (m *Meta) Label(key string) string { return m.Labels[key] }

// Object is a row of one kind. It is immutable once it is in the database.
type Object[S any] struct {
	Meta
	// Spec is the one model of what was written: older forms turned into the
	// newer, defaults applied.
	Spec S
	// Written is the spec as the user wrote it (JSON), which is what the API
	// gives back. For rows made by the control plane it is Spec encoded.
	Written json.RawMessage
}

// Head returns the common part; the caller must not change it.
func (o *Object[S]) Head() *Meta { return &o.Meta }

// Body returns a pointer to the Spec; the caller must not change it.
func (o *Object[S]) Body() any { return &o.Spec }

// Raw returns the spec as written, JSON.
func (o *Object[S]) Raw() json.RawMessage { return o.Written }

// Row is an object of any kind.
type Row interface {
	Head() *Meta
	Body() any
	Raw() json.RawMessage
}

// Scope says whether a kind lives inside a mesh.
type Scope uint8

const (
	MeshScope Scope = iota
	GlobalScope
)

// Flow says between which control planes a kind is synced; empty: it stays.
type Flow uint8

const (
	// Down is global to every zone, for what global wrote.
	Down Flow = 1 << iota
	// Up is zone to global, for what the zone wrote.
	Up
	// Across is zone to global to the other zones.
	Across
)

// Has reports whether all of g is in f.
func (f Flow) Has(g Flow) bool { return f&g == g }

// Labels that the control plane computes or gives a meaning.
const (
	LabelDisplayName = "kuma.io/display-name"
	LabelMesh        = "kuma.io/mesh"
	LabelOrigin      = "kuma.io/origin"
	LabelZone        = "kuma.io/zone"
	LabelEnv         = "kuma.io/env"
	LabelNamespace   = "k8s.kuma.io/namespace"
	LabelPolicyRole  = "kuma.io/policy-role"
	LabelEffect      = "kuma.io/effect"
	LabelSync        = "kuma.io/kds-sync"
	LabelManagedBy   = "kuma.io/managed-by"
	LabelService     = "kuma.io/service"
	LabelProtocol    = "kuma.io/protocol"
	LabelWorkload    = "kuma.io/workload"
	LabelIngress     = "kuma.io/listener-zoneingress"
	LabelEgress      = "kuma.io/listener-zoneegress"
	// LabelExit of a MeshExternalService says how callers leave the mesh: ExitDirect,
	// or through a zone egress, which is the default.
	LabelExit       = "atoll.io/exit"
	ExitDirect      = "direct"
	LabelGraceSince = "kuma.io/deletion-grace-period-started-at"
	OriginGlobal    = "global"
	OriginZone      = "zone"
)

// Site says which control plane a row is at; names and labels depend on it.
type Site struct {
	// Zone is the name of the zone, empty at global.
	Zone string
	// Federated zones have a global above them.
	Federated bool
	// Env is "universal" or "kubernetes".
	Env string
}

// IsGlobal reports whether the site is a global control plane.
func (s Site) IsGlobal() bool { return s.Zone == "" }

// ComputeLabels returns the labels that a local row of the kind carries at the
// site: the user's, and over or under them those of the control plane
// (contract: labels). The input is not changed.
func ComputeLabels(k AnyKind, id ID, user map[string]string, site Site) map[string]string {
	out := maps.Clone(user)
	if out == nil {
		out = map[string]string{}
	}
	absent := func(key, value string) {
		if _, ok := out[key]; !ok {
			out[key] = value
		}
	}
	out[LabelDisplayName] = id.Name
	if k.Info().Scope == MeshScope {
		absent(LabelMesh, id.Mesh)
	}
	if site.IsGlobal() {
		out[LabelOrigin] = OriginGlobal
		return out
	}
	out[LabelOrigin] = OriginZone
	if k.Info().ZoneWritable() {
		absent(LabelZone, site.Zone)
		absent(LabelEnv, site.Env)
		if id.Namespace != "" {
			absent(LabelNamespace, id.Namespace)
		}
	}
	return out
}

// LocalID is the ID of a thing that is written at the site. Kinds whose names
// are not hashed on sync have no zone: their name is the same everywhere.
func LocalID(k AnyKind, mesh, namespace, name string, site Site) ID {
	info := k.Info()
	id := ID{Kind: info.Name, Mesh: mesh, Namespace: namespace, Name: name}
	if info.Scope == GlobalScope {
		id.Mesh = ""
	}
	if !info.Unhashed && info.ZoneWritable() {
		id.Zone = site.Zone
	}
	return id
}

// CopyID is the ID of a thing received from another control plane, from its
// mesh, its name on the wire and its labels.
func CopyID(k AnyKind, mesh, wireName string, labels map[string]string) ID {
	info := k.Info()
	id := ID{Kind: info.Name, Mesh: mesh, Name: wireName}
	if info.Unhashed {
		return id
	}
	if n := labels[LabelDisplayName]; n != "" {
		id.Name = n
	}
	id.Zone, id.Namespace = labels[LabelZone], labels[LabelNamespace]
	return id
}

// CoreName is the name of the row at the API of the control plane that holds
// it: display name for local rows and unhashed kinds, sync name for copies.
func CoreName(k AnyKind, m *Meta) string {
	if m.Source == "" || k.Info().Unhashed {
		if m.Namespace != "" {
			return m.Name + "." + m.Namespace
		}
		return m.Name
	}
	return SyncName(k, m.ID)
}
