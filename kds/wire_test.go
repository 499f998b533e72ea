package kds_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/kds"
	"github.com/atoll-mesh/atoll/kds/kdspb"
)

const envelope = "type.googleapis.com/kuma.mesh.v1alpha1.KumaResource"

// stranger is a control plane of the existing ecosystem: it speaks the
// contract's dialect and knows nothing of our additions.
type stranger struct {
	t      *testing.T
	zone   string
	older  bool // it is of release 2.14
	stream interface {
		SendMsg(any) error
		RecvMsg(any) error
	}
}

func strangeNode(id string, more ...string) *core.Node {
	var features []*structpb.Value
	for _, f := range append(more, "zone-token", "hash-suffix", "hg-mz-selector", "producer-policy-flow") {
		features = append(features, structpb.NewStringValue(f))
	}
	return &core.Node{Id: id, Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
		"features":         structpb.NewListValue(&structpb.ListValue{Values: features}),
		"control-plane-id": structpb.NewStringValue("z1-inst"),
		"config":           structpb.NewStringValue("{}"),
	}}}
}

func dialStranger(f *federation, zone, method string, headers ...string) *stranger {
	f.t.Helper()
	conn, err := grpc.NewClient("passthrough:///global", f.net.dial(zone), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(f.t.Context())
	f.t.Cleanup(cancel)
	pairs := append([]string{"client-id", zone, "features", "zone-ping-health", "features", "hash-suffix", "authorization", "token-of-" + zone}, headers...)
	stream, err := conn.NewStream(metadata.AppendToOutgoingContext(ctx, pairs...), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		f.t.Fatal(err)
	}
	return &stranger{t: f.t, zone: zone, stream: stream}
}

func (s *stranger) send(m proto.Message) {
	s.t.Helper()
	if err := s.stream.SendMsg(m); err != nil && !errors.Is(err, io.EOF) {
		s.t.Fatal(err)
	}
}

func (s *stranger) subscribe(kind string) {
	s.t.Helper()
	node := strangeNode(s.zone)
	if s.older {
		node = strangeNode(s.zone, "optional-top-level-target-ref")
	}
	s.send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: kind, ResourceNamesSubscribe: []string{"*"}})
}

func (s *stranger) response() *discovery.DeltaDiscoveryResponse {
	s.t.Helper()
	m := &discovery.DeltaDiscoveryResponse{}
	if err := s.stream.RecvMsg(m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *stranger) request() *discovery.DeltaDiscoveryRequest {
	s.t.Helper()
	m := &discovery.DeltaDiscoveryRequest{}
	if err := s.stream.RecvMsg(m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *stranger) ack(m *discovery.DeltaDiscoveryResponse) {
	s.t.Helper()
	s.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: s.zone}, TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce})
}

// answerTo reads requests until the one that answers the nonce.
func (s *stranger) answerTo(kind, nonce string) *discovery.DeltaDiscoveryRequest {
	s.t.Helper()
	for {
		if req := s.request(); req.TypeUrl == kind && req.ResponseNonce == nonce {
			return req
		}
	}
}

