package bootstrap

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// Path is where a proxy asks.
const Path = "/bootstrap"

// maxBody limits a request: a Dataplane with some thousand outbounds fits.
const maxBody = 4 << 20

// Options is what [Handler] needs to know; DB, Site and Chain are required.
type Options struct {
	// DB has the meshes and the proxies that are stored, of the zone Site.
	DB   *db.DB
	Site api.Site
	// AuthRequired refuses requests without a token or the path of one.
	AuthRequired bool
	// Chain is the certificate chain of the server, PEM, leaf first. Envoy trusts
	// it where the proxy names no CA; the host that Envoy connects to must be in
	// its leaf.
	Chain func() []byte
	// Params are those of all proxies. XDSHost empty: the host that the proxy
	// asked. CA and Workload are filled in per request.
	Params Params
	// Lookup resolves the host of discovery; nil: the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Log    *slog.Logger // nil: slog.Default()
}

// refusal is an answer that is no bootstrap. Existing clients take every 4xx as
// final except an empty 404, which they retry: a Dataplane may be created later.
type refusal struct {
	status int
	body   string
	reason string
}

func (r *refusal) Error() string { return r.reason }

func refuse(status int, text string) *refusal {
	return &refusal{status: status, body: text, reason: text}
}

// silent answers without a body; the reason is logged.
func silent(status int, format string, args ...any) *refusal {
	return &refusal{status: status, reason: fmt.Sprintf(format, args...)}
}

// Handler answers [Path]; neither the method nor the content type is checked.
//
//	200  Answer as JSON where exactly application/json is accepted, else the YAML
//	400  the body is not JSON; the host is not in the certificate; a CA that is none
//	404  no such Dataplane or mesh (empty: the client asks again)
//	422  no token; faults in the Dataplane that was sent; its mesh does not exist
//	500  what was sent is no Dataplane, no PEM, an unknown type of proxy
func Handler(o Options) http.Handler {
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != Path {
			http.NotFound(w, r)
			return
		}
		var req Request
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err == nil {
			err = json.Unmarshal(body, &req)
		}
		if err != nil {
			// Not the error itself: it may quote the body, and so a token.
			o.Log.Warn("bootstrap refused", "status", http.StatusBadRequest, "reason", "the body is not a bootstrap request", "peer", r.RemoteAddr)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		answer, no := o.answer(r, req)
		if no != nil {
			o.Log.Warn("bootstrap refused", "mesh", req.Mesh, "name", req.Name, "status", no.status, "reason", no.reason, "peer", r.RemoteAddr)
			w.Header().Set("content-type", "text/plain; charset=utf-8")
			w.WriteHeader(no.status)
			io.WriteString(w, no.body)
			return
		}
		o.Log.Debug("bootstrap", "mesh", req.Mesh, "name", req.Name, "peer", r.RemoteAddr)
		if r.Header.Get("accept") != "application/json" {
			w.Header().Set("content-type", "text/x-yaml")
			w.Write(answer.Bootstrap)
			return
		}
		w.Header().Set("content-type", "application/json")
		json.NewEncoder(w).Encode(answer)
	})
}

func (o *Options) answer(r *http.Request, req Request) (Answer, *refusal) {
	kind, ok := KindOf(req.ProxyType)
	if !ok {
		return Answer{}, silent(http.StatusInternalServerError, "type of proxy %q is not known", req.ProxyType)
	}
	req.DataplaneToken = strings.TrimSpace(req.DataplaneToken)
	if o.AuthRequired && req.DataplaneToken == "" && req.DataplaneTokenPath == "" {
		return Answer{}, refuse(http.StatusUnprocessableEntity,
			"dataplaneToken: a dataplane token is required; generate one and pass it by --dataplane-token-file")
	}
	zoneProxy := kind != api.AnyKind(api.Dataplanes)
	dp, no := o.dataplane(req, zoneProxy)
	if no != nil {
		return Answer{}, no
	}
	if zoneProxy {
		req.Mesh = dp.Mesh // which it does not know
	}
	p := o.Params
	p.Workload, p.Address = api.WorkloadOf(dp), dp.Spec.Networking.Address
	if admin := dp.Spec.Networking.Admin; admin != nil && admin.Port != 0 {
		p.AdminPort = admin.Port
	}
	if p.CA, no = o.authority(req); no != nil {
		return Answer{}, no
	}
	if p.XDSHost == "" {
		if p.XDSHost, no = o.askedHost(r); no != nil {
			return Answer{}, no
		}
	}
	if net.ParseIP(p.XDSHost) == nil {
		p.XDSIPv4Only = o.ipv4Only(r.Context(), p.XDSHost)
	}
	text, err := Build(req, p)
	if err != nil {
		return Answer{}, silent(http.StatusInternalServerError, "%v", err)
	}
	return Answer{Bootstrap: text, Sidecar: Sidecar{Networking: SidecarNetworking{Address: dp.Spec.Networking.Address}}}, nil
}

