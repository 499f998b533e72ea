package kds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
	"github.com/atoll-mesh/atoll/kds/kdspb"
)

// FuzzResponse feeds the receiver of global whatever a zone may send: it must
// neither panic nor take a row that is not stamped with that zone.
func FuzzResponse(f *testing.F) {
	seed := func(kind, name string, spec *anypb.Any) {
		body, err := proto.Marshal(&kdspb.KumaResource{
			Meta: &kdspb.KumaResource_Meta{Name: name, Mesh: "default", Labels: map[string]string{api.LabelDisplayName: "x", api.LabelZone: "other"}},
			Spec: spec,
		})
		if err != nil {
			f.Fatal(err)
		}
		m, err := proto.Marshal(&discovery.DeltaDiscoveryResponse{
			TypeUrl: kind, Nonce: "1!", SystemVersionInfo: "e/1", RemovedResources: []string{"y.default", "."},
			Resources: []*discovery.Resource{{Name: name + ".default", Resource: &anypb.Any{TypeUrl: envelopeURL, Value: body}}},
		})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m)
	}
	seed("MeshService", "x-1", &anypb.Any{Value: []byte(`{"selector":{"dataplaneLabels":{"matchLabels":{"app":"x"}}},"ports":[{"port":80}]}`)})
	seed("MeshTimeout", "x-1", &anypb.Any{Value: []byte(`{"targetRef":{"kind":"Mesh"},"to":[{"targetRef":{"kind":"Mesh"},"default":{"connectionTimeout":"1s"}}]}`)})
	seed("Dataplane", "x-1", &anypb.Any{TypeUrl: "type.googleapis.com/kuma.mesh.v1alpha1.Dataplane", Value: []byte{0x0a, 0x02, 0x2a, 0x00}})

	ctx, cancel := context.WithCancel(context.Background())
	f.Cleanup(cancel)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	d := db.New(api.Schema)
	feeder := store.NewFeeder(memory.New().Open(), d, api.Site{}, log)
	go func() { _ = feeder.Run(ctx) }()
	<-feeder.Ready()
	o := Options{DB: d, Feeder: feeder, Log: log}.filled()
	f.Fuzz(func(t *testing.T, body []byte) {
		m := &discovery.DeltaDiscoveryResponse{}
		if proto.Unmarshal(body, m) != nil {
			return
		}
		r := newReceiver(o, api.Site{}, up("east", nil, nil), newInbox("east", log), node{id: "east"})
		if _, err := r.take(t.Context(), m); err != nil {
			return
		}
		for _, k := range r.kinds {
			for row := range k.AllRows(d.Snapshot()) {
				if h := row.Head(); h.Source != "east" || h.Label(api.LabelZone) != "east" || h.Zone != "east" && !k.Info().Unhashed {
					t.Fatalf("a zone wrote %+v", h)
				}
			}
		}
	})
}

// FuzzRequest feeds the sender's side: no request may panic it.
func FuzzRequest(f *testing.F) {
	for _, m := range []*discovery.DeltaDiscoveryRequest{
		{Node: (&node{id: "east", features: features(), kinds: 3}).proto(), TypeUrl: "Mesh", ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: map[string]string{"default.": "1"}},
		{TypeUrl: "Mesh", ResponseNonce: "1!", ResourceNamesUnsubscribe: []string{"*"}},
	} {
		body, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	o := Options{DB: db.New(api.Schema)}.filled()
	way := down(nil)
	c := newCatalog(o, way)
	c.fill(o.DB.Snapshot())
	f.Fuzz(func(t *testing.T, body []byte) {
		m := &discovery.DeltaDiscoveryRequest{}
		if proto.Unmarshal(body, m) != nil {
			return
		}
		s := newSender(o, c, newOrders(o, way), nil, api.Global, c.forZone("east"))
		for range 2 {
			if s.request(m) != nil {
				return
			}
			for s.next() != nil {
			}
		}
	})
}

// FuzzQuestion feeds a zone whatever global may ask: a question means the same
// when it is asked once more.
func FuzzQuestion(f *testing.F) {
	to := address{id: "1", mesh: "default", name: "web"}
	for _, q := range []api.Question{{EDS: true}, {JSON: true}, {JSON: true, Used: true}} {
		for _, c := range calls {
			f.Add(encoded(f, c.request(to, q)))
		}
	}
	f.Add([]byte{0x28, 0x07}) // a format that nobody knows
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, c := range calls {
			m, again := c.asked(), c.asked()
			if proto.Unmarshal(body, m) != nil {
				continue
			}
			q := questionIn(m)
			if err := proto.Unmarshal(encoded(t, c.request(address{m.GetRequestId(), m.GetResourceMesh(), m.GetResourceName()}, q)), again); err != nil {
				t.Fatal(err)
			}
			if q.About != c.about || questionIn(again) != q || again.GetRequestId() != m.GetRequestId() || again.GetResourceMesh() != m.GetResourceMesh() || again.GetResourceName() != m.GetResourceName() {
				t.Fatalf("%v is %+v, then %+v in %v", m, q, questionIn(again), again)
			}
		}
	})
}