func opened(t *testing.T, r *discovery.Resource) *kdspb.KumaResource {
	t.Helper()
	if r.GetResource().GetTypeUrl() != envelope {
		t.Fatalf("resource is a %q", r.GetResource().GetTypeUrl())
	}
	m := &kdspb.KumaResource{}
	if err := proto.Unmarshal(r.GetResource().GetValue(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func sealed(t *testing.T, m *kdspb.KumaResource) *discovery.Resource {
	t.Helper()
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &discovery.Resource{
		Name: m.Meta.Name + "." + m.Meta.Mesh, Version: "f00",
		Resource: &anypb.Any{TypeUrl: envelope, Value: body},
	}
}

func jsonResource(t *testing.T, name, mesh, spec string, labels ...string) *discovery.Resource {
	m := map[string]string{}
	for i := 0; i+1 < len(labels); i += 2 {
		m[labels[i]] = labels[i+1]
	}
	return sealed(t, &kdspb.KumaResource{Meta: &kdspb.KumaResource_Meta{Name: name, Mesh: mesh, Labels: m}, Spec: &anypb.Any{Value: []byte(spec)}})
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes of the contract's examples.
const mzaBytes = "0a6a 0a15 6d7a61312d347a7a36396666623876663539347a62 1207 64656661756c74 321c 0a14 6b756d612e696f2f646973706c61792d6e616d65 1204 6d7a6131 " +
	"3216 0a0e 6b756d612e696f2f6f726967696e 1204 7a6f6e65 3212 0a0c 6b756d612e696f2f7a6f6e65 1202 7a31 1228 1226 7b2261646472657373223a223139322e3136382e332e34222c22706f7274223a31303030317d"

func TestExampleBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		defer f.close()
		s := dialStranger(f, "z1", kdspb.ZoneToGlobalSync)
		send := func(kind, nonce, name string, body []byte) {
			s.send(&discovery.DeltaDiscoveryResponse{TypeUrl: kind, Nonce: nonce, Resources: []*discovery.Resource{{
				Name: name, Resource: &anypb.Any{TypeUrl: envelope, Value: body},
			}}})
			if answer := s.answerTo(kind, nonce); answer.ErrorDetail != nil {
				t.Fatalf("%s: %s", kind, answer.ErrorDetail.Message)
			}
		}
		send("MeshZoneAddress", "1", "mza1-4zz69ffb8vf594zb.default", unhex(t, mzaBytes))
		row := f.global.row(api.MeshZoneAddresses, api.ID{Kind: "MeshZoneAddress", Mesh: "default", Zone: "z1", Name: "mza1"})
		if got := row.Head().Core; got != "mza1-4zz69ffb8vf594zb" {
			t.Errorf("name at global: %q", got)
		}
		if got := string(row.Raw()); got != `{"address":"192.168.3.4","port":10001}` {
			t.Errorf("spec: %s", got)
		}

		envelopeOf := func(name, mesh, url, value string) []byte {
			b, err := proto.Marshal(&kdspb.KumaResource{
				Meta: &kdspb.KumaResource_Meta{Name: name, Mesh: mesh},
				Spec: &anypb.Any{TypeUrl: "type.googleapis.com/" + url, Value: unhex(t, value)},
			})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		send("Dataplane", "2", "dp1.default", envelopeOf("dp1", "default", "kuma.mesh.v1alpha1.Dataplane",
			"0a1e 0a0f 18903f 520468747470 5a0468747470 2a0b3139322e3136382e302e31"))
		dp := f.global.row(api.Dataplanes, api.ID{Kind: "Dataplane", Mesh: "default", Zone: "z1", Name: "dp1"})
		var got, want any
		_ = json.Unmarshal(dp.Raw(), &got)
		_ = json.Unmarshal([]byte(planeSpec), &want)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("dataplane: %s", dp.Raw())
		}
	})
}

func TestStrangeZone(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "west")
		defer f.close()
		f.global.put(api.Meshes, "", "default", `{"skipCreatingInitialPolicies":["*"]}`)
		f.global.put(api.MeshTimeouts, "default", "mt1", timeout(1))
		f.global.put(api.HostnameGenerators, "", "hg-1", `{"selector":{"meshService":{"matchLabels":{"a":"b"}}},"template":"{{ .Name }}.mesh"}`)
		secret, _ := json.Marshal(map[string][]byte{"data": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})})
		f.global.put(api.GlobalSecrets, "", "zone-token-signing-key-1", string(secret))
		f.zones["west"].put(api.MeshServices, "default", "backend", serviceSpec)
		synctest.Wait()

		s := dialStranger(f, "z1", kdspb.GlobalToZoneSync)
		next := func(kind string) *discovery.DeltaDiscoveryResponse {
			t.Helper()
			s.subscribe(kind)
			m := s.response()
			if m.TypeUrl != kind || m.SystemVersionInfo != "" || m.ControlPlane.GetIdentifier() != "global" {
				t.Fatalf("first response of %s: %v", kind, m)
			}
			s.ack(m)
			return m
		}
		mesh := next("Mesh")
		if mesh.Nonce != "1" || mesh.Resources[0].Name != "default." {
			t.Errorf("mesh: nonce %s, name %s", mesh.Nonce, mesh.Resources[0].Name)
		}
		if spec := opened(t, mesh.Resources[0]).Spec; spec.TypeUrl != "type.googleapis.com/kuma.mesh.v1alpha1.Mesh" || !bytes.Equal(spec.Value, unhex(t, "42012a")) {
			t.Errorf("mesh spec: %v", spec)
		}
		policy := opened(t, next("MeshTimeout").Resources[0])
		if policy.Meta.Name != "mt1-xz4845xdv4b254b6" || policy.Spec.TypeUrl != "" || string(policy.Spec.Value) != timeout(1) || policy.Status != nil {
			t.Errorf("policy: %v", policy)
		}
		if hg := next("HostnameGenerator"); hg.Resources[0].Name != "hg-1-4w5cccxx9c9zd426." {
			t.Errorf("hostname generator: %s", hg.Resources[0].Name)
		}
		service := opened(t, next("MeshService").Resources[0])
		if string(service.Status.GetValue()) != `{"tls":{},"dataplaneProxies":{}}` || service.Meta.Labels[api.LabelOrigin] != "global" || service.Meta.Labels[api.LabelZone] != "west" {
			t.Errorf("service of another zone: %v", service)
		}
		public := opened(t, next("GlobalSecret").Resources[0])
		if public.Meta.Name != "zone-token-signing-public-key-1" || !bytes.Contains(public.Spec.Value, []byte("BEGIN PUBLIC KEY")) || bytes.Contains(public.Spec.Value, []byte("PRIVATE")) {
			t.Errorf("zone signing key: %v", public)
		}
		if got := next("ServiceInsight"); len(got.Resources) != 0 {
			t.Errorf("unknown kind: %v", got)
		}
		if got := next("MeshMultiZoneService"); len(got.Resources)+len(got.RemovedResources) != 0 {
			t.Errorf("kind without rows: %v", got)
		}

		f.global.put(api.MeshTimeouts, "default", "mt1", timeout(2))
		m := s.response()
		if m.TypeUrl != "MeshTimeout" || len(m.Resources) != 1 {
			t.Fatalf("changed policy: %v", m)
		}
		f.global.remove(api.ID{Kind: "HostnameGenerator", Name: "hg-1"})
		gone := s.response()
		if gone.TypeUrl != "HostnameGenerator" || !slices.Equal(gone.RemovedResources, []string{"hg-1-4w5cccxx9c9zd426."}) {
			t.Fatalf("removed generator: %v", gone)
		}
		s.ack(gone)
		// A refusal without a name; the policy is set aside until it changes.
		nack := &discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "z1"}, TypeUrl: "MeshTimeout", ResponseNonce: m.Nonce, ResourceNamesSubscribe: []string{"*"}}
		nack.ErrorDetail = status.New(codes.OK, "spec.to[0]: bad").Proto()
		s.send(nack)
		synctest.Wait()
		if st := f.status("z1"); len(st.Rejected) != 1 || st.Rejected[0].Name != "mt1-xz4845xdv4b254b6.default" {
			t.Errorf("refused policy: %+v", st.Rejected)
		}
		f.global.put(api.MeshTimeouts, "default", "mt1", timeout(3))
		if m := s.response(); m.TypeUrl != "MeshTimeout" || len(m.Resources) != 1 {
			t.Errorf("replaced policy: %v", m)
		}
	})
}

func TestStrangeZoneSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		defer f.close()
		s := dialStranger(f, "z1", kdspb.ZoneToGlobalSync)
		asked := map[string]bool{}
		for range 8 {
			req := s.request()
			asked[req.TypeUrl] = true
			if req.Node.GetId() != "z1" || req.ResponseNonce != "" || !slices.Equal(req.ResourceNamesSubscribe, []string{"*"}) || len(req.InitialResourceVersions) != 0 {
				t.Errorf("first request: %v", req)
			}
		}
		if !asked["MeshService"] || !asked["Dataplane"] || asked["Mesh"] || asked["Secret"] {
			t.Errorf("global asked for %v", asked)
		}
		good := jsonResource(t, "backend-x", "default", serviceSpec, api.LabelDisplayName, "backend", api.LabelZone, "other", api.LabelOrigin, "global")
		bad := jsonResource(t, "bad-x", "default", `{"ports":"none"}`, api.LabelDisplayName, "bad")
		evil := jsonResource(t, "evil-x", "default", serviceSpec, api.LabelDisplayName, "a/b")
		broken := &discovery.Resource{Name: "broken.default", Resource: &anypb.Any{TypeUrl: envelope, Value: []byte{0xff}}}
		s.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshService", Nonce: "7", Resources: []*discovery.Resource{bad, good, broken, evil}})
		answer := s.answerTo("MeshService", "7")
		text := answer.GetErrorDetail().GetMessage()
		if !strings.HasPrefix(text, "user error\n") || !strings.Contains(text, "bad-x.default: ") || !strings.Contains(text, "broken.default: ") ||
			!strings.Contains(text, "evil-x.default: ") || strings.Contains(text, "backend-x") || !slices.Equal(answer.ResourceNamesSubscribe, []string{"*"}) {
			t.Errorf("refusal: %v", answer)
		}
		id := api.ID{Kind: "MeshService", Mesh: "default", Zone: "z1", Name: "backend"}
		if m := f.global.row(api.MeshServices, id).Head(); m.Source != "z1" || m.Label(api.LabelZone) != "z1" || m.Label(api.LabelOrigin) != "zone" {
			t.Errorf("the zone's word about its name was believed: %+v", m)
		}
		if n := len(f.global.ids(api.MeshServices)); n != 1 {
			t.Errorf("%d services", n)
		}
		s.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshService", Nonce: "8", RemovedResources: []string{"backend-x.default", "never.default"}})
		if answer := s.answerTo("MeshService", "8"); answer.ErrorDetail != nil {
			t.Errorf("removal: %v", answer)
		}
		if f.global.has(api.MeshServices, id) {
			t.Error("a removed service is still there")
		}

		// The first state of the next connection is all there is.
		s.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshService", Nonce: "9", Resources: []*discovery.Resource{good}})
		s.answerTo("MeshService", "9")
		again := dialStranger(f, "z1", kdspb.ZoneToGlobalSync)
		again.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshService", Nonce: "1"})
		again.answerTo("MeshService", "1")
		if f.global.has(api.MeshServices, id) {
			t.Error("an empty first state left a service")
		}

		// Kinds that a zone does not own end the stream.
		s.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "Secret", Nonce: "10"})
		for {
			err := s.stream.RecvMsg(&discovery.DeltaDiscoveryRequest{})
			if err == nil {
				continue
			}
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("a Secret from a zone: %v", err)
			}
			break
		}
	})
}

