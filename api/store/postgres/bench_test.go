package postgres_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/bolt"
	"github.com/atoll-mesh/atoll/api/store/postgrestest"
)

// BenchmarkApply measures writes that are on the disk when they are
// acknowledged, by one and by sixteen writers.
func BenchmarkApply(b *testing.B) {
	for _, writers := range []int{1, 16} {
		b.Run(fmt.Sprint("bolt/writers=", writers), func(b *testing.B) {
			s, err := bolt.Open(filepath.Join(b.TempDir(), "store"))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			write(b, s, writers)
		})
		b.Run(fmt.Sprint("postgres/writers=", writers), func(b *testing.B) {
			at := postgrestest.Start(b, "fsync=on", "full_page_writes=on", "shared_buffers=128MB")
			write(b, open(b, options(at, "postgres")), writers)
		})
	}
}

func write(b *testing.B, s store.Store, writers int) {
	b.ResetTimer()
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < b.N; i += writers {
				if _, err := s.Apply(b.Context(), []store.Op{mesh(fmt.Sprintf("m%d-%d", w, i%100), fmt.Sprint(`{"v":`, i, `}`))}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}
