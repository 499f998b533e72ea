package proxy

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ErrUndeliverable: it is of no use to try the same again.
var ErrUndeliverable = errors.New("undeliverable")

const (
	firstPause, lastPause = 250 * time.Millisecond, 15 * time.Second
	// farewell is how long deliveries may take at the end.
	farewell = 3 * time.Second
	// sayEvery is the least time between two lines of log about one place.
	sayEvery = time.Minute
)

// Outbox keeps what shall be delivered to one place until it is, as far as there
// is room, and tells what it lost. Who puts something in never waits.
type Outbox struct {
	// Room is how many bytes may wait. What is put in beyond is lost.
	Room int
	// Deliver delivers the first of the items and says how many; an error is about
	// the one after these. That one is tried again later, or lost if the error is
	// [ErrUndeliverable].
	Deliver func(ctx context.Context, items [][]byte) (int, error)
	// Log has words on what is delivered, and where to.
	Log *slog.Logger
	// Delivered and Lost count items.
	Delivered, Lost prometheus.Counter

	mu      sync.Mutex
	items   [][]byte
	bytes   int
	lost    int       // since it was last said
	said    time.Time // when a failure was last told
	failing bool      // and that it ended was not
	wake    chan struct{}
	once    sync.Once
}

func (o *Outbox) waker() chan struct{} {
	o.once.Do(func() { o.wake = make(chan struct{}, 1) })
	return o.wake
}

// Put takes an item, which must not be changed any more; false if it is lost.
func (o *Outbox) Put(item []byte) bool {
	o.mu.Lock()
	ok := o.bytes+len(item) <= o.Room
	if ok {
		o.items = append(o.items, item)
		o.bytes += len(item)
	} else {
		o.lose(1)
	}
	o.mu.Unlock()
	select {
	case o.waker() <- struct{}{}:
	default:
	}
	return ok
}

// lose is called with the lock.
func (o *Outbox) lose(n int) {
	o.lost += n
	o.Lost.Add(float64(n))
}

// waiting is what waits to be delivered. It stays until [Outbox.done].
func (o *Outbox) waiting() [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.items
}

// done removes the first n items, of which the last is lost if one is.
func (o *Outbox) done(n int, lost bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, item := range o.items[:n] {
		o.bytes -= len(item)
	}
	if o.items = o.items[n:]; len(o.items) == 0 {
		o.items = nil // the array goes, too
	}
	if lost {
		n--
		o.lose(1)
	}
	o.Delivered.Add(float64(n))
}

// Run delivers until ctx ends, and what is left then for a short time.
func (o *Outbox) Run(ctx context.Context) {
	pause := firstPause
	retry := time.NewTimer(0)
	defer retry.Stop()
	again := retry.C // nil: nothing is to be tried again
	for {
		wake := o.waker()
		if again != nil {
			wake = nil // new items do not shorten the pause
		}
		select {
		case <-ctx.Done():
			o.end(ctx)
			return
		case <-wake:
		case <-again:
			again = nil
		}
		for items := o.waiting(); len(items) > 0 && ctx.Err() == nil; items = o.waiting() {
			n, err := o.Deliver(ctx, items)
			hopeless := errors.Is(err, ErrUndeliverable)
			if hopeless {
				n++
			}
			o.done(n, hopeless)
			if ctx.Err() == nil {
				o.tell(len(items)-n, err)
			}
			if err != nil && !hopeless {
				retry.Reset(pause)
				again, pause = retry.C, min(2*pause, lastPause)
				break
			}
			pause = firstPause
		}
	}
}

// tell says what became of a delivery, but nothing that was said lately.
func (o *Outbox) tell(waiting int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	late := o.said.IsZero() || time.Since(o.said) >= sayEvery
	switch {
	case err == nil && o.failing:
		o.Log.Info("delivered again", "lost", o.lost)
		o.failing = false
	case err != nil && late:
		o.Log.Warn("not delivered", "waiting", waiting, "lost", o.lost, "error", err)
		o.failing, o.said = true, time.Now()
	case err == nil && o.lost > 0 && late:
		o.Log.Warn("more came than could be delivered", "waiting", waiting, "lost", o.lost)
		o.said = time.Now()
	default:
		return
	}
	o.lost = 0
}

// end delivers what is left, if that goes fast.
func (o *Outbox) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	var err error
	for items := o.waiting(); len(items) > 0 && err == nil; items = o.waiting() {
		var n int
		n, err = o.Deliver(ctx, items)
		o.done(n, false)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lose(len(o.items))
	if o.items = nil; o.lost > 0 {
		o.Log.Warn("not delivered until the end", "lost", o.lost, "error", err)
	}
}
