package rest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/store"
)

// event is one event of a watch, as a client reads it.
type event struct {
	name, id string
	data     struct {
		Type      string
		Revision  uint64
		Title     string
		Detail    string
		Document  map[string]any
		Documents []map[string]any
	}
}

// text is put t1 (or reset t1 t2): what happened, to what.
func (e event) text() string {
	names := []string{e.name}
	for _, d := range append(e.data.Documents, e.data.Document) {
		if d != nil {
			names = append(names, fmt.Sprint(d["name"]))
		}
	}
	return strings.Join(names, " ")
}

// watched is a stream that is read. Its client can be made to stop reading.
type watched struct {
	t    testing.TB
	in   *bufio.Reader
	stop func()
	last string // the newest id
	beat int
}

// next reads one event; ok is false when the stream has ended.
func (w *watched) next() (e event, ok bool) {
	w.t.Helper()
	for {
		line, err := w.in.ReadString('\n')
		if err != nil {
			return event{}, false
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "event":
			e.name = value
		case "id":
			e.id, w.last = value, value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				w.t.Fatalf("%s: %v", value, err)
			}
		case "":
			if value == "heartbeat" {
				w.beat++
			} else if e.name != "" {
				return e, true
			}
		}
	}
}

func (w *watched) want(text string) event {
	w.t.Helper()
	e, ok := w.next()
	if !ok || e.text() != text {
		w.t.Fatalf("%q, want %q", e.text(), text)
	}
	return e
}

// pipe is a response that is read while it is written, one byte after the other.
type pipe struct {
	*io.PipeWriter
	header http.Header
	status int
}

func (p *pipe) Header() http.Header    { return p.header }
func (p *pipe) WriteHeader(status int) { p.status = status }
func (p *pipe) Flush()                 {}

// watch opens a stream without a network between.
func (p *plane) watch(path string, change ...func(*http.Request)) *watched {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	q := httptest.NewRequestWithContext(ctx, "GET", "http://cp.example:5681"+path, nil)
	q.Header.Set("Authorization", "Bearer "+p.token)
	q.Header.Set("Accept", "text/event-stream")
	for _, f := range change {
		f(q)
	}
	in, out := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.http.ServeHTTP(&pipe{PipeWriter: out, header: http.Header{}}, q)
		_ = out.Close() // a pipe
	}()
	w := &watched{t: p.t, in: bufio.NewReader(in), stop: sync.OnceFunc(func() {
		cancel()
		_ = in.Close() // a pipe
		<-done
	})}
	p.t.Cleanup(w.stop)
	return w
}

func (p *plane) idle(name, span string) {
	p.t.Helper()
	doc := strings.Replace(timeout("default", name), "30m", span, 1)
	if r := p.do("PUT", "/meshes/default/meshtimeouts/"+name, doc); r.status > 201 {
		p.t.Fatalf("%d %s", r.status, r.text)
	}
}

const timeouts = "/meshes/default/meshtimeouts"

func TestWatch(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.idle("t1", "1m")
	w := p.watch(timeouts + "?watch=true")
	first := w.want("reset t1")
	if first.data.Revision == 0 || first.id == "" || first.data.Documents[0]["kri"] != "kri_mt_default_east__t1_" {
		t.Errorf("%+v", first)
	}
	p.idle("t2", "1m")
	put := w.want("put t2")
	if put.data.Revision <= first.data.Revision || put.data.Document["spec"] == nil || !strings.HasSuffix(put.id, fmt.Sprintf(":%d", put.data.Revision)) {
		t.Errorf("%+v", put)
	}
	p.mesh("other")
	p.want(201, "PUT", "/meshes/other/meshtimeouts/x", timeout("other", "x")) // of no concern
	p.want(200, "DELETE", timeouts+"/t1", "")
	gone := w.want("delete t1")
	if d := gone.data.Document; d["type"] != "MeshTimeout" || d["mesh"] != "default" || d["spec"] != nil {
		t.Errorf("%v", gone)
	}
	one := p.watch(timeouts + "/t2?watch=1")
	one.want("reset t2")
	p.idle("t3", "1m")
	p.idle("t2", "2m")
	one.want("put t2")
	absent := p.watch(timeouts + "/t9?watch=1")
	absent.want("reset")
	p.idle("t9", "2m")
	absent.want("put t9")
	everywhere := p.watch("/meshtimeouts?watch=true&filter[labels.kuma.io/mesh]=other")
	everywhere.want("reset x")
	p.want(404, "GET", "/meshes/nope/meshtimeouts?watch=true", "")
	p.want(401, "GET", timeouts+"?watch=true", "", anonymous)
	p.want(400, "GET", timeouts+"?watch=true&revision=x", "")
	p.want(406, "GET", timeouts, "", func(r *http.Request) { r.Header.Set("Accept", "text/event-stream") })
	p.want(200, "GET", timeouts+"?watch=perhaps", "")
}

