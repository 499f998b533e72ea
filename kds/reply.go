package kds

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	answerTime = 10 * time.Second // for one question
	askAgain   = time.Second      // until an ended stream is opened again
	room       = 1 << 10          // what a message has besides the answer, bytes
)

// answer keeps one call of global's questions open as long as the connection is.
// Whatever ends it costs nobody else anything: rows go on. A global that does not
// know the call is not asked to again.
func (l *Link) answer(ctx context.Context, conn *grpc.ClientConn, c call) {
	for {
		err := l.answers(ctx, conn, c)
		if ctx.Err() != nil || status.Code(err) == codes.Unimplemented {
			return
		}
		l.o.Log.Info("the stream of global's questions ended", "about", c.about, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(askAgain):
		}
	}
}

// answers answers the questions of one stream, several at a time.
func (l *Link) answers(ctx context.Context, conn *grpc.ClientConn, c call) error {
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, c.method)
	if err != nil {
		return err
	}
	var sending sync.Mutex
	slots := make(chan struct{}, maxOpen)
	for {
		m := c.asked()
		if err := stream.RecvMsg(m); err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		open.Go(func() {
			defer func() { <-slots }()
			response := l.response(ctx, c, m)
			sending.Lock()
			defer sending.Unlock()
			_ = stream.SendMsg(response) // a broken stream shows where it is read
		})
	}
}

// response is the answer to one request, or why there is none.
func (l *Link) response(ctx context.Context, c call, m asked) proto.Message {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	fail := func(format string, args ...any) proto.Message {
		return c.response(m.GetRequestId(), fmt.Sprintf(format, args...), nil)
	}
	if kind := m.GetResourceType(); kind != dataplane {
		return fail("there is no Envoy of a %.80q: ask for a %s", kind, dataplane)
	}
	body, err := l.o.Answer(ctx, m.GetResourceMesh(), m.GetResourceName(), questionIn(m))
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fail("no answer within %v", answerTime)
	case err != nil:
		return fail("%v", err)
	case len(body) > l.o.MaxMessage-room:
		return fail("the answer has %d bytes; a message between control planes may have %d: ask the zone itself", len(body), l.o.MaxMessage)
	}
	return c.response(m.GetRequestId(), "", body)
}
