package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

const (
	// maxLine is the longest line that is passed on.
	maxLine = 1 << 20
	// lineRoom is how many bytes of lines may wait for one sink.
	lineRoom = 8 << 20
	// sinkIdle is how long a sink keeps its connection without lines.
	sinkIdle = 5 * time.Minute
)

// logPipe takes lines that Envoy writes into a pipe and sends each over TCP to
// where it says:
//
//	Envoy ─▶ {"address":"logs:5000","message":…} ─▶ pipe ─▶ an outbox for logs:5000 ─▶ TCP
//
// The pipe is always read at once, since an Envoy that cannot write keeps all lines
// in its memory. TCP tells who writes that the other end took the bytes only when
// it closes in good order: of what was written in the moment in which a sink dies,
// lines are lost that nobody can count.
type logPipe struct {
	file    *os.File
	log     *slog.Logger
	counted counters

	wrong int       // lines that say no sink, since it was last said
	said  time.Time // when it was

	mu    sync.Mutex
	sinks map[string]*sink
	runs  sync.WaitGroup
}

// sink is a place that lines are sent to.
type sink struct {
	*Outbox
	stop context.CancelFunc
	last time.Time // that a line came
}

// openLogPipe makes the pipe, under the name that other control planes know as
// well.
func (r *runner) openLogPipe() (*logPipe, error) {
	path := bootstrap.AccessLogSocket(r.dir.path, r.subject.name, r.subject.mesh)
	short := r.file(bootstrap.AccessLogPipe)
	for _, old := range []string{path, short} { // of a run that was killed, perhaps a file
		if err := os.Remove(old); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: pipe for access logs: %w", ErrConfig, err)
		}
	}
	err := syscall.Mkfifo(path, 0o600)
	if err == nil {
		r.dir.own = append(r.dir.own, path, short)
		err = os.Link(path, short)
	}
	var f *os.File
	if err == nil {
		// For writing, too: else each Envoy that closes it would be its end.
		f, err = os.OpenFile(path, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: pipe for access logs: %w", ErrConfig, err)
	}
	return &logPipe{file: f, log: r.log, counted: r.counters, sinks: map[string]*sink{}}, nil
}

// run passes lines on until ctx ends and nothing is left in the pipe. It closes the
// pipe.
func (p *logPipe) run(ctx context.Context) {
	// What is in the pipe already is there at once: a moment is enough to read it.
	ended := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) })
	defer ended()
	lines := bufio.NewReaderSize(p.file, 64<<10)
	for {
		line, err := readLine(lines)
		if len(line) > 0 {
			p.take(ctx, line)
		}
		if errors.Is(err, errLongLine) {
			p.bad(err)
		} else if err != nil {
			if ctx.Err() == nil {
				p.log.Error("the pipe for access logs cannot be read", "error", err)
			}
			break
		}
	}
	_ = p.file.Close()
	p.mu.Lock()
	for _, s := range p.sinks {
		s.stop()
	}
	p.mu.Unlock()
	p.runs.Wait()
}

var errLongLine = fmt.Errorf("a line is longer than %d bytes", maxLine)

// readLine returns a line without its end; of one that is too long nothing, and
// [errLongLine].
func readLine(r *bufio.Reader) (line []byte, err error) {
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxLine; long {
			line = nil
		} else {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err == nil && long:
			return nil, errLongLine
		default:
			return bytes.TrimSuffix(line, []byte("\n")), err
		}
	}
}

func (p *logPipe) bad(err error) {
	p.counted.lost.WithLabelValues("access logs", "").Inc()
	p.wrong++
	if p.said.IsZero() || time.Since(p.said) >= sayEvery {
		p.log.Warn("lines of access logs are lost that cannot be read", "lost", p.wrong, "error", err)
		p.wrong, p.said = 0, time.Now()
	}
}

// take reads a line and puts it into the outbox of its sink.
func (p *logPipe) take(ctx context.Context, line []byte) {
	address, message, err := parseLine(line)
	if err != nil {
		p.bad(err)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sinks[address]
	if s == nil {
		s = p.open(ctx, address)
	}
	s.last = time.Now()
	s.Put(message)
}

// parseLine reads {"address", "message"}, the message a text with its own end of
// line or an object, or the older "address;message".
func parseLine(line []byte) (address string, message []byte, err error) {
	var said struct {
		Address string          `json:"address"`
		Message json.RawMessage `json:"message"`
	}
	if line[0] != '{' {
		before, after, ok := bytes.Cut(line, []byte(";"))
		if !ok {
			return "", nil, errors.New("it says no address")
		}
		return string(before), append(after, '\n'), nil
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return "", nil, err
	}
	if said.Address == "" {
		return "", nil, errors.New("it says no address")
	}
	var text string
	if json.Unmarshal(said.Message, &text) == nil {
		return said.Address, []byte(text), nil
	}
	return said.Address, append(said.Message, '\n'), nil
}

// open is called with the lock.
func (p *logPipe) open(ctx context.Context, address string) *sink {
	to := &connection{address: address}
	run, stop := context.WithCancel(context.WithoutCancel(ctx)) // ends after the pipe
	s := &sink{stop: stop, Outbox: &Outbox{
		Room: lineRoom, Deliver: to.write, Log: p.log.With("what", "access logs", "to", address),
		Delivered: p.counted.delivered.WithLabelValues("access logs", address), Lost: p.counted.lost.WithLabelValues("access logs", address),
	}}
	p.sinks[address] = s
	p.runs.Go(func() {
		defer to.close()
		s.Run(run)
	})
	p.runs.Go(func() { p.closeIdle(run, address, s) })
	return s
}

// closeIdle ends a sink that gets no lines any more.
func (p *logPipe) closeIdle(run context.Context, address string, s *sink) {
	look := time.NewTicker(sinkIdle)
	defer look.Stop()
	for {
		select {
		case <-run.Done():
			return
		case <-look.C:
		}
		p.mu.Lock()
		idle := time.Since(s.last) >= sinkIdle && len(s.waiting()) == 0
		if idle {
			delete(p.sinks, address)
			s.stop()
		}
		p.mu.Unlock()
		if idle {
			return
		}
	}
}

// connection is to a sink; it is opened when it is needed.
type connection struct {
	address string
	conn    net.Conn
	ended   chan struct{} // closed when the other end has closed
}

func (c *connection) write(ctx context.Context, items [][]byte) (int, error) {
	if c.conn != nil {
		select {
		case <-c.ended: // else the first lines after that would be written to nobody
			c.close()
		default:
		}
	}
	if c.conn == nil {
		dialer := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", c.address)
		if err != nil {
			return 0, err
		}
		c.conn, c.ended = conn, make(chan struct{})
		go func(ended chan struct{}) {
			defer close(ended)
			_, _ = io.Copy(io.Discard, conn)
		}(c.ended)
	}
	n, size := 0, 0
	for n < len(items) && size < maxLine {
		size += len(items[n])
		n++
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	// A sink that breaks off in the middle may get lines twice, but none by halves.
	if _, err := c.conn.Write(bytes.Join(items[:n], nil)); err != nil {
		c.close()
		return 0, err
	}
	return n, nil
}

func (c *connection) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		<-c.ended
		c.conn = nil
	}
}
