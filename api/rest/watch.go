package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// Events of a watch (HTML Living Standard, "Server-sent events"). A stream
// begins with a reset, unless it resumes, and another comes when roles change:
// the caller may see something else then. The data is one JSON object:
//
//	event: reset   {"type":"reset","revision":812,"documents":[…]}   this is all there is
//	event: put     {"type":"put","revision":813,"document":{…}}      new, or changed
//	event: delete  {"type":"delete","revision":814,"document":{"type":…,"mesh":…,"name":…}}
//	event: end     {…}                                               why it ends: an error body
//
// A client may resume from the id of any event that it has read, or from the
// header Atoll-Position of an answer: as the query's revision, or as the header
// Last-Event-ID, which browsers send by themselves. A revision alone does as
// well, as long as this process has not seen another history that had it. Comments, and ids without data, come between events while
// nothing changes. Overviews have no revision and cannot resume: they are made
// of rows that count differently.
type watchEvent struct {
	Type      string          `json:"type"`
	Revision  uint64          `json:"revision,omitempty"`
	Document  json.RawMessage `json:"document,omitempty"`
	Documents json.RawMessage `json:"documents,omitempty"`
}

const (
	// heartbeat is the time between comments, by which both ends notice that
	// the other is gone, and after which the caller's right is judged anew.
	heartbeat = 15 * time.Second
	// chunk is how much is gathered before it is sent, in bytes.
	chunk = 64 << 10
)

// watches reports whether the request is for a stream of changes.
func watches(r *http.Request) bool {
	yes, err := strconv.ParseBool(r.URL.Query().Get("watch"))
	return err == nil && yes && r.Method == http.MethodGet
}

// Lasting lifts the server's limits of time from an answer that comes only
// after so long a wait; the client has then as long to take it as any other.
func Lasting(w http.ResponseWriter, wait time.Duration) {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // not supported: there is no limit
	_ = c.SetWriteDeadline(time.Now().Add(wait + writeTimeout))
}

// stream writes events.
type stream struct {
	w   http.ResponseWriter
	out *http.ResponseController
	buf bytes.Buffer
}

// send passes on what was gathered. A client that takes nothing for as long as
// an answer may take is gone.
func (s *stream) send() error {
	_ = s.out.SetWriteDeadline(time.Now().Add(writeTimeout)) // not supported: no limit
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	s.buf.Reset()
	return s.out.Flush()
}

func (s *stream) event(e watchEvent, id string) error {
	data, err := encode(e)
	if err != nil {
		return err
	}
	s.head(e.Type, id)
	fmt.Fprintf(&s.buf, "data: %s\n\n", data)
	if s.buf.Len() > chunk {
		return s.send()
	}
	return nil
}

func (s *stream) head(event, id string) {
	fmt.Fprintf(&s.buf, "event: %s\n", event)
	if id != "" {
		fmt.Fprintf(&s.buf, "id: %s\n", id)
	}
}

// watching is one request for a stream.
type watching struct {
	*server
	r *http.Request
	k api.AnyKind
	v view
	*watcher
	stream
	at position // up to which the client has everything
}

func (s *server) watch(w http.ResponseWriter, r *http.Request, k api.AnyKind, v view, match func(api.Row) bool) error {
	from, resumes, err := resumesFrom(r)
	if err != nil {
		return err
	}
	one := watching{
		server: s, r: r, k: k, v: v,
		watcher: &watcher{kind: k.Info().Name, match: match, wake: make(chan struct{}, 1), dirty: map[string]stale{}},
		stream:  stream{w: w, out: http.NewResponseController(w)},
	}
	if v.with != nil {
		one.with = v.with.Info().Name
	}
	leave, err := s.lasting.enter(r)
	if err != nil {
		return err
	}
	defer leave()
	s.recent.join(one.watcher)
	defer s.recent.leave(one.watcher)
	Lasting(w, 0) // each event has a limit of its own
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between shall not gather events
	w.WriteHeader(http.StatusOK)
	_ = one.out.Flush() // the client shall see that the stream is open
	one.at = from
	if !resumes || v.with != nil || !s.recent.resume(one.watcher, from, markOf(s.DB.Snapshot())) {
		err = one.reset()
	}
	if err == nil {
		err = one.run()
	}
	if r.Context().Err() == nil && err != nil {
		s.Log.Debug("a watch ended", "path", r.URL.Path, "error", err)
	}
	return nil // the answer has begun: an error has no other way to the client
}

// resumesFrom reads where the client left off.
func resumesFrom(r *http.Request) (from position, resumes bool, err error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		from, resumes = parsePosition(id) // of another make: it gets everything
		return from, resumes, nil
	}
	text := r.URL.Query().Get("revision")
	if text == "" {
		return from, false, nil
	}
	if from, resumes = parsePosition(text); !resumes {
		return from, false, invalid(api.Fault{Field: "revision", Reason: fmt.Sprintf("%q is no revision: it is the id of an event, or the header %s or %s of an answer", text, PositionHeader, RevisionHeader)})
	}
	return from, true, nil
}

