// Package global is the assembly of a global control plane: it holds the rows
// that all zones share, and sends them down.
//
// It owns nothing but the wiring. Everything that runs is started in [Run], in
// one list, and ends with the context:
//
//	feeder     store ─▶ database                       api/store
//	kds        rows to and from the zones              kds
//	derive     what older forms of a Mesh stand for    zone/derive
//	overview   counts of meshes ─▶ rows                global/overview
//	servers    REST, diagnostics, KDS                  api/server
//
// # Why
//
// Global serves no proxy, so it has no engine and no plans: what it needs to
// know of proxies the zones say in rows.
package global

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/inspect"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/global/overview"
	"github.com/atoll-mesh/atoll/kds"
	"github.com/atoll-mesh/atoll/zone/derive"
)

// Config is the configuration of a global control plane.
type Config struct {
	server.Config
	KDS KDSConfig `json:"kds"`
}

// KDSConfig is the server of the zones.
type KDSConfig struct {
	Address string `json:"address"`
	// Auth is token, or none to admit every zone.
	Auth string `json:"auth"`
	// UnauthenticatedZones are admitted without a token.
	UnauthenticatedZones []string `json:"unauthenticatedZones"`
	// Heartbeat is the interval of proofs of life to zones.
	Heartbeat server.Duration `json:"heartbeat"`
}

// Default is the configuration that a first user gets.
func Default() Config {
	return Config{Config: server.Default(), KDS: KDSConfig{Address: ":5685", Auth: "token", Heartbeat: server.Duration(5 * time.Second)}}
}

// Validate notes every fault; paths are those of the file.
func (c *Config) Validate(r *api.Report) {
	c.Config.Validate(r)
	switch c.KDS.Auth {
	case "token", "none":
	default:
		r.At("kds.auth").Add("is %q; allowed: token, none", c.KDS.Auth)
	}
	for i, name := range c.KDS.UnauthenticatedZones {
		if reason := api.CheckDNSLabel(name); reason != "" {
			r.Index("kds.unauthenticatedZones", i).Add("%s", reason)
		}
	}
}

// Run runs a global control plane until the context ends. Addresses and other
// words for people go to out.
func Run(ctx context.Context, c Config, version string, out io.Writer) error {
	var r api.Report
	c.Validate(&r)
	if err := r.Err(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	s, err := server.Open(c.Config, api.Site{Env: "universal"}, version, out)
	if err != nil {
		return err
	}
	defer s.Close()
	zones, err := s.Listen("KDS", c.KDS.Address)
	if err != nil {
		return err
	}
	link := kds.NewServer(kds.ServerOptions{
		Options: kds.Options{
			DB: s.DB, Feeder: s.Feeder, Instance: s.Instance, Version: version, Log: s.Component("kds"),
			Heartbeat: time.Duration(c.KDS.Heartbeat),
		},
		Authenticate:    authenticate(s, c.KDS),
		Unauthenticated: c.KDS.UnauthenticatedZones,
	})
	if err := s.Collect(func() []server.Peer { return peers(link) }); err != nil {
		return err
	}
	endpoints := slices.Concat(inspect.Endpoints(s.DB, s.Site), s.Envoy(link.Ask),
		[]rest.Endpoint{s.Convergence(api.Global, func(zone string) bool { return connected(s.DB.Snapshot(), zone) })})
	handler, err := s.REST(c, api.StatusOf, endpoints...)
	if err != nil {
		return err
	}
	return s.Serve(ctx, handler,
		link.Run,
		s.Duty("derive", func(ctx context.Context, apply server.Apply) error {
			return derive.Run(ctx, derive.Options{DB: s.DB, Apply: apply, Site: s.Site, Now: s.Now, Log: s.Log})
		}),
		func(ctx context.Context) error {
			return overview.Run(ctx, overview.Options{DB: s.DB, Now: s.Now, Log: s.Log})
		},
		func(ctx context.Context) error {
			rpc := grpc.NewServer(append(link.GRPC(), grpc.Creds(credentials.NewTLS(s.Cert.Server("h2"))))...)
			link.Register(rpc)
			stop := context.AfterFunc(ctx, rpc.Stop)
			defer stop()
			return rpc.Serve(zones)
		},
	)
}

// authenticate judges the token of a zone.
func authenticate(s *server.Server, c KDSConfig) func(context.Context, string, string) error {
	if c.Auth == "none" {
		return func(context.Context, string, string) error { return nil }
	}
	return func(_ context.Context, zone, token string) error {
		claims, err := s.Validator.ParseZone(s.DB.Snapshot(), s.Now(), token)
		if err != nil {
			return err
		}
		return claims.Check(zone)
	}
}

// connected reports whether a zone is in touch.
func connected(r db.Reader, zone string) bool {
	insight, ok := api.ZoneInsights.Named(r, "", zone)
	if !ok {
		return false
	}
	for _, sub := range insight.Spec.Subscriptions {
		if sub.ConnectTime != nil && sub.DisconnectTime == nil {
			return true
		}
	}
	return false
}