// FuzzAnswer feeds global whatever a zone may answer: it is for the question
// that it names or for none, and is a fault or a body.
func FuzzAnswer(f *testing.F) {
	for _, c := range calls {
		f.Add(encoded(f, c.response("1", "", []byte("{}"))))
		f.Add(encoded(f, c.response("1", "no Envoy", nil)))
		f.Add(encoded(f, c.response("2", "", nil)))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, c := range calls {
			m := c.answered()
			if proto.Unmarshal(body, m) != nil {
				continue
			}
			to := make(chan reply, 1)
			a := &asking{open: map[string]chan reply{"1": to}}
			err := a.receive(&oneMessage{body: body}, c)
			switch mine := m.GetRequestId() == "1"; {
			case mine != (len(to) == 1), mine != errors.Is(err, io.EOF), !mine && !errors.Is(err, ErrProtocol):
				t.Fatalf("%v: %d answers, then %v", m, len(to), err)
			case mine:
				if r := <-to; r.fault != "" && len(r.body) > 0 {
					t.Fatalf("%v is both: %+v", m, r)
				}
			}
		}
	})
}

// oneMessage is a stream with one message.
type oneMessage struct {
	grpc.ServerStream
	body []byte
	read bool
}

func (s *oneMessage) RecvMsg(m any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	return proto.Unmarshal(s.body, m.(proto.Message))
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestNames holds the contract's examples of names between control planes.
func TestNames(t *testing.T) {
	for _, c := range []struct {
		kind                       api.AnyKind
		mesh, name, zone, ns, want string
	}{
		{api.MeshServices, "default", "redis-zone-1", "zone-1", "", "redis-zone-1-2v6wfvvcvbc9f55d"},
		{api.MeshServices, "default", "redis-zone-2", "zone-2", "", "redis-zone-2-ff29vc4685c6f594"},
		{api.MeshServices, "default", "backend", "zone-1", "kuma-demo", "backend-5b4f4xdx76x7zxxx"},
		{api.MeshTimeouts, "mesh-1", "foo", "", "", "foo-5z44d8cbd495vbxb"},
		{api.HostnameGenerators, "", "hg-1", "", "", "hg-1-4w5cccxx9c9zd426"},
		{api.MeshTimeouts, "default", "mt1", "", "", "mt1-xz4845xdv4b254b6"},
		{api.MeshServices, "default", "backend", "z1", "", "backend-6d9f849w6wvcb45w"},
		{api.MeshServices, "default", "backend", "z1", "kuma-demo", "backend-dxdxw8xz79cdv764"},
		{api.MeshMultiZoneServices, "mesh-1", "mz", "", "", "mz-ffcw7cb4xfv49w85"},
		{api.Secrets, "default", "plain", "", "", "plain"},
		{api.GlobalSecrets, "", "zone-token-signing-key-2", "", "", "zone-token-signing-public-key-2"},
	} {
		id := api.ID{Kind: c.kind.Info().Name, Mesh: c.mesh, Zone: c.zone, Namespace: c.ns, Name: c.name}
		if got := down(nil).name(c.kind, id); got != c.want {
			t.Errorf("%s: %q, want %q", id, got, c.want)
		}
	}
}

// TestLabels holds what the mappers do to labels on the way up.
func TestLabels(t *testing.T) {
	id := api.ID{Kind: "MeshService", Mesh: "default", Zone: "east", Namespace: "shop", Name: "cart"}
	row := api.MeshServices.New(api.Meta{ID: id, Labels: map[string]string{
		"team": "a", "internal/x": "y", api.LabelGraceSince: "now", api.LabelOrigin: "global", api.LabelZone: "elsewhere",
	}}, api.MeshService{})
	p, err := up("east", []string{"internal/"}, nil).pack(nil, api.MeshServices, row)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"team": "a", api.LabelOrigin: "zone", api.LabelZone: "east", api.LabelNamespace: "shop", api.LabelDisplayName: "cart",
	}
	if !maps.Equal(p.labels, want) {
		t.Errorf("labels %v, want %v", p.labels, want)
	}
	if row.Labels[api.LabelOrigin] != "global" {
		t.Error("the row was changed")
	}
}