func TestWatchResumes(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	for _, name := range []string{"a", "b", "c"} {
		p.idle(name, "1m")
	}
	listed := p.want(200, "GET", timeouts, "").header.Get(rest.RevisionHeader)
	p.idle("b", "2m")
	p.want(200, "DELETE", timeouts+"/c", "")
	p.idle("d", "1m")
	p.idle("e", "1m")
	p.want(200, "DELETE", timeouts+"/e", "")
	w := p.watch(timeouts + "?watch=true&revision=" + listed)
	var got []string
	for range 3 {
		e, _ := w.next()
		got = append(got, e.text())
		if (e.id == w.last) && len(got) < 3 && !strings.HasSuffix(e.id, ":"+listed) {
			t.Errorf("%s moves on before all is told", e.text())
		}
	}
	// e came and went: it is not told of. What changed twice is told once.
	if slices.Sort(got); !slices.Equal(got, []string{"delete c", "put b", "put d"}) {
		t.Errorf("%q", got)
	}
	last := w.last
	if newest := p.want(200, "GET", timeouts, "").header.Get(rest.RevisionHeader); !strings.HasSuffix(last, ":"+newest) {
		t.Errorf("after the third event the client is at %s, not at %s", last, newest)
	}
	w.stop()
	p.idle("a", "3m")
	from := func(id string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Last-Event-ID", id) }
	}
	p.watch(timeouts+"?watch=true&revision=1", from(last)).want("put a")
	p.idle("z", "1m")
	for name, id := range map[string]string{
		"another history": "elsewhere:3", "yet to come": strings.Replace(last, ":", ":9", 1), "not ours": "7f", "before the beginning": "0",
	} {
		if e, _ := p.watch(timeouts+"?watch=true", from(id)).next(); e.text() != "reset a b d z" {
			t.Errorf("%s: %s", name, e.text())
		}
	}
}

// After a restore revisions count on in another history: whoever was told one of
// the history before begins again, even where only its number is left.
func TestWatchBeginsAgainAfterARestore(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.idle("lost", "1m")
	listed := p.want(200, "GET", timeouts, "")
	number, position := listed.header.Get(rest.RevisionHeader), listed.header.Get(rest.PositionHeader)
	if p.watch(timeouts+"?watch=true").want("reset lost").id != position {
		t.Errorf("a list is at %s", position)
	}
	p.store.epoch = "restored"
	p.idle("a", "1m")
	between := p.want(200, "GET", timeouts, "").header
	p.idle("b", "1m")
	for _, from := range []string{number, position} {
		p.watch(timeouts + "?watch=true&revision=" + from).want("reset a b lost")
	}
	// The first revision of this history may be one of the other.
	p.watch(timeouts + "?watch=true&revision=" + between.Get(rest.RevisionHeader)).want("reset a b lost")
	p.watch(timeouts + "?watch=true&revision=" + between.Get(rest.PositionHeader)).want("put b")
	later := p.want(200, "GET", timeouts, "").header
	p.idle("c", "1m")
	for _, from := range []string{later.Get(rest.RevisionHeader), later.Get(rest.PositionHeader)} {
		p.watch(timeouts + "?watch=true&revision=" + from).want("put c")
	}
}

