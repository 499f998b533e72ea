package names_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/zone/names"
)

var site = api.Site{Zone: "east", Env: "universal"}

// resolver answers what the test wants.
type resolver struct {
	mu      sync.Mutex
	answers map[string][]string
	asked   int
}

func (r *resolver) lookup(_ context.Context, host string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	a, ok := r.answers[host]
	if !ok {
		return nil, errors.New("no such host")
	}
	return a, nil
}

func (r *resolver) set(host string, addresses ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.answers, host)
	if addresses != nil { // nil: it does not resolve
		r.answers[host] = addresses
	}
}

func TestResolve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, r := db.New(api.Schema), &resolver{answers: map[string][]string{}}
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		all.Go(func() {
			_ = names.Resolve(ctx, names.Options{DB: d, Lookup: r.lookup, Interval: time.Minute, Log: slog.New(slog.DiscardHandler)})
		})
		defer func() { cancel(); all.Wait() }()
		dataplane := func(name, address string) {
			spec := api.Dataplane{}
			spec.Networking.Address = address
			m := api.Meta{ID: api.LocalID(api.Dataplanes, "default", "", name, site), Core: name}
			if _, err := d.Write(func(tx *db.Tx) error { api.Dataplanes.PutObject(tx, api.Dataplanes.New(m, spec)); return nil }); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		check := func(when, host, want string) {
			t.Helper()
			synctest.Wait()
			got := "none"
			if row, ok := api.Resolutions.Get(d.Snapshot(), host); ok {
				got = fmt.Sprint(row.Addresses)
			}
			if got != want {
				t.Errorf("%s: %s resolves to %s, want %s", when, host, got, want)
			}
		}
		dataplane("plain", "10.0.0.1")
		dataplane("six", "2001:db8::1")
		if r.asked != 0 {
			t.Errorf("%d addresses were looked up", r.asked)
		}
		r.set("a.example", "10.2.0.2", "10.2.0.1")
		dataplane("a", "a.example")
		check("at once", "a.example", "[10.2.0.1 10.2.0.2]")
		at := d.Snapshot().Revision()
		r.set("a.example", "10.2.0.1", "10.2.0.2") // another order is no change
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if d.Snapshot().Revision() != at {
			t.Error("an equal answer was written")
		}
		r.set("a.example")
		time.Sleep(10 * time.Minute)
		check("while the resolver fails", "a.example", "[10.2.0.1 10.2.0.2]")
		r.set("a.example", []string{}...)
		time.Sleep(2 * time.Minute)
		check("an empty answer", "a.example", "[10.2.0.1 10.2.0.2]")
		r.set("a.example", "10.2.0.3")
		dataplane("b", "b.example") // does not resolve; a is looked up all the same
		time.Sleep(2 * time.Minute)
		check("later", "a.example", "[10.2.0.3]")
		check("never resolved", "b.example", "none")
		dataplane("a", "10.0.0.7")
		time.Sleep(2 * time.Minute)
		check("no longer in use", "a.example", "none")
	})
}
