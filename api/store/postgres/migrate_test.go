package postgres_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/postgres"
)

func TestMigrations(t *testing.T) {
	o := database(t)
	pending, err := postgres.Migrations(t.Context(), o)
	if err != nil || len(pending) == 0 || !pending[0].Applied.IsZero() {
		t.Fatalf("%v %v", pending, err)
	}
	applied, err := postgres.Migrate(t.Context(), o, false)
	if err != nil || len(applied) != len(pending) {
		t.Fatalf("applied %v, %v", applied, err)
	}
	if again, err := postgres.Migrate(t.Context(), o, false); err != nil || len(again) != 0 {
		t.Errorf("applied twice: %v, %v", again, err)
	}
	done, err := postgres.Migrations(t.Context(), o)
	if err != nil || done[0].Applied.IsZero() || done[0].Name != pending[0].Name {
		t.Errorf("%v %v", done, err)
	}
}

// Many start at once on an empty database: one migrates, all begin.
func TestOpenedAtOnce(t *testing.T) {
	o := database(t)
	stores := make([]*postgres.Store, 6)
	var all sync.WaitGroup
	for i := range stores {
		all.Go(func() {
			s, err := postgres.Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { s.Close() })
			stores[i] = s
			apply(t, s, mesh(string(rune('a'+i)), `{}`))
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	f := follow(t, stores[0])
	for _, s := range stores {
		if s.Epoch() != stores[0].Epoch() {
			t.Error("they have different epochs")
		}
	}
	if f.at != 6 || len(f.rows) != 6 {
		t.Errorf("%v at %d", f.rows, f.at)
	}
}

// Tables of a newer program are refused, by whoever has them open too.
func TestNewer(t *testing.T) {
	o := database(t)
	s := open(t, o)
	f := follow(t, s)
	run(t, o, "UPDATE atoll_store SET format = 99, reader = 'Atoll 9.9'", "SELECT pg_notify('atoll', '')")
	_, followed, _ := f.next()
	_, applied := s.Apply(t.Context(), []store.Op{mesh("a", `{}`)})
	_, opened := postgres.Open(t.Context(), o)
	_, migrated := postgres.Migrate(t.Context(), o, false)
	for what, err := range map[string]error{"followed": followed, "applied": applied, "opened": opened, "migrated": migrated} {
		if !errors.Is(err, postgres.ErrNewer) || !strings.Contains(err.Error(), "Atoll 9.9") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What a database refuses is said together with what to do.
func TestAdvice(t *testing.T) {
	o := database(t)
	run(t, o, "DROP ROLE IF EXISTS plain", "CREATE ROLE plain LOGIN", "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	plain, missing, absent := o, o, o
	plain.User = "plain"
	missing.Database = "nowhere"
	absent.PasswordFile = "/nowhere/password"
	for want, o := range map[string]postgres.Options{
		"atoll migrate up": plain, "CREATE DATABASE nowhere": missing, "/nowhere/password": absent,
	} {
		if _, err := postgres.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in: %v", want, err)
		}
	}
	if _, err := postgres.Migrate(t.Context(), o, false); err != nil {
		t.Fatal(err)
	}
	run(t, o, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO plain")
	apply(t, open(t, plain), mesh("a", `{}`)) // who may not create tables can do all the rest
	run(t, o, "DROP OWNED BY plain", "DROP ROLE plain")
}