func TestNodeOfAnotherZone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		defer f.close()
		s := dialStranger(f, "z1", kdspb.GlobalToZoneSync)
		s.send(&discovery.DeltaDiscoveryRequest{Node: strangeNode("z2"), TypeUrl: "Mesh", ResourceNamesSubscribe: []string{"*"}})
		if err := s.stream.RecvMsg(&discovery.DeltaDiscoveryResponse{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("node z2 on the link of z1: %v", err)
		}
	})
}

func TestRowLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		f.global.cancel()
		f.global.parts.Wait()
		f.global.start()
		f.serve(func(o *kds.ServerOptions) { o.MaxRows = 2 })
		defer f.close()
		s := dialStranger(f, "z1", kdspb.ZoneToGlobalSync)
		var all []*discovery.Resource
		for i := range 4 {
			all = append(all, jsonResource(t, fmt.Sprintf("s%d-x", i), "default", serviceSpec, api.LabelDisplayName, fmt.Sprintf("s%d", i)))
		}
		s.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshService", Nonce: "1", Resources: all})
		if text := s.answerTo("MeshService", "1").GetErrorDetail().GetMessage(); strings.Count(text, "more than 2 rows") != 2 {
			t.Errorf("refusal: %q", text)
		}
		if n := len(f.global.ids(api.MeshServices)); n != 2 {
			t.Errorf("%d rows of 2", n)
		}
	})
}

// strangeGlobal serves the contract's dialect to a link.
type strangeGlobal struct {
	streams chan grpc.ServerStream
	end     chan struct{}
}

func (g *strangeGlobal) GlobalToZoneSync(s grpc.ServerStream) error {
	g.streams <- s
	select {
	case <-s.Context().Done():
	case <-g.end:
	}
	return nil
}

func (g *strangeGlobal) ZoneToGlobalSync(s grpc.ServerStream) error { return g.GlobalToZoneSync(s) }

