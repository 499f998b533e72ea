package names

import (
	"context"
	"reflect"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/hostname"
)

// Generate keeps the host names of services until the context ends.
func Generate(ctx context.Context, o Options) error {
	var (
		todo = newMarks()
		dir  = hostname.New(o.Site.Zone)
	)
	stop := o.DB.OnCommit(func(c db.Commit) {
		for _, ch := range c.Changes {
			if m, ok := headOf(ch, api.HostnameGenerators); ok {
				todo.add(m.ID)
			} else if m, ok := headOf(ch, hostname.Kinds...); ok {
				todo.add(m.ID)
			}
		}
	})
	defer stop()
	snap := o.DB.Snapshot()
	for g := range api.HostnameGenerators.All(snap) {
		todo.add(g.ID)
	}
	todo.add(servicesIn(snap)...)
	for {
		if err := generate(o.DB, dir, todo.take()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-todo.wake:
		}
	}
}

// generate takes what changed into the directory and enters what follows.
func generate(d *db.DB, dir *hostname.Directory, todo map[api.ID]struct{}) error {
	snap := d.Snapshot()
	for id := range todo {
		k, _ := api.ByName(id.Kind)
		row, exists := k.Row(snap, id)
		switch {
		case id.Kind != api.HostnameGenerators.Name && exists:
			dir.PutService(row.Head())
		case id.Kind != api.HostnameGenerators.Name:
			dir.RemoveService(id)
		case exists:
			dir.PutGenerator(row.(*api.Object[api.HostnameGenerator]))
		default:
			dir.RemoveGenerator(id)
		}
	}
	changed := dir.Changed()
	if len(changed) == 0 {
		return nil
	}
	_, err := d.Write(func(tx *db.Tx) error {
		for _, id := range changed {
			have, _ := api.Hostnames.Get(tx, id.String())
			switch want := dir.Of(id); {
			case want == nil:
				api.Hostnames.Delete(tx, id.String())
			case !reflect.DeepEqual(have, want):
				api.Hostnames.Put(tx, want)
			}
		}
		return nil
	})
	return err
}
