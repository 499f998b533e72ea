package envoy_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/atoll-mesh/atoll/xds/ir"
)

const nightly = "spiffe://shop/nightly/"

// greeterPermissions ask for everything that a condition can, under a name that no syntax likes.
var greeterPermissions = ir.Permissions{
	Deny: []ir.Permission{
		{Policy: denier, Peer: ir.PeerMatch{SpiffeID: bad}},
		{Policy: awkward, Peer: ir.PeerMatch{SpiffeIDPrefix: nightly, SNI: "db.example"}},
	},
	Allow: []ir.Permission{
		{Policy: "web", Peer: ir.PeerMatch{SpiffeID: web}},
		{Policy: "nightly", Peer: ir.PeerMatch{SpiffeIDPrefix: nightly}},
	},
	AllowShadowDeny: []ir.Permission{{Policy: "hasty", Peer: ir.PeerMatch{SpiffeID: hasty}}},
}

const awkward = `no "batch's" 100% (db)%, \ or (x):5% ü`

// TestServerSpeaksFirst: who may hears the server without saying anything; who may not hears nothing, is closed at once,
// and the server never learns of it.
func TestServerSpeaksFirst(t *testing.T) {
	greeter := newGreeter(t)
	p := start(t, findEnvoy(t), newAuthority(t), "127.0.0.1:9", greeter.address, true)
	admitted := 0
	for _, c := range []struct {
		name, caller, sni, policy string
	}{
		{"allowed", web, "", ""},
		{"denied", bad, "", denier},
		{"denied by default", other, "", "default"},
		{"allowed by prefix", nightly + "1", "", ""},
		{"denied by prefix and server name", nightly + "1", "db.example", awkward},
		{"allowed, same server name", web, "db.example", ""},
		{"allowed with shadow", hasty, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			connection := p.dial(t, "greeter", c.caller, c.sni)
			got, err := bufio.NewReader(connection).ReadString('\n')
			if c.policy == "" {
				admitted++
				if got != greeting {
					t.Fatalf("got %q, %v", got, err)
				}
				mustSay(t, connection, "hello\n")
				return
			}
			if got != "" || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %q, %v", got, err)
			}
			line := p.logged(t)
			if line["details"] != "rbac_access_denied_matched_policy["+c.policy+"]" || line["peer"] != c.caller || line["listener"] != "greeter" {
				t.Errorf("log line: %v, want %s", line, c.policy)
			}
		})
	}
	t.Run("caller speaks first", func(t *testing.T) {
		admitted++
		connection := p.dial(t, "greeter", web, "")
		sent := strings.Repeat("more than waits in Envoy ", 100_000)
		go io.WriteString(connection, sent)
		got := make([]byte, len(greeting)+len(sent))
		if _, err := io.ReadFull(connection, got); err != nil || string(got) != greeting+sent {
			t.Errorf("%v: %.100q", err, got)
		}
	})
	if got := int(greeter.accepted.Load()); got != admitted {
		t.Errorf("the server saw %d connections, want %d", got, admitted)
	}
}

// TestRunningWithoutDelay: a proxy whose bootstrap lacks the runtime feature serves whom it shall and hears nobody else.
func TestRunningWithoutDelay(t *testing.T) {
	greeter := newGreeter(t)
	p := start(t, findEnvoy(t), newAuthority(t), "127.0.0.1:9", greeter.address, false)

	connection := p.dial(t, "greeter", web, "")
	if got, err := bufio.NewReader(connection).ReadString('\n'); got != greeting {
		t.Fatalf("got %q, %v", got, err)
	}
	mustSay(t, connection, "hello\n")

	connection = p.dial(t, "greeter", bad, "")
	io.WriteString(connection, "hello\n")
	if got, err := io.ReadAll(connection); strings.Contains(string(got), "hello") || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %q, %v", got, err)
	}
	if line := p.logged(t); line["details"] != "rbac_access_denied_matched_policy["+denier+"]" {
		t.Errorf("log line: %v", line)
	}
}

// greeter is a server that speaks first, then repeats what it hears.
type greeter struct {
	address  string
	accepted atomic.Int64
}

const greeting = "I am db 1.0\n"

func newGreeter(t *testing.T) *greeter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	g := &greeter{address: l.Addr().String()}
	go func() {
		for {
			connection, err := l.Accept()
			if err != nil {
				return
			}
			g.accepted.Add(1)
			go func() {
				defer connection.Close()
				io.WriteString(connection, greeting)
				io.Copy(connection, connection)
			}()
		}
	}()
	return g
}

// mustSay sends text to an echo and waits for it to come back.
func mustSay(t *testing.T, connection io.ReadWriter, text string) {
	t.Helper()
	io.WriteString(connection, text)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(connection, got); err != nil || string(got) != text {
		t.Errorf("said %q, got %q, %v", text, got, err)
	}
}
