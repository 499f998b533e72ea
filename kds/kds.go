// Package kds is the link between control planes: the streams between global
// and a zone, on the wire of KDS, so that a Kuma control plane can be at the
// other end.
//
// It owns what crosses: which rows go to whom ([Options.Kinds] and their
// flows), under which name, with which labels, and what is taken from a peer.
// Package global registers the [Server], package zone runs the [Link]. It never
// decides what a proxy gets and never writes a row whose origin is another
// control plane than the one that sent it.
//
//	db ─commit─▶ catalog ─▶ view ─▶ delta.Session ─▶ stream ─▶ receiver ─▶ Feeder ─▶ db
//	             encoded once,  per peer:                       checks, labels,
//	             shared by all  filter                          brake, one batch
//
// # Why
//
// Both directions are the same two halves: a sender over a catalogue of encoded
// rows, and a receiver that turns messages into one batch for the store. Only
// the tables differ (flows, filters, labels). A commit wakes the catalogue with
// the keys that changed; nothing is listed again while nothing changes.
//
// A peer's state is replaced only by what the peer said, never by its silence:
// a disconnect deletes nothing, and a removal of most of a kind is held until
// it is repeated or confirmed ([Brake]).
//
// Rows cross as they were written. Only to peers that drop older forms without a
// word (release 3.0 of Kuma) they go in the newer form, and a policy that has none
// does not go at all: a part of it would mean something else. The same holds, for
// every release of Kuma, of a policy with fields that only this project knows. The
// status of the peer and its ZoneInsight say so.
//
// What control planes of this project add (heartbeat, revisions, chunks, known
// versions at a reconnect) rides on fields that others ignore, and is used only
// when the peer announced it. Go-control-plane's server was not taken for the
// reasons in package kds/delta.
package kds

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// Errors that end a stream; each is wrapped with what happened.
var (
	// ErrRefused: the peer may not do this (no token, another's name, a kind it does not own).
	ErrRefused = errors.New("refused")
	// ErrProtocol: the peer broke the dialect.
	ErrProtocol = errors.New("protocol error")
	// ErrSilent: the peer promised heartbeats and sent none.
	ErrSilent = errors.New("nothing heard from the peer")
	// ErrEpoch: the own history was replaced (a restore), so every stream starts anew.
	ErrEpoch = errors.New("history was replaced")
	// ErrNothingHeld: there is no held removal to confirm.
	ErrNothingHeld = errors.New("no removal is held")
)

// Options are what both ends need.
type Options struct {
	DB     *db.DB
	Feeder *store.Feeder
	// Kinds that may cross, with their flows; nil: api.Kinds.
	Kinds []api.AnyKind
	// Instance is the ID of this instance of the control plane.
	Instance string
	// Version is the version of this program.
	Version string
	// Heartbeat is the interval of proofs of life to peers that know them;
	// three missing ones end the connection. Zero: 5 s.
	Heartbeat time.Duration
	// MaxMessage is the largest message, bytes. Zero: 10 MiB.
	MaxMessage int
	// MaxRows is how many rows of one kind a peer may have here. Zero: 100,000.
	MaxRows int
	// Brake says which removals are held.
	Brake Brake
	// SkipLabels are prefixes of labels that are not sent.
	SkipLabels []string
	Log        *slog.Logger
}

// Brake holds a removal of more than Share of a peer's rows of one kind, if it
// is at least Rows rows: they stay until the peer says the same again on
// another connection, or until somebody confirms. Rows of kinds that are not
// durable are never held.
type Brake struct {
	// Share between 0 and 1. Zero: 0.5.
	Share float64
	// Rows. Zero: 10.
	Rows int
}

const (
	defaultHeartbeat  = 5 * time.Second
	defaultMaxMessage = 10 << 20
	defaultMaxRows    = 100_000
	chunk             = 1 << 20 // bytes of a message between control planes that know chunks
	maxExtraKinds     = 64      // kinds of other generations that a peer may ask for
)

func (o Options) filled() Options {
	if o.Kinds == nil {
		o.Kinds = api.Kinds
	}
	o.Heartbeat = cmp.Or(o.Heartbeat, defaultHeartbeat)
	o.MaxMessage = cmp.Or(o.MaxMessage, defaultMaxMessage)
	o.MaxRows = cmp.Or(o.MaxRows, defaultMaxRows)
	o.Brake.Share = cmp.Or(o.Brake.Share, 0.5)
	o.Brake.Rows = cmp.Or(o.Brake.Rows, 10)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Status is what is known of a peer now.
type Status struct {
	// Peer is the zone's name at global, [api.Global] in a zone.
	Peer string
	// Connected: at least one data stream is open.
	Connected bool
	// LastData is when the peer last said anything on a data stream.
	LastData time.Time
	// Epoch and Received are the newest revision that the peer said it has;
	// Applied is the one up to which everything is here. Empty for peers that
	// have no revisions.
	Epoch             string
	Received, Applied uint64
	// Sent is the own revision up to which the peer has answered everything.
	Sent uint64
	// Items is how many resources were sent on the open connection.
	Items uint64
	// Behind counts what the peer should have and has not answered.
	Behind int
	// Rejected is what the peer refused of what it was sent.
	Rejected []Rejection
	// Refused is what was refused here of what the peer sent.
	Refused []Rejection
	// Held are removals that the brake holds.
	Held []Held
	// NotUnderstood lists fields that were lost because this side does not know
	// them and JSON cannot carry them: name on the wire → paths.
	NotUnderstood map[string][]string
	// Restored: the peer came back with another history, or an older revision
	// of the same, than the one that was applied here.
	Restored bool
}

// Rejection is one row that was not taken.
type Rejection struct {
	// Kind and Name as on the wire (name.mesh).
	Kind, Name, Reason string
}

// Held is a removal that waits for confirmation.
type Held struct {
	Kind string
	// Rows of Of would be removed.
	Rows, Of int
	Since    time.Time
}
