package postgres_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/postgres"
	"github.com/atoll-mesh/atoll/api/store/postgrestest"
)

// link is a way to a server that is as slow as it is told.
type link struct {
	net.Listener
	mu   sync.Mutex
	most int           // bytes that pass every tick; 0: nothing passes
	tick time.Duration // 0: all passes
}

func (l *link) set(most int, tick time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.most, l.tick = most, tick
}

// through makes a link to the server of the options, and has them use it.
func through(t *testing.T, at *postgrestest.Server, o *postgres.Options) *link {
	t.Helper()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{Listener: in}
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(func() { in.Close() }) //nolint:errcheck // of a test
	all.Go(func() {
		for {
			client, err := in.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", filepath.Join(at.Dir, fmt.Sprintf(".s.PGSQL.%d", at.Port)))
			if err != nil {
				client.Close()
				continue
			}
			all.Go(func() {
				_, _ = io.Copy(server, client) // until either end closes
				server.Close()
			})
			all.Go(func() {
				l.pass(client, server)
				client.Close()
				server.Close()
			})
		}
	})
	o.Host, o.Port = "127.0.0.1", uint16(in.Addr().(*net.TCPAddr).Port)
	return l
}

func (l *link) pass(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		l.mu.Lock()
		most, tick := l.most, l.tick
		l.mu.Unlock()
		size := len(buf)
		if tick > 0 {
			<-time.After(tick)
			if size = min(most, size); size == 0 {
				continue
			}
		}
		n, err := from.Read(buf[:size])
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// What takes longer than a transaction may, because there is much of it and the
// link is slow, arrives all the same; a link that lies still is given up.
func TestFollowingOverASlowLink(t *testing.T) {
	at := server(t)
	o := database(t)
	const rows, each = 150, 8 << 10
	s := open(t, o)
	spec := `{"x":"` + strings.Repeat("x", each) + `"}`
	var ops []store.Op
	for i := range rows {
		ops = append(ops, mesh(fmt.Sprint("m", i), spec))
	}
	apply(t, s, ops...)

	o.TransactionTimeout, o.ConnectTimeout, o.Poll = time.Second, time.Second, 50*time.Millisecond
	logged := logTo(&o)
	slow := through(t, at, &o)
	far := open(t, o)
	slow.set(4<<10, 10*time.Millisecond) // 3 seconds for all
	begin := time.Now()
	f := follow(t, far)
	if took := time.Since(begin); len(f.rows) != rows || took < 2*o.TransactionTimeout {
		t.Errorf("%d of %d rows after %s", len(f.rows), rows, took)
	}

	slow.set(0, 10*time.Millisecond)
	rev := apply(t, s, mesh("late", `{}`))
	next := make(chan error, 1)
	go func() {
		b, err, _ := f.next()
		if b.Revision != rev {
			err = errors.Join(err, fmt.Errorf("revision %d", b.Revision))
		}
		next <- err
	}()
	logged.wait(t, "cannot be followed")
	slow.set(0, 0)
	if err := <-next; err != nil {
		t.Error(err)
	}
}

// A service in the environment counts for nothing, but has to be there: the
// error says where it is looked for.
func TestServiceThatIsNotThere(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("[other]\nhost=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{filepath.Join(t.TempDir(), "none"), empty} {
		t.Setenv("PGSERVICE", "mine")
		t.Setenv("PGSERVICEFILE", file)
		_, err := postgres.Open(t.Context(), postgres.Options{Host: "h", User: "u", Password: "hunter2", Database: "d"})
		if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "unset PGSERVICE") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}
