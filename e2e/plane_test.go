// Package e2e holds the scenarios that run whole control planes: with real
// Envoys, real gRPC and real files.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/global"
	"github.com/atoll-mesh/atoll/zone"
)

// plane is a control plane that runs in the test's process.
type plane struct {
	dir    string
	said   *server.Said
	client *client.Client
	stop   func()
	again  func() *plane // starts it once more with its data and its addresses
}

// value waits until the control plane has said the value of a label.
func (p *plane) value(t testing.TB, label string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	value, err := p.said.Value(ctx, label)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// run starts a control plane and returns when its API answers.
func run(t testing.TB, dir string, f func(ctx context.Context, out io.Writer) error) *plane {
	t.Helper()
	p := &plane{dir: dir, said: &server.Said{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := f(ctx, p.said)
		p.said.End(fmt.Errorf("it ended: %v", err))
		done <- err
	}()
	p.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("control plane in %s: %v", dir, err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("control plane in %s does not end", dir)
		}
	})
	t.Cleanup(p.stop)
	token, err := os.ReadFile(p.value(t, "administrator's token"))
	if err != nil {
		t.Fatal(err)
	}
	p.client, err = client.New(client.Options{URL: "http://" + p.value(t, "API"), Token: strings.TrimSpace(string(token))})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func common(dir string) server.Config {
	c := server.Default()
	c.DataDir = dir
	c.API.Address, c.Diagnostics.Address = "127.0.0.1:0", "127.0.0.1:0"
	c.Log.Level = os.Getenv("ATOLL_TEST_LOG")
	if c.Log.Level == "" {
		c.Log.Level = "error"
	}
	return c
}

func startGlobal(t testing.TB, change ...func(*global.Config)) *plane {
	t.Helper()
	dir := t.TempDir()
	c := global.Default()
	c.Config = common(dir)
	c.KDS.Address = "127.0.0.1:0"
	for _, f := range change {
		f(&c)
	}
	var start func() *plane
	start = func() *plane {
		p := run(t, dir, func(ctx context.Context, out io.Writer) error { return global.Run(ctx, c, "test", out) })
		c.API.Address, c.Diagnostics.Address, c.KDS.Address = p.value(t, "API"), p.value(t, "diagnostics"), p.value(t, "KDS")
		p.again = start
		return p
	}
	return start()
}

func startZone(t testing.TB, name string, above *plane, change ...func(*zone.Config)) *plane {
	t.Helper()
	dir := t.TempDir()
	c := zone.Default()
	c.Config = common(dir)
	c.Name = name
	c.DPServer.Address = "127.0.0.1:0"
	c.DPServer.DeregistrationDelay, c.DPServer.StatusFlush = server.Duration(time.Second), server.Duration(time.Second)
	if above != nil {
		token, err := above.client.ZoneToken(t.Context(), client.ZoneTokenRequest{Zone: name, ValidFor: "1h"})
		if err != nil {
			t.Fatal(err)
		}
		c.Global.TokenFile = filepath.Join(dir, "zone.token")
		if err := os.WriteFile(c.Global.TokenFile, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Global.Address = above.value(t, "KDS")
		c.Global.CAFile = filepath.Join(above.dir, "server.crt")
	}
	c.Global.MaxBackoff = server.Duration(500 * time.Millisecond)
	for _, f := range change {
		f(&c)
	}
	var start func() *plane
	start = func() *plane {
		p := run(t, dir, func(ctx context.Context, out io.Writer) error { return zone.Run(ctx, c, "test", out) })
		c.API.Address, c.Diagnostics.Address, c.DPServer.Address = p.value(t, "API"), p.value(t, "diagnostics"), p.value(t, "dp-server")
		p.again = start
		return p
	}
	return start()
}

// eventually polls until f returns nil. Real processes have no fake clock; each
// wait is bounded and says what was missing.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func TestPolicyReachesZones(t *testing.T) {
	g := startGlobal(t)
	east, west := startZone(t, "east", g), startZone(t, "west", g)
	_, err := g.client.Apply(t.Context(), []byte(`{"type":"MeshTimeout","mesh":"default","name":"slow","spec":{"to":[{"targetRef":{"kind":"Mesh"},"default":{"idleTimeout":"30m"}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range []*plane{east, west} {
		eventually(t, "the timeout in the zone", func() error {
			for raw, err := range z.client.List(t.Context(), api.MeshTimeouts, "default", nil) {
				if err != nil {
					return err
				}
				var doc struct{ Labels map[string]string }
				if err := json.Unmarshal(raw, &doc); err != nil {
					return err
				}
				if doc.Labels[api.LabelDisplayName] == "slow" {
					return nil
				}
			}
			return errors.New("not there")
		})
	}
}
