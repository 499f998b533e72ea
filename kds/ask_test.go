package kds_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/kds"
	"github.com/atoll-mesh/atoll/kds/kdspb"
)

// proxyAt puts a Dataplane into a zone and returns what global has of it.
func (f *federation) proxyAt(zone, name string) *api.Object[api.Dataplane] {
	f.t.Helper()
	f.global.put(api.Meshes, "", "default", meshSpec)
	synctest.Wait()
	id := f.zones[zone].put(api.Dataplanes, "default", name, planeSpec)
	synctest.Wait()
	return f.global.row(api.Dataplanes, id).(*api.Object[api.Dataplane])
}

// answering is a link whose zone answers as f does.
func answering(f func(ctx context.Context, mesh, name string, q api.Question) ([]byte, error)) func(*kds.LinkOptions) {
	return func(o *kds.LinkOptions) { o.Answer = f }
}

var questions = []api.Question{
	{About: api.AboutConfig}, {About: api.AboutConfig, EDS: true},
	{About: api.AboutStats}, {About: api.AboutStats, JSON: true, Used: true}, {About: api.AboutStats, Used: true},
	{About: api.AboutClusters}, {About: api.AboutClusters, JSON: true},
}

func TestZonesAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		defer f.close()
		for _, zone := range []string{"east", "west"} {
			f.zones[zone] = newPlane(t, zone)
			f.link(zone, answering(func(_ context.Context, mesh, name string, q api.Question) ([]byte, error) {
				if name == "broken" {
					return nil, errors.New("it has no Envoy")
				}
				return fmt.Appendf(nil, "%s/%s/%s %+v", zone, mesh, name, q), nil
			}))
		}
		synctest.Wait()
		east, west, broken := f.proxyAt("east", "web"), f.proxyAt("west", "web"), f.proxyAt("east", "broken")
		for _, q := range questions {
			for zone, proxy := range map[string]*api.Object[api.Dataplane]{"east": east, "west": west} {
				got, err := f.server.Ask(t.Context(), proxy, q)
				if want := fmt.Sprintf("%s/default/web %+v", zone, q); err != nil || string(got) != want {
					t.Errorf("answered %q (%v), want %q", got, err, want)
				}
			}
			if _, err := f.server.Ask(t.Context(), broken, q); !errors.Is(err, kds.ErrAnswer) || !strings.Contains(err.Error(), "zone east: the zone could not answer: it has no Envoy") {
				t.Errorf("error %v", err)
			}
		}
		streams := f.global.row(api.ZoneInsights, api.LocalID(api.ZoneInsights, "", "", "east", f.global.site)).Body().(*api.ZoneInsight).KDSStreams
		for name, s := range map[string]*api.KDSStream{"config": streams.ConfigDump, "stats": streams.Stats, "clusters": streams.Clusters} {
			if s == nil || s.GlobalInstanceID != "instance-" {
				t.Errorf("the zone's insight says of %s: %+v", name, s)
			}
		}

		f.net.part("east", true)
		synctest.Wait()
		if _, err := f.server.Ask(t.Context(), east, questions[0]); !errors.Is(err, api.ErrNotConnected) || !strings.Contains(err.Error(), "zone east is offline") {
			t.Errorf("of a zone that is away: %v", err)
		}
		f.net.part("east", false)
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, err := f.server.Ask(t.Context(), east, questions[0]); err != nil {
			t.Errorf("of a zone that is back: %v", err)
		}
	})
}

// A zone that goes while it is asked, that takes its time, or that has too much to
// say costs the asker a clear error, and the link nothing.
func TestZonesFailToAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		defer f.close()
		f.zones["east"] = newPlane(t, "east")
		var open atomic.Int32
		f.link("east", answering(func(ctx context.Context, _, _ string, q api.Question) ([]byte, error) {
			if q.About == api.AboutConfig {
				return make([]byte, 10<<20), nil
			}
			open.Add(1)
			defer open.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}))
		synctest.Wait()
		proxy := f.proxyAt("east", "web")
		if _, err := f.server.Ask(t.Context(), proxy, api.Question{About: api.AboutConfig}); err == nil || !strings.Contains(err.Error(), "10485760 bytes") {
			t.Errorf("too much: %v", err)
		}
		began := time.Now()
		if _, err := f.server.Ask(t.Context(), proxy, api.Question{About: api.AboutStats}); !errors.Is(err, kds.ErrAnswer) || time.Since(began) != 10*time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		// Who does not wait has an answer that comes late, which harms nobody.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.server.Ask(ctx, proxy, api.Question{About: api.AboutStats}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()

		// No more than 32 at a time; all end with the connection.
		failed := make(chan error, 40)
		for range cap(failed) {
			go func() {
				_, err := f.server.Ask(t.Context(), proxy, api.Question{About: api.AboutStats})
				failed <- err
			}()
		}
		synctest.Wait()
		if n := open.Load(); n != 32 || len(failed) != 8 {
			t.Errorf("%d questions are open, %d refused; want 32 and 8", n, len(failed))
		}
		for len(failed) > 0 {
			if err := <-failed; !errors.Is(err, kds.ErrAnswer) {
				t.Errorf("one too many: %v", err)
			}
		}
		f.net.part("east", true)
		synctest.Wait()
		if len(failed) != 32 {
			t.Errorf("%d of 32 askers were told that the zone is gone", len(failed))
		}
		for len(failed) > 0 {
			if err := <-failed; !errors.Is(err, api.ErrNotConnected) {
				t.Errorf("the zone went: %v", err)
			}
		}
		if st := f.status("east"); len(st.Refused)+len(st.Rejected) > 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A control plane of the existing ecosystem as the zone: the bytes of the
