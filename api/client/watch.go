package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Event is what a watch tells.
type Event struct {
	// Type is one of those below.
	Type string `json:"type"`
	// Revision of the store up to which everything was told; zero for overviews.
	Revision uint64 `json:"revision,omitempty"`
	// Document is the resource of a put; type, mesh and name of a delete.
	Document json.RawMessage `json:"document,omitempty"`
	// Documents are those of a reset.
	Documents []json.RawMessage `json:"documents,omitempty"`
	// Reason why a stream was lost.
	Reason error `json:"-"`
}

// Types of events.
const (
	// Reset: Documents are all there is, whatever was told before.
	Reset = "reset"
	// Put: Document is new, or changed.
	Put = "put"
	// Gone: there is no such resource any more.
	Gone = "delete"
	// Lost: the control plane is out of reach; the watch goes on by itself.
	Lost = "lost"
)

const (
	// silence is how long a stream may say nothing, heartbeats included, before
	// it counts as lost: three heartbeats of the server.
	silence = 45 * time.Second
	// The pause before a lost stream is opened again doubles from first to last.
	firstPause, lastPause = time.Second, 15 * time.Second
)

// errSilent: the server did not even send heartbeats.
var errSilent = fmt.Errorf("nothing was heard for %s", silence)

// Watch yields the changes of the list at the path, all there is first. A stream
// that is lost is opened again from where it ended. An error is the last yield:
// the first connection failed, or the server refuses.
func (c *Client) Watch(ctx context.Context, path string, query url.Values) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := watch{client: c, path: path, query: url.Values{"watch": {"true"}}, yield: yield}
		for name, values := range query {
			w.query[name] = values
		}
		for pause := firstPause; ; pause = min(2*pause, lastPause) {
			w.told = false
			reason := w.stream(ctx)
			var problem *Problem
			switch {
			case errors.Is(reason, errStopped):
				return
			case ctx.Err() != nil:
				yield(Event{}, ctx.Err())
				return
			case !w.opened, errors.As(reason, &problem) && problem.Status < http.StatusInternalServerError:
				yield(Event{}, reason)
				return
			}
			if w.told {
				pause = firstPause
			}
			if !yield(Event{Type: Lost, Reason: reason}, nil) {
				return
			}
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				yield(Event{}, ctx.Err())
				return
			}
		}
	}
}

// errStopped: the caller wants no more events.
var errStopped = errors.New("stopped")

// watch is one caller's, over all its streams.
type watch struct {
	client *Client
	path   string
	query  url.Values
	yield  func(Event, error) bool
	last   string // the newest id
	opened bool   // there was a stream
	told   bool   // this stream told something
}

// stream reads one stream to its end and says why it ended.
func (w *watch) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer timer.Stop()
	request, err := w.client.request(ctx, http.MethodGet, w.path, w.query, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "text/event-stream")
	if w.last != "" {
		request.Header.Set("Last-Event-ID", w.last)
	}
	lasting := w.client.http
	lasting.Timeout = 0 // silence ends it
	answer, err := lasting.Do(request)
	if err != nil {
		return w.client.unreached(causeOf(ctx, err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, maxProblem)) // what there is
		return problemOf(answer.StatusCode, body)
	}
	if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
		return fmt.Errorf("control plane at %s: it cannot watch: the answer is %s", w.client.base, kind)
	}
	w.opened = true
	return w.read(ctx, answer.Body, timer)
}

// maxProblem bounds the body of a refusal, in bytes.
const maxProblem = 1 << 20

// causeOf is why the context ended, if it did; else the error.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// read takes the stream apart (HTML Living Standard, 9.2.6): fields up to an
// empty line are an event; an id alone only moves where to resume.
func (w *watch) read(ctx context.Context, body io.Reader, timer *time.Timer) error {
	limited := &io.LimitedReader{R: body, N: maxAnswer}
	in := bufio.NewReader(limited)
	var event string
	var data bytes.Buffer
	for {
		line, err := in.ReadBytes('\n')
		switch {
		case err != nil && limited.N == 0:
			return fmt.Errorf("control plane at %s: an event is larger than %d bytes", w.client.base, maxAnswer)
		case err != nil:
			return w.client.unreached(causeOf(ctx, err))
		}
		limited.N = maxAnswer
		timer.Reset(silence)
		field, value, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			event = string(value)
		case "id":
			w.last = string(value)
		case "data":
			data.Write(value)
		case "":
			if len(value) > 0 || event == "" {
				continue // a comment, or the end of an id
			}
			if err := w.dispatch(event, data.Bytes()); err != nil {
				return err
			}
			event = ""
			data.Reset()
		}
	}
}

func (w *watch) dispatch(event string, data []byte) error {
	if event == "end" {
		var status struct{ Status int }
		_ = json.Unmarshal(data, &status) // without: 0
		return problemOf(status.Status, data)
	}
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return fmt.Errorf("control plane at %s: event %s: %w", w.client.base, event, err)
	}
	e.Type, w.told = event, true
	if !w.yield(e, nil) {
		return errStopped
	}
	return nil
}
