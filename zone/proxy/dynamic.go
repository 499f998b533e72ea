package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// maxDynamic limits what is read of one thing.
const maxDynamic = 64 << 20

// Dynamic is what the control plane tells this program while it runs, which Envoy
// passes on at a socket: see [bootstrap.DynamicSocketName].
type Dynamic struct {
	HTTP *http.Client
	// Interval is the pause between two looks.
	Interval time.Duration
	Log      *slog.Logger
}

// NewDynamic asks at the socket of a work directory.
func NewDynamic(workdir string, interval time.Duration, log *slog.Logger) *Dynamic {
	socket := bootstrap.DynamicSocket(workdir)
	dialer := &net.Dialer{Timeout: 2 * time.Second}
	return &Dynamic{Interval: interval, Log: log, HTTP: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		},
		// A listener that is replaced waits for its connections to end.
		DisableKeepAlives: true,
	}}}
}

// Follow calls apply with what is told at a path, such as [bootstrap.DNSPath], and
// again whenever it has changed, until ctx ends; with nil when it is not told any
// more. It begins with a call as soon as it is known whether anything is told. What
// cannot be applied is reported once, and not tried again until it changes. While
// Envoy does not answer what was told last holds.
func (d *Dynamic) Follow(ctx context.Context, path string, apply func(body []byte) error) {
	log := d.Log.With("path", path)
	next := time.NewTicker(d.Interval)
	defer next.Stop()
	tag, known, failing := "", false, false
	for {
		body, newTag, err := d.get(ctx, path, tag)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				log.Warn("Envoy does not pass on what the control plane says; what it said last holds", "error", err)
			}
		case !known || newTag != tag:
			if err := apply(body); err != nil {
				log.Error("what the control plane says is of no use here", "error", err)
			}
			tag, known = newTag, true
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
	}
}

// get returns what is told and its tag; the tag alone if it is the given one,
// nothing if nothing is told.
func (d *Dynamic) get(ctx context.Context, path, tag string) (body []byte, newTag string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy"+path, nil)
	if err != nil {
		return nil, "", err
	}
	if tag != "" {
		req.Header.Set("if-none-match", tag)
	}
	res, err := d.HTTP.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, "", nil // no listener: nothing is told at any path
	}
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusNotModified:
		return nil, tag, nil
	case http.StatusNotFound:
		return nil, "", nil
	case http.StatusOK:
	default:
		return nil, "", fmt.Errorf("status %s", res.Status)
	}
	body, err = io.ReadAll(io.LimitReader(res.Body, maxDynamic+1))
	if err == nil && len(body) > maxDynamic {
		err = fmt.Errorf("more than %d MiB", maxDynamic>>20)
	}
	return body, res.Header.Get("etag"), err
}