func TestWatchThatIsTooOldGetsAll(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.idle("a", "1m")
	revision := p.want(200, "GET", timeouts, "").header.Get(rest.RevisionHeader)
	for i := range 600 {
		p.apply(dataplaneRecord("dp")) // another kind does not push it out
		if i%100 == 0 {
			p.idle("a", fmt.Sprintf("%dm", i+2))
		}
	}
	p.watch(timeouts + "?watch=true&revision=" + revision).want("put a")
	for i := range 600 {
		p.idle("b", fmt.Sprintf("%dm", i+2))
	}
	p.watch(timeouts + "?watch=true&revision=" + revision).want("reset a b")
}

// A client that reads slowly is sent what is, not what was.
func TestWatchMerges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlane(t, atZone)
		p.mesh("default")
		w := p.watch(timeouts + "?watch=true")
		w.want("reset")
		p.idle("a", "1m")
		synctest.Wait() // it is being sent, and the client does not read
		for i := range 50 {
			p.idle("a", fmt.Sprintf("%dm", i+2))
			p.idle("b", fmt.Sprintf("%dm", i+2))
		}
		p.want(200, "DELETE", timeouts+"/b", "")
		p.idle("c", "1m")
		w.want("put a")
		for want := range strings.SplitSeq("put a,put c", ",") {
			if e := w.want(want); e.name == "put" && e.data.Document["name"] == "a" && !strings.Contains(fmt.Sprint(e.data.Document), "51m") {
				t.Errorf("not the newest: %v", e.data.Document)
			}
		}
		p.idle("d", "1m")
		w.want("put d") // nothing was left of the rest
		w.stop()
	})
}

// What a slow client has not taken is not kept for it.
func TestWatchRendersWhatIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		var rendered atomic.Int64
		p := newPlane(t, atZone, func(o *rest.Options) {
			o.Status = func(db.Reader, api.Row) any { rendered.Add(1); return nil }
		})
		p.mesh("default")
		w := p.watch(timeouts + "?watch=true")
		w.want("reset")
		records := make([]store.Record, n)
		for i := range records {
			records[i] = store.Record{
				ID:   api.ID{Kind: "MeshTimeout", Mesh: "default", Zone: "east", Name: fmt.Sprintf("t%05d", i)},
				Spec: json.RawMessage(`{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"30m"}}]}`),
			}
		}
		p.apply(records...)
		w.want("put t00000")
		synctest.Wait()
		if got := rendered.Load(); got > n/2 {
			t.Errorf("%d documents were made before the second was taken", got)
		}
		for range n - 1 {
			w.next()
		}
		if got := rendered.Load(); got != n {
			t.Errorf("%d documents were made of %d", got, n)
		}
		w.stop()
	})
}

func TestWatchBeatsAndEndsWithTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now() // of the fake clock
		p := newPlane(t, atZone, func(o *rest.Options) { o.Now = func() time.Time { return start.Add(time.Since(begin)) } })
		p.mesh("default")
		w := p.watch(timeouts + "?watch=true")
		w.want("reset")
		before := w.last
		p.want(201, "PUT", "/meshes/default/dataplanes/dp", proxy("default", "dp", ""))
		// While nothing comes, time passes until the token is over.
		if e := w.want("end"); e.data.Title != "Invalid authentication data" {
			t.Errorf("%+v", e)
		}
		if w.beat < 238 || w.beat > 241 || w.last == before || time.Since(begin) > time.Hour+time.Minute {
			t.Errorf("%d comments in an hour; from %s to %s", w.beat, before, w.last)
		}
		if e, ok := w.next(); ok {
			t.Errorf("after the end: %+v", e)
		}
	})
}

func TestWatchEndsWithTheMesh(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.idle("a", "1m")
	w := p.watch(timeouts + "?watch=true")
	w.want("reset a")
	p.want(200, "DELETE", "/meshes/default", "")
	w.want("delete a")
	if e := w.want("end"); e.data.Title != "Failed to retrieve Mesh" {
		t.Errorf("%+v", e)
	}
}

