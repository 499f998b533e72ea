package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
)

// passthrough: what is no service may be called as long as no policy speaks; with
// None nothing may, with Matched what the joined lists name by address, server name
// of TLS and host of requests, with All everything. Services are called in any case.
func passthrough(t *testing.T, l *lab) {
	// The world: at all addresses of the loopback network, at three ports.
	world := newApplication(t, "world")
	serve := func(wrap func(net.Listener) net.Listener) int {
		at := listen(t, "0.0.0.0:0")
		t.Cleanup(func() { at.Close() })
		server := &http.Server{Handler: world, ErrorLog: log.New(io.Discard, "", 0)}
		go server.Serve(wrap(at))
		return at.Addr().(*net.TCPAddr).Port
	}
	chain, key := newAuthority(t).issue(t, "world")
	certificate, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	httpPort := serve(func(at net.Listener) net.Listener { return at })
	tlsPort := serve(func(at net.Listener) net.Listener {
		return tls.NewListener(at, &tls.Config{Certificates: []tls.Certificate{certificate}})
	})
	raw := listen(t, "0.0.0.0:0")
	t.Cleanup(func() { raw.Close() })
	go sayName(raw, "world")
	rawPort := raw.Addr().(*net.TCPAddr).Port

	side := l.start(t, l.east, spec{name: "leaving-1", service: "leaving", redirected: true})
	service := virtualAddress(t, l.east, api.MeshServices, "api")

	// How the application calls. Each returns who answered.
	speaks := func(host string, port int, first string) (string, error) {
		c, err := side.redirect.DialContext(t.Context(), "tcp", fmt.Sprintf("%s:%d", host, port))
		if err != nil {
			return "", err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second)) // who waits for the client's first word waits longer
		if _, err := io.WriteString(c, first); err != nil {
			return "", err
		}
		name, err := bufio.NewReader(c).ReadString('\n')
		return strings.TrimSpace(name), err
	}
	bytes := func(host string) (string, error) { return speaks(host, rawPort, "hello\n") }
	silence := func(host string) (string, error) { return speaks(host, rawPort, "") }
	requests := func(scheme string, at string, port int) func(string) (string, error) {
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // who answers is not the matter
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return side.redirect.DialContext(ctx, network, fmt.Sprintf("%s:%d", at, port))
			},
		}}
		return func(host string) (string, error) {
			a, err := sendBy(client, fmt.Sprintf("%s://%s:%d/", scheme, host, port))
			if err == nil && a.Status != http.StatusOK {
				err = fmt.Errorf("%d %s", a.Status, a.Text)
			}
			return a.Name, err
		}
	}
	plain := requests("http", "127.9.0.1", httpPort)
	secure := requests("https", "127.9.0.1", tlsPort)

	passes := func(call func(string) (string, error), to ...string) {
		t.Helper()
		for _, to := range to {
			eventually(t, to+" is called", func() error {
				name, err := call(to)
				if err == nil && name != "world" {
					err = fmt.Errorf("answered by %q", name)
				}
				return err
			})
		}
	}
	// stopped calls end with an error that has the text in it.
	stopped := func(call func(string) (string, error), text string, to ...string) {
		t.Helper()
		for _, to := range to {
			eventually(t, to+" is out of reach", func() error {
				name, err := call(to)
				if err == nil {
					return fmt.Errorf("answered by %q", name)
				}
				if strings.Contains(err.Error(), text) {
					return nil
				}
				return errors.Join(fmt.Errorf("want %q", text), err)
			})
		}
	}
	served := func() {
		t.Helper()
		eventually(t, "a service is called", func() error {
			name, err := requests("http", service, 8080)("api")
			if err == nil && !strings.HasPrefix(name, "api-") {
				err = fmt.Errorf("answered by %q", name)
			}
			return err
		})
	}
	open := func() {
		t.Helper()
		passes(bytes, "127.1.0.2")
		passes(silence, "127.1.0.2")
		passes(plain, "shop.example")
		passes(secure, "secure.example")
		served()
	}
	policy := func(name, target, conf string) string {
		return fmt.Sprintf("type: MeshPassthrough\nmesh: default\nname: %s\nspec:\n%s  default: %s\n", name, target, conf)
	}
	const one = "  targetRef: {kind: Dataplane, labels: {kuma.io/workload: leaving}}\n"

	undo := l.with(t, captured("leaving", false))
	open() // no policy

	l.with(t, policy("all", "", "{passthroughMode: None}"))
	stopped(bytes, "", "127.1.0.2")
	stopped(plain, "", "shop.example")
	stopped(secure, "", "secure.example")
	served()

	undoOne := l.with(t, policy("one", one, "{passthroughMode: All}"))
	open()
	undoOne()
	stopped(bytes, "", "127.1.0.2")
	undo()

	l.change(t, policy("all", "", fmt.Sprintf(`
    passthroughMode: Matched
    appendMatch:
      - {type: IP, value: 127.1.0.2}
      - {type: CIDR, value: 127.2.0.0/16, port: %[3]d}
      - {type: IP, value: 127.3.0.1, port: %[3]d, protocol: mysql}
      - {type: CIDR, value: 127.4.0.0/24, protocol: http}
      - {type: Domain, value: secure.example, protocol: tls}
      - {type: Domain, value: "*.wild.example", protocol: tls, port: %[2]d}
      - {type: Domain, value: shop.example, protocol: http}
      - {type: Domain, value: "*.shops.example", protocol: http, port: %[1]d}
`, httpPort, tlsPort, rawPort)))
	l.with(t, policy("one", one, "{appendMatch: [{type: IP, value: 127.1.0.7}]}"), captured("leaving", true))
	const unnamed = "503 no MeshPassthrough lets requests for this host leave the mesh"
	passes(bytes, "127.1.0.2", "127.1.0.7", "127.2.7.7")
	stopped(bytes, "", "127.1.0.3", "127.5.0.1")
	passes(silence, "127.3.0.1")
	passes(requests("http", "127.1.0.2", httpPort), "anything.example") // bytes of any sort
	passes(requests("http", "127.4.0.9", httpPort), "anything.example")
	stopped(requests("http", "127.2.7.7", httpPort), unnamed, "anything.example") // another port
	passes(plain, "shop.example", "a.shops.example", "b.a.shops.example")
	stopped(plain, unnamed, "shops.example", "other.example", "a.shop.example")
	passes(secure, "secure.example", "a.wild.example")
	stopped(secure, "", "wild.example", "other.example", "a.secure.example")
	served()
}