// contract, and what it must not do.
func TestStrangersAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east", "west")
		defer f.close()
		proxy := f.proxyAt("east", "web")
		if _, err := f.server.Ask(t.Context(), proxy, questions[0]); !errors.Is(err, api.ErrNotConnected) || !strings.Contains(err.Error(), "stream to execute XDSConfig operations is not yet connected") {
			t.Errorf("no stream: %v", err)
		}
		ask := func(q api.Question) <-chan string {
			got := make(chan string, 1)
			go func() {
				body, err := f.server.Ask(t.Context(), proxy, q)
				got <- fmt.Sprintf("%s %v", body, err)
			}()
			return got
		}

		z := dialStranger(f, "east", kdspb.StreamXDSConfigs)
		synctest.Wait()
		got := ask(api.Question{About: api.AboutConfig, EDS: true})
		req := &kdspb.XDSConfigRequest{}
		if err := z.stream.RecvMsg(req); err != nil {
			t.Fatal(err)
		}
		body, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		want := "0a24" + hex.EncodeToString([]byte(req.RequestId)) + "1209" + hex.EncodeToString([]byte("Dataplane")) + "1a03" + hex.EncodeToString([]byte("web")) + "2207" + hex.EncodeToString([]byte("default")) + "2801"
		if hex.EncodeToString(body) != want || len(req.RequestId) != 36 {
			t.Errorf("request %x, want %s", body, want)
		}
		response := &kdspb.XDSConfigResponse{}
		if err := proto.Unmarshal([]byte("\x0a\x24"+req.RequestId+"\x1a\x0e"+`{"configs":[]}`), response); err != nil {
			t.Fatal(err)
		}
		z.send(response)
		if text := <-got; text != `{"configs":[]} <nil>` {
			t.Errorf("answered %q", text)
		}

		// Another zone cannot answer for it, and an answer that nobody asked for ends
		// the stream of who gave it.
		got = ask(api.Question{About: api.AboutConfig})
		if err := z.stream.RecvMsg(req); err != nil {
			t.Fatal(err)
		}
		thief := dialStranger(f, "west", kdspb.StreamXDSConfigs)
		thief.send(&kdspb.XDSConfigResponse{RequestId: req.RequestId, Result: &kdspb.XDSConfigResponse_Config{Config: []byte("stolen")}})
		err = thief.stream.RecvMsg(&kdspb.XDSConfigRequest{})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "could not mark the response as received") {
			t.Errorf("the thief was told %v", err)
		}
		z.send(&kdspb.XDSConfigResponse{RequestId: req.RequestId, Result: &kdspb.XDSConfigResponse_Error{Error: "no such proxy"}})
		if text := <-got; !strings.HasSuffix(text, "no such proxy") {
			t.Errorf("answered %q", text)
		}
		z.send(&kdspb.XDSConfigResponse{RequestId: req.RequestId}) // once more
		if err := z.stream.RecvMsg(req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("an answer given twice: %v", err)
		}
		two := dialStranger(f, "east", kdspb.StreamStats, "client-id", "west")
		if err := two.stream.RecvMsg(&kdspb.StatsRequest{}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("two names: %v", err)
		}
	})
}

// A newer stream of a zone takes the place of the older, which still answers what
// it was asked.
func TestNewerStreamOfQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t, "east")
		defer f.close()
		proxy := f.proxyAt("east", "web")
		got := make(chan string, 2)
		var streams [2]*stranger
		var requests [2]kdspb.StatsRequest
		for i := range streams {
			streams[i] = dialStranger(f, "east", kdspb.StreamStats)
			synctest.Wait()
			go func() {
				body, _ := f.server.Ask(t.Context(), proxy, api.Question{About: api.AboutStats})
				got <- string(body)
			}()
			if err := streams[i].stream.RecvMsg(&requests[i]); err != nil {
				t.Fatal(err)
			}
		}
		for i, s := range streams {
			s.send(&kdspb.StatsResponse{RequestId: requests[i].RequestId, Result: &kdspb.StatsResponse_Stats{Stats: fmt.Append(nil, i)}})
			if text := <-got; text != fmt.Sprint(i) {
				t.Errorf("answered %q, want %d", text, i)
			}
		}
		f.global.cancel()
		synctest.Wait()
		for _, s := range streams {
			if err := s.stream.RecvMsg(&kdspb.StatsRequest{}); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("global ended: %v", err)
			}
		}
	})
}

// The name by which a zone on Kubernetes is asked has the namespace.
func TestNameOfProxiesOnKubernetes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFederation(t)
		defer f.close()
		f.zones["east"] = newPlane(t, "east")
		f.link("east", func(o *kds.LinkOptions) {
			o.Config = func() string { return `{"store":{"type":"kubernetes"}}` }
			o.Answer = func(_ context.Context, _, name string, _ api.Question) ([]byte, error) { return []byte(name), nil }
		})
		f.global.put(api.Meshes, "", "default", meshSpec)
		synctest.Wait()
		id := f.zones["east"].put(api.Dataplanes, "default", "web", planeSpec, api.LabelNamespace, "shop")
		synctest.Wait()
		time.Sleep(time.Minute) // the zone's configuration reaches its insight a little later
		synctest.Wait()
		id.Namespace = "shop" // at global the label makes it part of the ID
		proxy := f.global.row(api.Dataplanes, id).(*api.Object[api.Dataplane])
		if got, err := f.server.Ask(t.Context(), proxy, questions[0]); err != nil || string(got) != "web.shop" {
			t.Errorf("asked for %q (%v)", got, err)
		}
	})
}
