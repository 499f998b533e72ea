package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// tryTime limits one try of the bootstrap.
const tryTime = 10 * time.Second

// maxAnswer limits the answer.
const maxAnswer = 16 << 20

// Source is where bootstraps come from.
type Source struct {
	// URL is the dp-server, https://host:port.
	URL  string
	HTTP *http.Client
	// Backoff is the pause between tries, MaxDuration how long it is tried.
	Backoff, MaxDuration time.Duration
	Log                  *slog.Logger // nil: slog.Default()
}

// Fetch asks for a bootstrap until it has one. A 4xx is final ([ErrRefused])
// except an empty 404, which says that the Dataplane does not exist yet; all
// else is tried again until MaxDuration is over ([ErrUnavailable], with the last
// reason) or ctx ends.
func (s *Source) Fetch(ctx context.Context, req bootstrap.Request) (bootstrap.Answer, error) {
	log := s.Log
	if log == nil {
		log = slog.Default()
	}
	body, err := json.Marshal(req)
	if err != nil {
		return bootstrap.Answer{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	begin := time.Now()
	for try := 1; ; try++ {
		answer, err := s.try(ctx, body)
		if err == nil || errors.Is(err, ErrRefused) || ctx.Err() != nil {
			return answer, err
		}
		if time.Since(begin)+s.Backoff > s.MaxDuration {
			return answer, fmt.Errorf("%w at %s within %s (%d tries): %w", ErrUnavailable, s.URL, s.MaxDuration, try, err)
		}
		log.Warn("no bootstrap yet", "url", s.URL, "try", try, "again in", s.Backoff, "error", err)
		pause := time.NewTimer(s.Backoff)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return answer, ctx.Err()
		}
	}
}

func (s *Source) try(ctx context.Context, body []byte) (answer bootstrap.Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(s.URL, "/")+bootstrap.Path, bytes.NewReader(body))
	if err != nil {
		return answer, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	req.Header.Set("accept", "application/json")
	req.Header.Set("content-type", "application/json")
	res, err := s.HTTP.Do(req)
	if err != nil {
		return answer, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return answer, err
	}
	said := strings.TrimSpace(string(text[:min(len(text), 4096)]))
	switch {
	case res.StatusCode == http.StatusNotFound && said == "":
		return answer, errors.New("the Dataplane or its mesh does not exist; create it, or pass its definition by --dataplane-file")
	case res.StatusCode >= 400 && res.StatusCode < 500:
		return answer, fmt.Errorf("%w: %s: %s", ErrRefused, res.Status, said)
	case res.StatusCode != http.StatusOK:
		return answer, fmt.Errorf("the control plane answered %s %s", res.Status, said)
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return answer, fmt.Errorf("answer of the control plane: %w", err)
	}
	if len(answer.Bootstrap) == 0 {
		return answer, errors.New("answer of the control plane: no bootstrap in it")
	}
	return answer, nil
}

// httpClient verifies the server with the authorities in ca (PEM), or with those
// of the system.
func httpClient(ca string, skipVerify bool) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: skipVerify}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("%w: CA of the control plane: no PEM certificate in it", ErrConfig)
		}
	}
	return &http.Client{Transport: &http.Transport{
		// No proxy of the environment: Envoy takes none for discovery, at the same address.
		TLSClientConfig: config, ForceAttemptHTTP2: true,
	}}, nil
}
