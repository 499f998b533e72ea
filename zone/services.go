package zone

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/xds/plan"
)

// services enters the states of the local MeshServices as rows, and tells
// changed about each. The states are queries; a change wakes only those that
// read it.
func (z *zone) services(ctx context.Context, changed func(api.ID)) error {
	var (
		mu      sync.Mutex
		pending = map[api.ID]*api.ServiceState{}
		moved   = true // services came or went
		wake    = make(chan struct{}, 1)
		held    = map[api.ID]func(){}
	)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	stop := z.DB.OnCommit(func(c db.Commit) {
		for _, ch := range c.Changes {
			if ch.Table == api.MeshServices.Name && (ch.Old == nil || ch.New == nil) {
				mu.Lock()
				moved = true
				mu.Unlock()
				poke()
				return
			}
		}
	})
	defer stop()
	defer func() {
		for _, release := range held {
			release()
		}
	}()
	for {
		mu.Lock()
		states, look := pending, moved
		pending, moved = map[api.ID]*api.ServiceState{}, false
		mu.Unlock()
		var gone []api.ID
		if look {
			snap := z.DB.Snapshot()
			for svc := range api.MeshServices.All(snap) {
				id := svc.ID
				if !svc.Local() || held[id] != nil {
					continue
				}
				held[id] = incr.Hold(z.engine, plan.Service.Ref(id), func(s *api.ServiceState, _ error) {
					mu.Lock()
					pending[id] = s
					mu.Unlock()
					poke()
				})
			}
			for id, release := range held {
				if _, ok := api.MeshServices.Get(snap, id); !ok {
					release()
					delete(held, id)
					gone = append(gone, id)
				}
			}
		}
		if len(states)+len(gone) > 0 {
			_, err := z.DB.Write(func(tx *db.Tx) error {
				for id, s := range states {
					if s != nil && held[id] != nil {
						api.ServiceStates.Put(tx, s)
					}
				}
				for _, id := range gone {
					api.ServiceStates.Delete(tx, id.Key())
				}
				return nil
			})
			if err != nil {
				return err
			}
			for id := range states {
				changed(id)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
}

// derived is a MeshService as others see it: with the state and the identities
// that this zone found out.
func derived(r db.Reader, row api.Row) (spec, status json.RawMessage) {
	svc, ok := row.(*api.Object[api.MeshService])
	if !ok || !svc.Local() {
		return nil, nil
	}
	full := svc.Spec
	full.State, full.Identities = "Unavailable", nil
	if s, ok := api.ServiceStates.Get(r, svc.ID.Key()); ok {
		if s.Available {
			full.State = "Available"
		}
		for _, id := range s.Identities {
			full.Identities = append(full.Identities, api.ServiceIdentity{Type: "SpiffeID", Value: id})
		}
	}
	spec, err := json.Marshal(full)
	if err != nil {
		return nil, nil // a spec that was decoded encodes
	}
	return spec, json.RawMessage(`{"tls":{},"dataplaneProxies":{}}`)
}
