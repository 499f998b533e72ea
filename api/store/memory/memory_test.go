package memory_test

import (
	"testing"

	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/api/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Database {
		d := memory.New()
		two := func(*testing.T) []store.Store { return []store.Store{d.Open(), d.Open()} }
		return storetest.Database{Instances: two(nil), Reopen: two}
	})
}

// A recent past of a few bytes makes nearly every batch a reset.
func TestShortPast(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Database {
		d := memory.NewLimited(store.Limits{Commits: 2, Bytes: 1 << 10})
		two := func(*testing.T) []store.Store { return []store.Store{d.Open(), d.Open()} }
		return storetest.Database{Instances: two(t), Reopen: two}
	})
}
