package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
)

// summary is one line: revision 812: 3 zones, 998 of 1000 proxies; behind: ….
func summary(c server.Reach) string {
	var proxies, behind, rejected int
	var away, late []string
	for _, z := range c.Zones {
		proxies, behind, rejected = proxies+z.Proxies, behind+z.Behind, rejected+z.Rejected
		if !z.Connected {
			away = append(away, z.Zone)
		}
		for _, l := range z.Laggards {
			late = append(late, fmt.Sprintf("%s/%s in %s (%s)", l.Mesh, l.Name, z.Zone, l.Reason))
		}
	}
	zones := "zones"
	if len(c.Zones) == 1 {
		zones = "zone"
	}
	line := fmt.Sprintf("revision %d: %d %s, %d of %d proxies", c.Revision, len(c.Zones), zones, max(proxies-behind, 0), proxies)
	if rejected > 0 {
		line += fmt.Sprintf("; %d refuse something", rejected)
	}
	if len(late) > 0 {
		slices.Sort(late)
		if more := max(behind, rejected, len(late)) - len(late); more > 0 {
			late = append(late, fmt.Sprintf("and %d more", more))
		}
		line += "; behind: " + strings.Join(late, ", ")
	}
	if len(away) > 0 {
		line += "; not connected: " + strings.Join(away, ", ")
	}
	return line
}

const (
	// longPoll is how long one question may wait at the control plane.
	longPoll = 30 * time.Second
	// pollPause is kept between questions that were answered at once.
	pollPause = 200 * time.Millisecond
)

// patient is the connection for commands that wait: a question may be answered late.
func (c *connection) patient() *connection {
	c.timeout = max(c.timeout, 2*longPoll)
	return c
}

// converged asks how far the zones are; revision 0: the newest. With a wait the
// answer comes when they are there, or when the time is over.
func converged(ctx context.Context, cl *client.Client, revision uint64, wait time.Duration) (server.Reach, error) {
	query := url.Values{}
	if revision > 0 {
		query.Set("revision", strconv.FormatUint(revision, 10))
	}
	if wait > 0 {
		query.Set("wait", wait.Round(time.Millisecond).String())
	}
	var answer server.Reach
	_, err := cl.Do(ctx, http.MethodGet, "/convergence", query, nil, &answer)
	if errors.Is(err, client.ErrNotFound) {
		err = fmt.Errorf("this control plane does not know how far proxies are; it is not an Atoll, or an older one: %w", err)
	}
	return answer, err
}

// waitFor waits until every proxy of every zone has the revision, and says so.
// What changes meanwhile goes to errs.
func waitFor(ctx context.Context, cl *client.Client, revision uint64, patience time.Duration, out, errs io.Writer) error {
	deadline := time.Now().Add(patience)
	said, epoch := "", ""
	for {
		left := time.Until(deadline)
		asked := time.Now()
		state, err := converged(ctx, cl, revision, min(longPoll, max(left, time.Millisecond)))
		if err != nil {
			return fmt.Errorf("the change is stored as revision %d, but waiting for it failed: %w", revision, err)
		}
		if epoch == "" {
			epoch = state.Epoch
		}
		switch {
		case state.Epoch != epoch:
			return fmt.Errorf("the control plane was restored from a backup meanwhile: revision %d is not in its history any more; apply again", revision)
		case state.Converged:
			fmt.Fprintln(out, summary(state))
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("not every proxy has the change after %s: %s\nThe change is stored and reaches the others when they can take it; `atoll get convergence` shows how far they are", patience, summary(state))
		}
		if line := summary(state); line != said {
			said = line
			fmt.Fprintln(errs, line)
		}
		if pause := pollPause - time.Since(asked); pause > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(min(pause, max(time.Until(deadline), 0))):
			}
		}
	}
}
