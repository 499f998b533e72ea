package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/api/store/postgrestest"
	"github.com/atoll-mesh/atoll/zone"
)

// Two instances of a zone share a database: what one is told both have, at once
// or later; while the database is away they answer from memory and take no
// writes, and then go on.
func TestInstancesShareADatabase(t *testing.T) {
	at := postgrestest.Start(t)
	shared := func(c *zone.Config) {
		c.Store.Type = "postgres"
		c.Store.Postgres.Host, c.Store.Postgres.Port = at.Dir, int(at.Port)
		c.Store.Postgres.User, c.Store.Postgres.DBName = postgrestest.User, "postgres"
		c.Store.Postgres.TransactionTimeout = server.Duration(time.Second)
	}
	planes := make([]*plane, 2)
	for i := range planes {
		planes[i] = startZone(t, "east", nil, shared, func(c *zone.Config) { c.Instance = fmt.Sprint("east-", i) })
	}
	dataplane := func(name string) string {
		return `{"type":"Dataplane","mesh":"default","name":"` + name + `","labels":{"kuma.io/workload":"web"},"networking":{"address":"127.0.0.1","inbound":[{"port":10080,"servicePort":8080}]}}`
	}
	put := func(p *plane, name string) error {
		_, err := p.client.Apply(t.Context(), []byte(dataplane(name)))
		return err
	}
	has := func(p *plane, name string) error {
		_, err := p.client.Do(t.Context(), http.MethodGet, "/meshes/default/dataplanes/"+name, nil, nil, nil)
		return err
	}
	for i, p := range planes {
		name := fmt.Sprint("web-", i)
		if err := put(p, name); err != nil {
			t.Fatal(err)
		}
		if err := has(p, name); err != nil { // who wrote it sees it
			t.Error(err)
		}
		eventually(t, name+" at the other instance", func() error { return has(planes[1-i], name) })
	}
	at.Stop()
	for _, p := range planes {
		var answer *client.Problem
		if err := put(p, "web-2"); !errors.As(err, &answer) || answer.Status != http.StatusServiceUnavailable {
			t.Errorf("written without a database: %v", err)
		}
		if err := has(p, "web-0"); err != nil {
			t.Errorf("read without a database: %v", err)
		}
	}
	if err := at.Start(); err != nil {
		t.Fatal(err)
	}
	if err := put(planes[0], "web-2"); err != nil {
		t.Error(err)
	}
	eventually(t, "web-2 at the other instance", func() error { return has(planes[1], "web-2") })

	// What one of them does for both goes on without it: addresses of services.
	service := func(p *plane, name string) {
		t.Helper()
		if _, err := p.client.Apply(t.Context(), []byte(`{"type":"MeshService","mesh":"default","name":"`+name+`","spec":{"selector":{"dataplaneLabels":{"matchLabels":{"app":"`+name+`"}}},"ports":[{"port":80,"targetPort":8080}]}}`)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an address of "+name, func() error {
			var got struct {
				Status struct{ VIPs []struct{ IP string } }
			}
			if _, err := p.client.Do(t.Context(), http.MethodGet, "/meshes/default/meshservices/"+name, nil, nil, &got); err != nil {
				return err
			}
			if len(got.Status.VIPs) != 1 {
				return fmt.Errorf("%+v", got)
			}
			return nil
		})
	}
	service(planes[1], "before")
	planes[0].stop()
	service(planes[1], "after")
}
