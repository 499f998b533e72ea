package server

import (
	"context"

	"github.com/atoll-mesh/atoll/api/lease"
	"github.com/atoll-mesh/atoll/api/store"
)

// Apply stores operations; see [store.Feeder.Apply].
type Apply func(context.Context, []store.Op) (store.Revision, error)

// Duty is a part, for [Server.Serve], of what one instance of a control plane does at
// a time: while this one holds the lease of the duty it works, and writes by what it
// is given. A store that one process has for itself needs no lease.
func (s *Server) Duty(name string, work func(context.Context, Apply) error) func(context.Context) error {
	if s.Config.Store.Type != "postgres" {
		return func(ctx context.Context) error { return work(ctx, s.Feeder.Apply) }
	}
	k := &lease.Keeper{DB: s.DB, Apply: s.Feeder.Apply, Holder: s.Instance, Term: lease.Term, Log: s.Component("lease")}
	return func(ctx context.Context) error {
		return k.Do(ctx, name, func(ctx context.Context, held *lease.Held) error { return work(ctx, held.Apply) })
	}
}