func TestWatchOfOverviews(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	p.want(201, "PUT", "/meshes/default/dataplanes/dp", proxy("default", "dp", ""))
	w := p.watch("/meshes/default/dataplanes/_overview?watch=true")
	if e := w.want("reset dp"); e.id != "" || e.data.Documents[0]["dataplaneInsight"] != nil {
		t.Errorf("%+v", e)
	}
	connect := func(name string) {
		now := start
		if _, err := p.db.Write(func(tx *db.Tx) error {
			id := api.ID{Mesh: "default", Zone: "east", Name: name}
			api.DataplaneInsights.PutObject(tx, api.DataplaneInsights.New(api.Meta{ID: id, Core: name}, api.DataplaneInsight{
				Subscriptions: []api.DataplaneSubscription{{ID: "1", ConnectTime: &now}},
			}))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	connect("without") // no Dataplane: nothing to tell
	connect("dp")
	if e := w.want("put dp"); e.data.Document["dataplaneInsight"] == nil {
		t.Errorf("%+v", e)
	}
	insights := p.watch("/dataplane-insights?watch=true")
	e := insights.want("reset dp without")
	if !strings.HasPrefix(e.id, "one:") {
		t.Errorf("an insight counts in the commits of its instance: %+v", e)
	}
	connect("late")
	insights.want("put late")
	p.watch("/dataplane-insights?watch=true", func(r *http.Request) { r.Header.Set("Last-Event-ID", e.id) }).want("put late")
}

// Over a network: the server's limits of time do not end a stream, its end does.
func TestWatchOverHTTP(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	s := httptest.NewUnstartedServer(nil)
	s.Config = rest.NewServer(p.http, slog.New(slog.DiscardHandler))
	s.Config.ReadTimeout, s.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	s.Start()
	defer s.Close()
	q, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+timeouts+"?watch=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+p.token)
	res, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v", res)
	}
	w := &watched{t: t, in: bufio.NewReader(res.Body)}
	w.want("reset")
	<-time.After(150 * time.Millisecond) // past both limits
	p.idle("a", "1m")
	w.want("put a")
	done := make(chan error, 1)
	go func() { done <- s.Config.Shutdown(t.Context()) }()
	if e := w.want("end"); !strings.Contains(e.data.Detail, "shutting down") {
		t.Errorf("%+v", e)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatchNeedsTheGrantOfTheKind(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	jane, err := auth.IssueUser(p.db.Snapshot(), start, auth.User{Name: "jane"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p.want(403, "GET", "/globalsecrets?watch=true", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+jane) })
}

// FuzzPosition lets a client resume from anywhere. It is refused, or told of the
// one row there is, unless it comes from where it knows that already.
func FuzzPosition(f *testing.F) {
	p := newPlane(f, atZone)
	p.mesh("default")
	p.idle("a", "1m")
	here := p.want(200, "GET", timeouts, "").header.Get(rest.PositionHeader)
	for _, seed := range []string{here, "", "0", "7", ":", ":7", "x:7", "-1", "99999999999999999999", "1e3", here + " "} {
		f.Add(seed)
	}
	number := func(position string) uint64 {
		n, _ := strconv.ParseUint(position[strings.LastIndexByte(position, ':')+1:], 10, 64)
		return n
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a stream ends as soon as it has said what there is
	f.Fuzz(func(t *testing.T, text string) {
		p := *p
		p.t = t
		for _, ask := range []func(*http.Request){
			func(r *http.Request) { r.URL.RawQuery += "&" + url.Values{"revision": {text}}.Encode() },
			func(r *http.Request) { r.Header.Set("Last-Event-ID", text) },
		} {
			r := p.do("GET", timeouts+"?watch=true", "", func(r *http.Request) {
				ask(r)
				*r = *r.WithContext(ctx)
			})
			told := strings.Contains(r.text, `"name":"a"`)
			switch {
			case r.status == 400 && strings.Contains(strings.Join(r.faults(t), ""), "revision: "):
			case r.status == 200 && (told || number(text) >= number(here)):
			default:
				t.Fatalf("%q: %d %s", text, r.status, r.text)
			}
		}
	})
}
