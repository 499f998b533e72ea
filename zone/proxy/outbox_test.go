package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/atoll-mesh/atoll/zone/proxy"
)

func count(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	all, err := r.Gather()
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	return all[0].Metric[0].Counter.GetValue()
}

func counter() prometheus.Counter { return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"}) }

// What is put in arrives in order, however often its receiver is away; what is lost
// is counted and told, and not too often.
func TestOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log buffer
		var mu sync.Mutex // of what follows
		var away error
		var arrived []string
		tries := 0
		o := &proxy.Outbox{
			Room: 10, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Delivered: counter(), Lost: counter(),
			Deliver: func(_ context.Context, items [][]byte) (int, error) {
				mu.Lock()
				defer mu.Unlock()
				tries++
				for n, item := range items {
					if away != nil {
						return n, away
					}
					if string(item) == "bad" {
						return n, fmt.Errorf("%w: it is bad", proxy.ErrUndeliverable)
					}
					arrived = append(arrived, string(item))
				}
				return len(items), nil
			},
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { o.Run(ctx); close(ended) }()
		put := func(items ...string) {
			for _, item := range items {
				o.Put([]byte(item))
			}
		}
		expect := func(what, want string, delivered, lost float64) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(arrived, " "); got != want {
				t.Errorf("%s: arrived %q, want %q", what, got, want)
			}
			if d, l := count(t, o.Delivered), count(t, o.Lost); d != delivered || l != lost {
				t.Errorf("%s: delivered %v lost %v, want %v and %v", what, d, l, delivered, lost)
			}
			arrived = nil
		}
		put("one", "bad", "two")
		expect("one that can never be delivered", "one two", 2, 1)

		receiver := func(err error) (before int) {
			mu.Lock()
			defer mu.Unlock()
			before = tries
			away, tries = err, 0
			return before
		}
		receiver(errors.New("connection refused"))
		put("1234", "5678")
		for range 100 { // more than there is room for
			put("123456")
		}
		expect("away", "", 2, 101)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := strings.Count(log.String(), "connection refused"); n > 10 {
			t.Errorf("told %d times in ten minutes:\n%s", n, log.String())
		}
		if !strings.Contains(log.String(), "waiting=2 lost=100") {
			t.Errorf("the log does not tell what was lost:\n%s", log.String())
		}
		if n := receiver(nil); n < 30 || n > 60 {
			t.Errorf("%d tries in ten minutes", n)
		}
		time.Sleep(15 * time.Second)
		expect("back", "1234 5678", 4, 101)
		if n := strings.Count(log.String(), "delivered again"); n != 2 {
			t.Errorf("told %d times that it is back:\n%s", n, log.String())
		}
		put("next")
		expect("after that", "next", 5, 101)

		receiver(errors.New("gone for good"))
		put("last")
		synctest.Wait()
		stop()
		<-ended
		expect("the end", "", 5, 102)
		if !strings.Contains(log.String(), "not delivered until the end\" lost=1") {
			t.Errorf("the end does not tell what was lost:\n%s", log.String())
		}
	})
}

// What waits at the end is delivered.
func TestOutboxEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		arrived := 0
		o := &proxy.Outbox{
			Room: 10, Log: slog.New(slog.DiscardHandler),
			Delivered: counter(), Lost: counter(),
			Deliver: func(_ context.Context, items [][]byte) (int, error) { arrived++; return 1, nil },
		}
		o.Put([]byte("a"))
		o.Put([]byte("b"))
		ctx, stop := context.WithCancel(t.Context())
		stop()
		o.Run(ctx)
		if arrived != 2 {
			t.Errorf("%d arrived", arrived)
		}
	})
}
