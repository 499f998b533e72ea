// Package admin asks the Envoys of a zone what they have, count and reach.
//
// It owns the way to Envoy's administration: the address, the two certificates,
// and the limits of time and size. A zone calls it, for its own REST API and for
// global. It never changes anything in an Envoy, never asks a proxy that another
// instance serves, and never writes the database.
//
//	Ask ─▶ Connection: here? ─▶ AdminLeaf: who is who ─▶ GET https://<address>:<admin port> ─▶ text, tokens redacted
//
// # Why
//
// The way is that of the existing ecosystem: Envoy listens to its control plane
// beside its traffic (the admin listener of xds/plan), with certificates of an
// authority that is only for this. The stream of discovery would be a way as
// well, but Envoy tells nothing there that it was not asked to keep.
//
// An answer is held in memory as a whole: what must not leave is taken out before
// the first byte is sent, and how large it is must be known before it is sent to
// global. So only a few questions are open at a time; others wait.
package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// ErrUnreachable: the Envoy could not be asked, or its answer is of no use.
var ErrUnreachable = errors.New("the administration of the proxy cannot be reached")

const (
	dialTime  = 3 * time.Second // to be connected, and again for the handshake
	totalTime = 5 * time.Second
	maxAnswer = 64 << 20 // bytes
	maxOpen   = 8        // questions at a time
)

// Client asks Envoys.
type Client struct {
	db       *db.DB
	instance string
	open     chan struct{}
}

// New returns a client for the proxies that the instance serves.
func New(d *db.DB, instance string) *Client {
	return &Client{db: d, instance: instance, open: make(chan struct{}, maxOpen)}
}

// Ask asks the Envoy of a proxy. The answer is text or JSON as asked for, at most
// 64 MiB; it takes at most 5 s after those that were asked before. Errors are
// [api.ErrNotConnected], [ErrUnreachable] and that of the context.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/admin
func (c *Client) Ask(ctx context.Context, proxy *api.Object[api.Dataplane], q api.Question) ([]byte, error) {
	select {
	case c.open <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-c.open }()
	at, config, err := c.way(proxy)
	if err != nil {
		return nil, fmt.Errorf("proxy %s of mesh %s: %w", proxy.Name, proxy.Mesh, err)
	}
	at.Path, at.RawQuery = question(q)
	limited, cancel := context.WithTimeout(ctx, totalTime)
	defer cancel()
	body, err := get(limited, at, config)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, fmt.Errorf("proxy %s of mesh %s at %s: %w: %w", proxy.Name, proxy.Mesh, at.Host, ErrUnreachable, err)
	}
	return redacted(body), nil
}

// way is where the proxy's administration is, and how both ends prove who they
// are; no TLS where the administration itself is at the proxy's address, which is
// then loopback.
func (c *Client) way(proxy *api.Object[api.Dataplane]) (*url.URL, *tls.Config, error) {
	snap := c.db.Snapshot()
	conn, ok := api.Connections.Get(snap, proxy.Key())
	if !ok || conn.Instance != c.instance {
		return nil, nil, fmt.Errorf("%w to this control plane", api.ErrNotConnected)
	}
	address := proxy.Spec.Networking.Address
	at := &url.URL{Scheme: "https", Host: net.JoinHostPort(address, strconv.FormatUint(uint64(conn.AdminPort), 10))}
	leaf, ok := api.AdminLeaves.Get(snap, proxy.Key())
	switch {
	case ok && leaf.Name == address:
	case conn.AdminPort == 0:
		return nil, nil, fmt.Errorf("%w: Envoy was started without an admin port", ErrUnreachable)
	case address == "127.0.0.1" || address == "::1":
		if conn.AdminSocket != "" {
			return nil, nil, fmt.Errorf("%w: it is on a Unix socket and networking.address is loopback, where nobody else is served: use another address", ErrUnreachable)
		}
		at.Scheme = "http"
		return at, nil, nil
	case conn.ReadinessPort == 0:
		return nil, nil, fmt.Errorf("%w: the proxy was started without a readiness port, so it has no admin listener", ErrUnreachable)
	default:
		return nil, nil, fmt.Errorf("%w: the proxy has no certificate for it (yet)", ErrUnreachable)
	}
	own, ok := api.AdminLeaves.Get(snap, api.ID{}.Key())
	if !ok {
		return nil, nil, fmt.Errorf("%w: this control plane has no certificate for it (yet)", ErrUnreachable)
	}
	pair, err := tls.X509KeyPair([]byte(own.Chain), []byte(own.Key))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(own.CA))
	return at, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: address, Certificates: []tls.Certificate{pair}}, nil
}

// question is the path and the parameters of a question.
func question(asked api.Question) (path, query string) {
	q := url.Values{}
	switch asked.About {
	case api.AboutConfig:
		path = "/config_dump"
		if asked.EDS {
			q.Set("include_eds", "true")
		}
		return path, q.Encode()
	case api.AboutClusters:
		path = "/clusters"
	default:
		path = "/stats"
		if asked.Used {
			q.Set("usedonly", "")
		}
	}
	if asked.JSON {
		q.Set("format", "json")
	}
	return path, q.Encode()
}

// get returns the body of a 200 that an Envoy gave.
func get(ctx context.Context, at *url.URL, config *tls.Config) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	// Questions are rare; a connection that is kept would only be one more that drains.
	way := &http.Transport{
		DialContext: (&net.Dialer{Timeout: dialTime}).DialContext, TLSClientConfig: config,
		TLSHandshakeTimeout: dialTime, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
	}
	r, err := way.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case r.Header.Get("Server") != "envoy":
		return nil, errors.New("what answers there is no Envoy")
	case r.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("it answered %d: %.200s", r.StatusCode, body)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("its answer is larger than %d bytes", maxAnswer)
	}
	return body, nil
}

// token is the credential that a proxy shows to its control plane: a header of a
// gRPC service in its configuration. Keys and certificates Envoy redacts itself.
var token = regexp.MustCompile(`(?i)("key":\s*"authorization",\s*"value":\s*)"(?:[^"\\]|\\.)*"`)

func redacted(body []byte) []byte { return token.ReplaceAll(body, []byte(`$1"[redacted]"`)) }
