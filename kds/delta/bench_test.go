package delta_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/kds/delta"
)

// A policy for the mesh changes a hundred routes of a session. Told by a list that the sessions share, it costs a
// fraction of what it costs told one by one.
func BenchmarkMeshWideChange(b *testing.B) {
	for _, c := range []struct {
		name string
		tell func(s *delta.Session, names []string)
	}{
		{"one by one", func(s *delta.Session, names []string) {
			for _, n := range names {
				s.Changed(rds, n)
			}
		}},
		{"shared", func(s *delta.Session, names []string) { s.ChangedMany(rds, names) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var worlds [2]world
			var names []string
			for i := range worlds {
				worlds[i] = world{}
				for n := range 100 {
					name := fmt.Sprintf("kri_msvc_default_zone-0_demo_service-%02d_http", n)
					worlds[i].put(rds, &item{name: name, version: fmt.Sprint(i)})
					if i == 0 {
						names = append(names, name)
					}
				}
			}
			s := delta.New(envoyOrder())
			if err := s.Subscribe(rds, names, nil, nil); err != nil {
				b.Fatal(err)
			}
			now := time.Unix(1000, 0)
			exchange := func(w world) {
				m, _ := s.Next(w, now)
				if len(m.Items) != len(names) || !s.Ack(rds, m.Nonce, "") {
					b.Fatalf("%d items", len(m.Items))
				}
			}
			exchange(worlds[1])
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				c.tell(s, names)
				exchange(worlds[i%2])
			}
		})
	}
}