func TestStrangeGlobal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		east := newPlane(t, "east")
		mine := east.put(api.MeshServices, "default", "backend", serviceSpec)
		local := east.put(api.MeshTimeouts, "default", "local", timeout(9), api.LabelOrigin, "zone")
		named := east.put(api.MeshTimeouts, "default", "named", timeoutOf(`"kind":"Dataplane","name":"web"`), api.LabelOrigin, "zone")
		net := newWiring(bufconn.Listen(1 << 20))
		g := grpc.NewServer()
		global := &strangeGlobal{streams: make(chan grpc.ServerStream), end: make(chan struct{})}
		g.RegisterService(&kdspb.SyncService, global)
		at := net.at
		east.run(func() { _ = g.Serve(at) })
		f := &federation{t: t, net: net, zones: map[string]*plane{"east": east}, links: map[string]*kds.Link{}}
		f.link("east", nil)

		connect := func() (down, up *stranger) {
			for range 2 {
				s := <-global.streams
				if method, _ := grpc.MethodFromServerStream(s); method == kdspb.GlobalToZoneSync {
					down = &stranger{t: t, zone: "east", stream: s}
				} else {
					up = &stranger{t: t, zone: "east", stream: s}
				}
			}
			return down, up
		}
		down, up := connect()
		first := down.request()
		features := first.Node.GetMetadata().GetFields()["features"].GetListValue().GetValues()
		if first.Node.GetId() != "east" || len(features) < 4 || first.ResponseNonce != "" {
			t.Errorf("first request: %v", first)
		}
		up.send(&discovery.DeltaDiscoveryRequest{Node: strangeNode("east"), TypeUrl: "MeshService", ResourceNamesSubscribe: []string{"*"}})
		m := up.response()
		if got := opened(t, m.Resources[0]); got.Meta.Name != api.SyncName(api.MeshServices, mine) || got.Meta.Labels[api.LabelZone] != "east" || m.ControlPlane.GetIdentifier() != "east" || m.SystemVersionInfo != "" {
			t.Errorf("service: %v %v", got, m)
		}
		up.ack(m)
		up.send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "east"}, TypeUrl: "MeshTimeout", ResourceNamesSubscribe: []string{"*"}})
		m = up.response()
		returned := m.Resources[slices.IndexFunc(m.Resources, func(r *discovery.Resource) bool {
			return strings.HasPrefix(r.Name, api.SyncName(api.MeshTimeouts, named))
		})]
		if got := opened(t, returned); string(got.Spec.Value) != timeoutOf(`"kind":"Dataplane","labels":{"kuma.io/display-name":"web"}`) {
			t.Errorf("an older form was sent up as %s", got.Spec.Value)
		}
		up.ack(m)
		down.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshTimeout", Nonce: "0", Resources: []*discovery.Resource{returned}})
		down.answerTo("MeshTimeout", "0")
		if got := string(east.row(api.MeshTimeouts, named).Raw()); got != timeoutOf(`"kind":"Dataplane","name":"web"`) {
			t.Errorf("what came back replaced what was written: %s", got)
		}

		theirs := jsonResource(t, "mt1-xz4845xdv4b254b6", "default", timeout(1), api.LabelDisplayName, "mt1", api.LabelOrigin, "global")
		unlabelled := jsonResource(t, "x-1", "default", timeout(1))
		down.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshTimeout", Nonce: "1", Resources: []*discovery.Resource{theirs, unlabelled}})
		if answer := down.answerTo("MeshTimeout", "1"); answer.ErrorDetail != nil {
			t.Errorf("answer: %v", answer)
		}
		copied := api.ID{Kind: "MeshTimeout", Mesh: "default", Name: "mt1"}
		if !east.has(api.MeshTimeouts, copied) || !east.has(api.MeshTimeouts, local) || len(east.ids(api.MeshTimeouts)) != 3 {
			t.Errorf("policies in the zone: %v", east.ids(api.MeshTimeouts))
		}

		close(global.end) // silence deletes nothing; the next first state counts, empty as it is
		synctest.Wait()
		if !east.has(api.MeshTimeouts, copied) {
			t.Error("the end of the stream deleted a copy")
		}
		global.end = make(chan struct{})
		began := time.Now()
		down, _ = connect()
		if wait := time.Since(began); wait < time.Second || wait > 2*time.Second {
			t.Errorf("reconnected after %v, want the base of the backoff", wait)
		}
		down.send(&discovery.DeltaDiscoveryResponse{TypeUrl: "MeshTimeout", Nonce: "1"})
		down.answerTo("MeshTimeout", "1")
		if east.has(api.MeshTimeouts, copied) || !east.has(api.MeshTimeouts, local) {
			t.Errorf("policies after an empty first state: %v", east.ids(api.MeshTimeouts))
		}
		g.Stop()
		east.stop()
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		east := newPlane(t, "east")
		var at []time.Time
		f := &federation{t: t, net: newWiring(nil), zones: map[string]*plane{"east": east}, links: map[string]*kds.Link{}}
		f.link("east", func(o *kds.LinkOptions) {
			o.Token = func(context.Context) (string, error) {
				at = append(at, time.Now())
				return "", errors.New("no token today")
			}
		})
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
			if got := at[i+1].Sub(at[i]); got != want*time.Second {
				t.Errorf("wait %d: %v, want %v s", i, got, int(want))
			}
		}
		east.stop()
	})
}
