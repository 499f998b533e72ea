package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// meshTLS: a permissive service answers callers without mesh TLS on the port on
// which it answers the mesh; a strict one does not. Versions are bounded at both
// ends of a call, across zones too.
func meshTLS(t *testing.T, l *lab) {
	api := l.sides["api-1"].address
	plain := func() error {
		a, err := send("http://"+api+":8080/plain", "connection", "close")
		if err == nil && (a.Status != http.StatusOK || a.Name != "api-1" || len(a.Request["X-Forwarded-Client-Cert"]) > 0) {
			err = fmt.Errorf("%d %+v", a.Status, a)
		}
		return err
	}
	raw := func() error { // this server speaks when it is spoken to or not
		c, err := net.DialTimeout("tcp", api+":9090", 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintln(c, "hello"); err != nil {
			return err
		}
		_, err = bufio.NewReader(c).ReadString('\n')
		return err
	}
	mesh := func(to string) {
		t.Helper()
		eventually(t, "mesh TLS to "+to, func() error {
			if a := l.call(t, to, "/mesh"); a.Status != http.StatusOK || len(a.Request["X-Forwarded-Client-Cert"]) == 0 {
				return fmt.Errorf("%d %v", a.Status, a.Request)
			}
			return nil
		})
	}
	refused := func(what string, call func() error) {
		t.Helper()
		eventually(t, what+" is refused", func() error {
			if call() == nil {
				return fmt.Errorf("it is answered")
			}
			return nil
		})
	}
	refused("a plain request", plain)
	refused("a plain connection", raw)
	undo := l.with(t, `
type: MeshTLS
mesh: default
name: open
spec:
  targetRef: {kind: Dataplane, labels: {kuma.io/workload: api}}
  rules: [{default: {mode: Permissive}}]
`)
	eventually(t, "a plain request", plain)
	eventually(t, "a plain connection", raw)
	mesh(apiHTTP)
	undo()
	refused("a plain request", plain)

	oldest := func(address string) error {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", address, &tls.Config{
			InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, NextProtos: []string{"kuma"},
		})
		if err == nil {
			c.Close()
		}
		return err
	}
	l.with(t, `
type: MeshTLS
mesh: default
name: new
spec: {rules: [{default: {tlsVersion: {min: TLS13}}}]}
`)
	eventually(t, "TLS 1.2 is refused", func() error {
		if err := oldest(api + ":8080"); err == nil || !strings.Contains(err.Error(), "protocol version") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	mesh(apiHTTP)
	mesh(remoteHTTP)
}
