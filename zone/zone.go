// Package zone is the assembly of a zone control plane on Universal: it serves
// configuration to the proxies of one zone, with or without a global above it.
//
// It owns the wiring, and who may connect. Everything that runs is started in [Run], in
// one list, and ends with the context:
//
//	feeder        store ─▶ database                    api/store
//	engine        database ─▶ plans, resources         api/incr, xds/plan
//	xds           plans ─▶ proxies                     xds
//	identity      authorities, certificates            zone/identity
//	derive        services, workloads, addresses       zone/derive
//	status        what proxies say ─▶ rows             zone/status
//	names         names and addresses of services      zone/names
//	overview      counts of meshes ─▶ rows             global/overview
//	reaper        proxies that do not come back        this package
//	services      states of MeshServices ─▶ rows       this package
//	link          rows to and from global              kds
//	servers       REST, diagnostics, dp-server         api/server
//
// # Why
//
// Plain constructors in order, no container: a reader finds who talks to whom
// by reading one function.
package zone

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/inspect"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/global/overview"
	"github.com/atoll-mesh/atoll/kds"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
	"github.com/atoll-mesh/atoll/xds/wire"
	"github.com/atoll-mesh/atoll/zone/admin"
	"github.com/atoll-mesh/atoll/zone/derive"
	"github.com/atoll-mesh/atoll/zone/identity"
	"github.com/atoll-mesh/atoll/zone/names"
	"github.com/atoll-mesh/atoll/zone/status"
)

// zone is the parts that the functions of this package share.
type zone struct {
	*server.Server
	config Config
	engine *incr.Engine
	xds    *xds.Server
	status *status.Feeder
	envoys *admin.Client
	// leaving keeps a proxy from connecting while it is decided that it is away.
	leaving sync.Mutex
}

