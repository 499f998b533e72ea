package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/zone/proxy"
)

// teller is Envoy's listener: body with a tag, or an error.
type teller struct {
	mu     sync.Mutex
	status int // 0: 200, or 304 for who has the tag
	body   string
	err    error

	asked []string // status of each answer
}

func (s *teller) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		s.asked = append(s.asked, "error")
		return nil, s.err
	}
	tag := fmt.Sprintf("tag of %s", s.body)
	res := &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(s.body)), Header: http.Header{"Etag": {tag}}, Request: r}
	switch {
	case s.status != 0:
		res.StatusCode = s.status
	case r.Header.Get("If-None-Match") == tag:
		res.StatusCode, res.Body = 304, http.NoBody
	}
	s.asked = append(s.asked, fmt.Sprint(res.StatusCode))
	return res, nil
}

// What is told is applied when it changes, and only then; that Envoy does not answer
// changes nothing, but that nothing is told any more does.
func TestDynamic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log buffer
		s := &teller{err: syscall.ENOENT}
		d := proxy.Dynamic{HTTP: &http.Client{Transport: s}, Interval: time.Second, Log: slog.New(slog.NewTextHandler(&log, nil))}
		var applied []string
		go d.Follow(t.Context(), "/x", func(body []byte) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if body == nil {
				applied = append(applied, "nothing")
				return nil
			}
			applied = append(applied, string(body))
			if strings.HasPrefix(string(body), "bad") {
				return errors.New("out of words")
			}
			return nil
		})
		step := func(name string, change func(), seconds int, answers, calls string) {
			t.Helper()
			s.mu.Lock()
			change()
			s.asked, applied = nil, nil
			s.mu.Unlock()
			time.Sleep(time.Duration(seconds) * time.Second)
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			if got := strings.Join(s.asked, " "); got != answers {
				t.Errorf("%s: answers %q, want %q", name, got, answers)
			}
			if got := strings.Join(applied, " "); got != calls {
				t.Errorf("%s: applied %q, want %q", name, got, calls)
			}
		}
		synctest.Wait()
		if !slices.Equal(applied, []string{"nothing"}) {
			t.Errorf("at first: %q", applied)
		}
		step("no listener yet", func() {}, 2, "error error", "")
		step("told", func() { s.err, s.body = nil, "one" }, 3, "200 304 304", "one")
		step("changed", func() { s.body = "two" }, 2, "200 304", "two")
		step("no answer", func() { s.err = errors.New("timeout") }, 2, "error error", "")
		step("overloaded", func() { s.err, s.status = nil, 503 }, 2, "503 503", "")
		step("as before", func() { s.status = 0 }, 2, "304 304", "")
		step("not told any more", func() { s.status = 404 }, 2, "404 404", "nothing")
		step("told again", func() { s.status = 0 }, 2, "200 304", "two")
		step("of no use", func() { s.body = "bad" }, 3, "200 304 304", "bad")
		step("the listener is gone", func() { s.err = syscall.ECONNREFUSED }, 2, "error error", "nothing")
		if n := strings.Count(log.String(), "what it said last holds"); n != 1 {
			t.Errorf("%d warnings of one time without answers:\n%s", n, log.String())
		}
		if n := strings.Count(log.String(), "out of words"); n != 1 {
			t.Errorf("%d errors of one bad word:\n%s", n, log.String())
		}
	})
}
