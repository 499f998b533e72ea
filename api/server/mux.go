package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Split serves gRPC and HTTP on one TLS listener. What begins with the preface
// of HTTP/2 goes to the first listener, everything else to the second. Clients
// that can do both are asked for HTTP/1.1, so that HTTP/2 means gRPC and each
// side keeps its own native transport. Run must be running; it ends, and both
// listeners with it, when the context ends.
type Split struct {
	GRPC, HTTP net.Listener
	inner      net.Listener
	tls        *tls.Config
}

// NewSplit wraps the listener.
func NewSplit(inner net.Listener, c *tls.Config) *Split {
	c = c.Clone()
	c.NextProtos = []string{"http/1.1", "h2"}
	return &Split{GRPC: newHanded(inner.Addr()), HTTP: newHanded(inner.Addr()), inner: inner, tls: c}
}

// handshakeTime is how long a client may take until its first bytes.
const handshakeTime = 10 * time.Second

// Run accepts connections until the context ends.
func (s *Split) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { s.inner.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	defer s.GRPC.Close() // before the wait: a connection may still be on its way there
	defer s.HTTP.Close()
	defer cancel()
	for {
		c, err := s.inner.Accept()
		switch {
		case err == nil:
			open.Go(func() { s.hand(ctx, c) })
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		case !passing(err):
			return err
		default: // what is open goes on, and frees what is lacking
			timer := time.NewTimer(acceptPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		}
	}
}

// acceptPause is the wait after a connection could not be accepted.
const acceptPause = 50 * time.Millisecond

// passing reports whether accepting may succeed later: the client was gone
// again, or the process has too many files open.
func passing(err error) bool {
	for _, e := range []error{syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (s *Split) hand(ctx context.Context, raw net.Conn) {
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	c := tls.Server(raw, s.tls)
	c.SetDeadline(time.Now().Add(handshakeTime))
	p := &peeked{Conn: c, r: bufio.NewReaderSize(c, 4<<10)}
	first, err := p.r.Peek(4)
	if err != nil {
		raw.Close()
		return
	}
	c.SetDeadline(time.Time{})
	to := s.HTTP.(*handed)
	if string(first) == "PRI " {
		to = s.GRPC.(*handed)
	}
	select {
	case to.conns <- p:
	case <-to.done:
		raw.Close()
	}
}

// peeked is a connection whose first bytes were looked at.
type peeked struct {
	net.Conn
	r *bufio.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// handed is a listener whose connections are handed to it.
type handed struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newHanded(addr net.Addr) *handed {
	return &handed{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error   { h.once.Do(func() { close(h.done) }); return nil }
func (h *handed) Addr() net.Addr { return h.addr }