// Run runs a zone control plane until the context ends. Addresses and other
// words for people go to out.
func Run(ctx context.Context, c Config, version string, out io.Writer) error {
	var r api.Report
	c.Validate(&r)
	if err := r.Err(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	s, err := server.Open(c.Config, c.Site(), version, out)
	if err != nil {
		return err
	}
	defer s.Close()
	z := &zone{Server: s, config: c}
	if err := z.settings(); err != nil {
		return err
	}
	z.engine = incr.New(s.DB.Snapshot())
	z.xds = xds.New(xds.Options{
		Engine: z.engine, Instance: s.Instance, Admit: z.admit, Report: z.report,
		Drain: time.Duration(c.DPServer.Drain), Now: s.Now, Log: s.Component("xds"),
	})
	z.status = status.New(status.Options{
		DB: s.DB, Site: s.Site, Instance: s.Instance, Converged: z.xds.Convergence,
		Flush: time.Duration(c.DPServer.StatusFlush), Now: s.Now, Log: s.Component("status"),
	})
	dp, err := s.Listen("dp-server", c.DPServer.Address)
	if err != nil {
		return err
	}
	z.envoys = admin.New(s.DB, s.Instance)
	endpoints := slices.Concat(inspect.Endpoints(s.DB, s.Site), s.Envoy(z.envoys.Ask),
		[]rest.Endpoint{s.Convergence(c.Name, func(string) bool { return true })})
	handler, err := s.REST(c, api.StatusOf, endpoints...)
	if err != nil {
		return err
	}
	split := server.NewSplit(dp, s.Cert.Server())
	var link *kds.Link
	touch := func(api.ID) {}
	if s.Site.Federated {
		if link, err = z.link(); err != nil {
			return err
		}
		touch = link.Touch
	}
	m := newMetrics(z)
	if err := errors.Join(s.Metrics.Register(m), s.Collect(func() []server.Peer { return peers(link) })); err != nil {
		return err
	}
	called := names.Options{
		DB: s.DB, Site: s.Site, Now: s.Now, Log: s.Component("names"),
		Ranges: c.IPAM.prefixes(), ReuseAfter: time.Duration(c.IPAM.ReuseAfter),
	}
	parts := []func(context.Context) error{
		func(ctx context.Context) error { return z.engine.Loop(ctx, s.DB, incr.WithAfter(z.published)) },
		func(ctx context.Context) error {
			return identity.Run(ctx, identity.Options{DB: s.DB, Engine: z.engine, Apply: s.Feeder.Apply, Site: s.Site, Instance: s.Instance, Now: s.Now, Log: s.Component("identity")})
		},
		s.Duty("derive", func(ctx context.Context, apply server.Apply) error {
			return derive.Run(ctx, derive.Options{DB: s.DB, Apply: apply, Site: s.Site, Grace: time.Duration(c.MeshService.DeletionGracePeriod), Now: s.Now, Log: s.Component("derive")})
		}),
		z.status.Run,
		func(ctx context.Context) error { return names.Resolve(ctx, called) },
		s.Duty("addresses", func(ctx context.Context, apply server.Apply) error {
			called := called
			called.Apply = apply
			return names.Allocate(ctx, called)
		}),
		func(ctx context.Context) error { return names.Generate(ctx, called) },
		z.reap,
		func(ctx context.Context) error { return z.services(ctx, touch) },
		split.Run,
		func(ctx context.Context) error { return s.ServeHTTP(ctx, split.HTTP, z.bootstrap(dp.Addr())) },
		func(ctx context.Context) error { return z.serveProxies(ctx, split, m) },
	}
	if link != nil {
		parts = append(parts, link.Run)
	} else { // with a global, that counts
		parts = append(parts, func(ctx context.Context) error {
			return overview.Run(ctx, overview.Options{DB: s.DB, Now: s.Now, Log: s.Log})
		})
	}
	return s.Serve(ctx, handler, parts...)
}

// settings enters what the configuration says to plans.
func (z *zone) settings() error {
	_, err := z.DB.Write(func(tx *db.Tx) error {
		api.SettingsTable.Put(tx, &api.Settings{Site: z.Site, InternalCIDRs: z.config.InternalCIDRs})
		return nil
	})
	return err
}

// published runs after each round of the engine.
func (z *zone) published(round incr.Round) {
	for _, f := range round.Failures {
		z.Log.Error("a query failed; its last good value stays", "query", f.String())
	}
	z.xds.Publish(round)
	z.status.Poke()
}

// serveProxies serves discovery to proxies, and at the end lets them go.
func (z *zone) serveProxies(ctx context.Context, split *server.Split, m *metrics) error {
	g := grpc.NewServer(
		grpc.ForceServerCodecV2(wire.Codec()),
		grpc.StatsHandler(m),
		grpc.MaxConcurrentStreams(1<<20),
		// A proxy listens most of the time: what it costs is mostly buffers. TLS has
		// one of its own to read from.
		grpc.ReadBufferSize(0), grpc.WriteBufferSize(8<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 15 * time.Second, Timeout: 15 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	z.xds.Register(g)
	stop := context.AfterFunc(ctx, func() {
		z.xds.Drain(1)
		g.Stop()
	})
	defer stop()
	return g.Serve(split.GRPC)
}

// bootstrap is the HTTP side of the dp-server.
func (z *zone) bootstrap(at net.Addr) http.Handler {
	params := bootstrap.Params{XDSHost: z.config.DPServer.XDSHost, AdminUnixSocket: true}
	if tcp, ok := at.(*net.TCPAddr); ok {
		params.XDSPort = uint32(tcp.Port)
	}
	return bootstrap.Handler(bootstrap.Options{
		DB: z.DB, Site: z.Site,
		AuthRequired: z.config.DPServer.Auth != "none",
		Chain:        func() []byte { return z.Cert.Chain },
		Params:       params, Log: z.Component("bootstrap"),
	})
}

// answer asks the Envoy of a proxy for global, which knows it by name.
func (z *zone) answer(ctx context.Context, mesh, name string, q api.Question) ([]byte, error) {
	proxy, ok := api.Dataplanes.Named(z.DB.Snapshot(), mesh, name)
	if !ok {
		return nil, fmt.Errorf("resource not found: type=%q name=%q mesh=%q", api.Dataplanes.Name, name, mesh)
	}
	return z.envoys.Ask(ctx, proxy, q)
}

// link is the connection to global.
func (z *zone) link() (*kds.Link, error) {
	c := z.config.Global
	o := kds.LinkOptions{
		Options: kds.Options{
			DB: z.DB, Feeder: z.Feeder, Instance: z.Instance, Version: z.Version, Log: z.Component("kds"),
			Heartbeat: time.Duration(c.Heartbeat),
		},
		Site: z.Site, Address: c.Address, Derive: derived, Answer: z.answer, Base: 250 * time.Millisecond, Max: time.Duration(c.MaxBackoff),
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.SkipVerify},
	}
	if !strings.Contains(o.Address, "://") {
		o.Address = "grpcs://" + o.Address
	}
	if c.TokenFile != "" {
		o.Token = func(context.Context) (string, error) {
			token, err := os.ReadFile(c.TokenFile)
			if err != nil {
				return "", fmt.Errorf("zone token: %w", err)
			}
			return strings.TrimSpace(string(token)), nil
		}
	}
	if c.CAFile != "" {
		ca, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("authority of global: %w", err)
		}
		o.TLS.RootCAs = x509.NewCertPool()
		if !o.TLS.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("authority of global: %s holds no PEM certificate", c.CAFile)
		}
	}
	return kds.NewLink(o)
}
