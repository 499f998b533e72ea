package zone

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/zone/status"
)

// FuzzNode lets a stranger say anything of itself. Nothing panics, and what is
// admitted is the Dataplane that the node's ID names, valid and stored.
func FuzzNode(f *testing.F) {
	for _, seed := range []string{
		`{}`,
		`{"dataplane.resource": "type: Dataplane\nmesh: default\nname: cart\nnetworking: {address: 10.0.0.1, inbound: [{port: 80}]}"}`,
		`{"dataplane.resource": "type: Dataplane\nmesh: default\nname: cart\nnetworking: {address: 10.0.0.1, inbound: [{port: 80}]}", "dataplane.admin.port": "9901", "dataplane.readinessReporter.port": 9902, "features": ["feature-reuse-port"], "ipv6Enabled": false}`,
		`{"dataplane.resource": "type: Dataplane\nmesh: default\nname: cart\nlabels: {kuma.io/workload: x}\nnetworking: {address: gate.example, gateway: {tags: {kuma.io/service: web}}}"}`,
		`{"dataplane.resource": "type: Dataplane\nmesh: default\nname: cart\nnetworking: {address: 10.0.0.1, listeners: [{type: ZoneIngress, port: 10001, address: 1.2.3.4}]}"}`,
		`{"dataplane.resource": 7, "dataplane.proxyType": {}, "dataplane.admin.port": -1, "features": {"a": []}}`,
		`{"dataplane.resource": "[[[[", "dataplane.proxyType": "ingress"}`,
		`{"dataplane.resource": "type: ZoneIngress\nname: cart\nnetworking: {address: 10.0.0.1, port: 10001}", "dataplane.proxyType": "ingress"}`,
		`{"dataplane.resource": "type: ZoneEgress\nname: cart\nlabels: {kuma.io/mesh: shop}\nnetworking: {address: 10.0.0.1, port: 10001}", "dataplane.proxyType": "egress"}`,
		`{"dataplane.resource": "a: &a [*a]"}`,
		`{"dataplane.resource": "type: Dataplane\nmesh: default\nname: cart\nnetworking: null\nlabels: {a: null}"}`,
		`{"dataplane.resource": "type: Secret\nmesh: default\nname: cart\ndata: aGk="}`,
		`{"version": {"kumaDp": {"version": 1}}, "dataplane.admin.port": 1e300}`,
	} {
		f.Add(seed, "cart")
	}
	f.Add(`{}`, "\x00")
	z, stop := bare()
	f.Cleanup(stop)
	f.Fuzz(func(t *testing.T, metadata, name string) {
		meta := &structpb.Struct{}
		if protojson.Unmarshal([]byte(metadata), meta) != nil {
			t.Skip()
		}
		h := &xds.Hello{Mesh: "default", Name: name, Node: &corev3.Node{Id: "default." + name, Metadata: meta}, Stream: 1}
		id, err := z.admit(t.Context(), h)
		if err != nil {
			return
		}
		row, ok := api.Dataplanes.Get(z.DB.Snapshot(), id)
		if !ok || row.Name != name || row.Mesh != "default" || !row.Local() {
			t.Fatalf("%q was admitted as %v: %v", name, id, row)
		}
		var report api.Report
		api.Dataplanes.Decode(row.Meta, row.Raw(), true, &report)
		if err := report.Err(); err != nil {
			t.Errorf("what is stored is not valid: %v", err)
		}
		if kind, ok := bootstrap.KindOf(meta.Fields["dataplane.proxyType"].GetStringValue()); !ok {
			t.Error("a proxy of a type that is not known was admitted")
		} else if kind != api.AnyKind(api.Dataplanes) && len(row.Spec.Networking.Listeners) == 0 {
			t.Error("a zone proxy without a listener was admitted")
		}
	})
}

// bare is a zone with a database, a store and nothing that runs but the feeder;
// everybody is admitted without a token.
func bare() (z *zone, stop func()) {
	c := Default()
	c.DPServer.Auth = "none"
	s := &server.Server{
		Site: api.Site{Zone: "east", Env: "universal"}, Instance: "one", DB: db.New(api.Schema), Store: memory.New().Open(),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now,
	}
	s.Feeder = store.NewFeeder(s.Store, s.DB, s.Site, s.Log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Feeder.Run(ctx) }() // its end is the context's
	id := api.LocalID(api.Meshes, "", "", "default", s.Site)
	if _, err := s.Feeder.Apply(ctx, []store.Op{{Record: store.Record{ID: id, Spec: json.RawMessage(`{}`)}}}); err != nil {
		panic(err)
	}
	feeder := status.New(status.Options{DB: s.DB, Site: s.Site, Instance: s.Instance, Now: s.Now, Log: s.Log})
	return &zone{Server: s, config: c, status: feeder}, func() { cancel(); <-done }
}