// dataplane is the one that was sent along, or the row.
func (o *Options) dataplane(req Request, zoneProxy bool) (*api.Object[api.Dataplane], *refusal) {
	snap := o.DB.Snapshot()
	if req.DataplaneResource == "" {
		return o.stored(snap, req, zoneProxy)
	}
	row, err := Parse(req.DataplaneResource, req.ProxyType)
	switch {
	case errors.Is(err, ErrDefinition):
		return nil, silent(http.StatusInternalServerError, "dataplaneResource: %v", err)
	case err != nil:
		return nil, refuse(http.StatusUnprocessableEntity, err.Error())
	}
	if zoneProxy {
		mesh, err := api.ZoneProxyMesh(snap, row.Head().Labels, cmp.Or(req.Mesh, row.Head().Mesh))
		if err != nil {
			return nil, refuse(http.StatusUnprocessableEntity, err.Error())
		}
		return api.ZoneProxyRow(row, mesh, o.Site), nil
	}
	dp := row.(*api.Object[api.Dataplane])
	if _, ok := api.Meshes.Named(snap, "", dp.Mesh); !ok {
		return nil, refuse(http.StatusUnprocessableEntity, fmt.Sprintf("mesh: mesh %q does not exist", dp.Mesh))
	}
	if len(dp.Spec.Networking.Outbound) > 0 && redirects(req.DataplaneConfig) {
		return nil, refuse(http.StatusUnprocessableEntity,
			"outbound: should be empty since the traffic of the workload is redirected (transparent proxy)")
	}
	return dp, nil
}

// stored is the row of a proxy that brings none.
func (o *Options) stored(snap *db.Snapshot, req Request, zoneProxy bool) (*api.Object[api.Dataplane], *refusal) {
	if zoneProxy {
		var labels map[string]string
		k, _ := KindOf(req.ProxyType)
		if row, ok := k.RowNamed(snap, "", req.Name); ok {
			labels = row.Head().Labels
		}
		mesh, err := api.ZoneProxyMesh(snap, labels, req.Mesh)
		if err != nil {
			return nil, refuse(http.StatusUnprocessableEntity, err.Error())
		}
		req.Mesh = mesh
	}
	dp, ok := api.Dataplanes.Named(snap, req.Mesh, req.Name)
	if !ok {
		return nil, silent(http.StatusNotFound, "there is no Dataplane %s in mesh %s", req.Name, req.Mesh)
	}
	return dp, nil
}

// redirects reports whether the proxy takes traffic by redirection.
func redirects(config json.RawMessage) bool {
	var c struct {
		Redirect struct {
			Inbound, Outbound struct {
				Enabled bool `json:"enabled"`
			}
		} `json:"redirect"`
	}
	return len(config) > 0 && json.Unmarshal(config, &c) == nil && (c.Redirect.Inbound.Enabled || c.Redirect.Outbound.Enabled)
}

// authority is what Envoy verifies discovery with.
func (o *Options) authority(req Request) (string, *refusal) {
	if req.CACert == "" {
		return string(o.Chain()), nil
	}
	found := false
	for rest := []byte(req.CACert); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return "", silent(http.StatusInternalServerError, "caCert: %v", err)
		}
		if cert.BasicConstraintsValid && !cert.IsCA {
			return "", refuse(http.StatusBadRequest,
				fmt.Sprintf("caCert: %v: the certificate of %q may not sign others (BasicConstraints CA is false); pass the certificate of its authority",
					ErrCACert, cert.Subject))
		}
		found = true
	}
	if !found {
		return "", silent(http.StatusInternalServerError, "caCert: no PEM certificate")
	}
	return req.CACert, nil
}

// askedHost is the host that the proxy used to ask. Envoy will verify it, so
// a name outside the certificate would only fail later and less clearly.
func (o *Options) askedHost(r *http.Request) (string, *refusal) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	block, _ := pem.Decode(o.Chain())
	if block == nil {
		return "", silent(http.StatusInternalServerError, "the server has no certificate chain")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", silent(http.StatusInternalServerError, "certificate of the server: %v", err)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		names := append([]string(nil), leaf.DNSNames...)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		return "", refuse(http.StatusBadRequest, fmt.Sprintf(
			"host: %q is not in the certificate of the control plane, which is for %s: use one of these as address, or configure a certificate for it",
			host, strings.Join(names, ", ")))
	}
	return host, nil
}

// ipv4Only reports that a name has IPv4 addresses alone. What cannot be resolved
// here may be at the proxy: it gets both families.
func (o *Options) ipv4Only(ctx context.Context, host string) bool {
	addresses, err := o.Lookup(ctx, host)
	if err != nil || len(addresses) == 0 {
		return false
	}
	for _, a := range addresses {
		if a.Is6() && !a.Is4In6() {
			return false
		}
	}
	return true
}