// run sends changes until the client goes, may not watch any longer, or the
// server drains.
func (s *watching) run() error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	if err := s.changes(); err != nil {
		return err
	}
	for {
		select {
		case <-s.r.Context().Done():
			return s.r.Context().Err()
		case <-Draining(s.r.Context()):
			return s.end(&Problem{Status: http.StatusServiceUnavailable, Title: "Service unavailable", Detail: "the control plane is shutting down"})
		case <-beat.C:
			s.buf.WriteString(": heartbeat\n")
		case <-s.wake:
		}
		if err := s.mayStill(); err != nil {
			return s.end(err)
		}
		if err := s.changes(); err != nil {
			return err
		}
		if _, err := MeshOf(s.DB.Snapshot(), s.r); err != nil {
			return s.end(err)
		}
	}
}

// mayStill judges the caller again: tokens expire, and are revoked.
func (s *watching) mayStill() error {
	user, err := s.caller(s.r)
	if err != nil {
		return err
	}
	info := s.k.Info()
	return s.allow(as(s.r, user), s.grantFor(info, false), info.Name)
}

// end tells the client why nothing follows.
func (s *watching) end(reason error) error {
	p := problemOf(reason)
	data, err := encode(&p)
	if err != nil {
		return err
	}
	s.head("end", "")
	fmt.Fprintf(&s.buf, "data: %s\n\n", data)
	return s.send()
}

// id is what a client resumes from; none for documents of two kinds.
func (s *watching) id(p position) (id string, revision uint64) {
	if s.with != "" {
		return "", 0
	}
	return p.String(), p.revision
}

// reset sends all there is as one event, in pieces.
func (s *watching) reset() error {
	_, at, _ := s.recent.take(s.watcher)
	return s.everything(at)
}

func (s *watching) everything(at position) error {
	s.at = at
	snap := s.DB.Snapshot()
	id, revision := s.id(at)
	s.head("reset", id)
	fmt.Fprintf(&s.buf, `data: {"type":"reset","revision":%d,"documents":[`, revision)
	first := true
	for row := range s.k.AllRows(snap) {
		if !s.shows(snap, row) {
			continue
		}
		document, err := s.v.render(snap, s.k, row)
		if err != nil {
			return err
		}
		if !first {
			s.buf.WriteByte(',')
		}
		first = false
		s.buf.Write(oneLine(document))
		if s.buf.Len() > chunk {
			if err := s.send(); err != nil {
				return err
			}
		}
	}
	s.buf.WriteString("]}\n\n")
	return s.send()
}

// oneLine keeps a document from ending its line of data.
func oneLine(document json.RawMessage) []byte {
	var b bytes.Buffer
	if json.Compact(&b, document) != nil {
		return document
	}
	return b.Bytes()
}

// shows reports whether the row is watched, and the caller may read it.
func (s *watching) shows(snap *db.Snapshot, row api.Row) bool {
	return s.match(row) && s.reads(s.r, snap, row)
}

// changes sends what changed since the last time, as it is now. Only the last
// event has the new position: before it, the client does not have everything.
func (s *watching) changes() error {
	dirty, at, anew := s.recent.take(s.watcher)
	if anew {
		return s.everything(at)
	}
	snap := s.DB.Snapshot()
	before, was := s.id(s.at)
	after, is := s.id(at)
	var last *watchEvent // is held back until it shows whether it is the last
	for _, one := range dirty {
		e, ok, err := s.eventOf(snap, one)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if last != nil {
			if err := s.event(*last, before); err != nil {
				return err
			}
		}
		e.Revision = was
		last = &e
	}
	if last != nil {
		last.Revision = is
		if err := s.event(*last, after); err != nil {
			return err
		}
	}
	s.at = at
	switch {
	case last != nil:
	case s.buf.Len() == 0:
		return nil
	case after != "": // not an event: it only moves where to resume
		fmt.Fprintf(&s.buf, "id: %s\n\n", after)
	default:
		s.buf.WriteByte('\n')
	}
	return s.send()
}

func (s *watching) eventOf(snap *db.Snapshot, one stale) (e watchEvent, ok bool, err error) {
	row, exists := s.k.Row(snap, one.id)
	if exists && s.shows(snap, row) {
		e.Type = "put"
		e.Document, err = s.v.render(snap, s.k, row)
		return e, true, err
	}
	if one.had == nil || !s.reads(s.r, snap, one.had) {
		return e, false, nil
	}
	e.Type = "delete"
	e.Document, err = encode(struct {
		Type string `json:"type"`
		Mesh string `json:"mesh,omitempty"`
		Name string `json:"name"`
	}{s.k.Info().Name, one.id.Mesh, one.core})
	return e, true, err
}

// stamp names the position that an answer shows: from there a watch goes on.
func (s *server) stamp(w http.ResponseWriter, k api.AnyKind, snap *db.Snapshot) {
	if !k.Info().Memory {
		mark := markOf(snap)
		w.Header().Set(RevisionHeader, strconv.FormatUint(mark.Counter, 10))
		w.Header().Set(PositionHeader, position{mark.Epoch, mark.Counter}.String())
	}
}
