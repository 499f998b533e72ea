package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"
)

// route is a call that is made again and again.
type route struct {
	from *instance
	path string
}

func (r route) String() string { return r.from.name + " " + r.path }

// traffic is constant calls along some routes.
type traffic struct {
	stopped context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	sent   int
	failed []failedCall
}

// failedCall is a call without the answer 200.
type failedCall struct {
	began time.Time
	route route
	why   string
}

// pace is the time between two calls of a route.
const pace = 10 * time.Millisecond

// traffic starts calls along the routes, each in its own rhythm, until stop.
func (l *lab) traffic(ctx context.Context, routes ...route) *traffic {
	ctx, cancel := context.WithCancel(ctx)
	t := &traffic{stopped: cancel}
	for _, r := range routes {
		t.running.Go(func() {
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for {
				began := time.Now()
				status, body, err := l.call(ctx, r.from, r.path)
				if ctx.Err() != nil {
					return // a call that was cut off tells nothing
				}
				t.note(began, r, status, body, err)
				select {
				case <-ticker.C:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	return t
}

func (t *traffic) note(began time.Time, r route, status int, body []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	switch {
	case err != nil:
		t.failed = append(t.failed, failedCall{began, r, err.Error()})
	case status != http.StatusOK:
		t.failed = append(t.failed, failedCall{began, r, fmt.Sprintf("%d %s", status, excerpt(body))})
	}
}

// stop ends the calls and returns how many there were.
func (t *traffic) stop() int {
	t.stopped()
	t.running.Wait()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// count is how many calls have ended.
func (t *traffic) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sent
}

// failuresSince returns the calls that began at the time or later and failed.
func (t *traffic) failuresSince(since time.Time) []failedCall {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(t.failed), func(f failedCall) bool { return f.began.Before(since) })
}

// unbroken is an error if any call failed.
func (t *traffic) unbroken(when string) error { return t.unbrokenSince(time.Time{}, when) }

func (t *traffic) unbrokenSince(since time.Time, when string) error {
	failed := t.failuresSince(since)
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("%s %d of %d calls failed; the first: %s: %s", when, len(failed), t.count(), failed[0].route, failed[0].why)
}

// excerpt is the beginning of an answer on one line.
func excerpt(body []byte) string {
	const most = 160
	text := []rune(string(body))
	for i, r := range text {
		if r < ' ' {
			text[i] = ' '
		}
	}
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}
