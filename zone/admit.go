package zone

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/xds"
	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// proxyOwner marks Dataplanes that their proxies registered themselves.
const proxyOwner = "proxy"

// admit checks who a proxy is, registers it if it brought its Dataplane, and
// enters its connection. Its errors are what the proxy's log shows.
func (z *zone) admit(ctx context.Context, h *xds.Hello) (api.ID, error) {
	meta := h.Node.GetMetadata().GetFields()
	var rows brought
	var err error
	if text := meta["dataplane.resource"].GetStringValue(); text != "" {
		// From here on the row says it; the metadata of the stream is kept, and
		// shown, as long as the proxy is connected.
		delete(meta, "dataplane.resource")
		rows, err = z.brought(h, text, meta["dataplane.proxyType"].GetStringValue())
	} else {
		rows.dataplane, err = z.known(h, meta["dataplane.proxyType"].GetStringValue())
	}
	if err != nil {
		return api.ID{}, err
	}
	row := rows.dataplane
	if err := z.authenticate(h, row); err != nil {
		return api.ID{}, err
	}
	for try := 0; ; try++ {
		if row.Revision == 0 {
			if err := z.register(ctx, h, rows); err != nil {
				return api.ID{}, err
			}
		}
		if err := z.connect(h, row.ID, meta); !errors.Is(err, errGone) || row.Revision != 0 || try == registerTries {
			return row.ID, err
		}
	}
}

// known is the stored Dataplane of a proxy that did not bring one.
func (z *zone) known(h *xds.Hello, proxyType string) (*api.Object[api.Dataplane], error) {
	kind, ok := bootstrap.KindOf(proxyType)
	if !ok {
		return nil, fmt.Errorf("proxy type %q is not known; allowed: dataplane, ingress, egress", proxyType)
	}
	row, ok := api.Dataplanes.Named(z.DB.Snapshot(), h.Mesh, h.Name)
	if !ok || !row.Local() {
		return nil, fmt.Errorf("resource %q not found; create a Dataplane in the control plane first or pass it as an argument to the proxy", h.Mesh+"."+h.Name)
	}
	listens := func(l api.ZoneListener) bool { return l.Type == kind.Info().Name }
	if kind != api.AnyKind(api.Dataplanes) && !slices.ContainsFunc(row.Spec.Networking.Listeners, listens) {
		return nil, fmt.Errorf("resource %q has no listener of type %s, which proxy type %q needs", h.Mesh+"."+h.Name, kind.Info().Name, proxyType)
	}
	return row, nil
}

// brought is what a proxy brought in its metadata: its Dataplane, with the labels
// as it sent them, or a ZoneIngress or ZoneEgress and the Dataplane that it
// stands for. Nothing of zoneProxy is to be stored when it is nil.
type brought struct {
	dataplane *api.Object[api.Dataplane]
	zoneProxy api.Row
}

// brought reads what the proxy carries in its metadata. A Dataplane whose spec is
// that of the stored row has been judged before: reconnects are common, and the
// judgement is most of what they cost.
func (z *zone) brought(h *xds.Hello, text, proxyType string) (brought, error) {
	var r api.Report
	doc, kind, err := bootstrap.Read(text, proxyType, &r)
	if err != nil {
		return brought{}, fmt.Errorf("the metadata of the proxy: %w", err)
	}
	zoneProxy := kind != api.AnyKind(api.Dataplanes)
	if zoneProxy {
		doc.Mesh = cmp.Or(doc.Mesh, h.Mesh) // which it need not say
	}
	if doc.Mesh != h.Mesh || doc.Name != h.Name {
		return brought{}, fmt.Errorf("proxyId {mesh: %s, name: %s} does not match proxy resource {mesh: %s, name: %s}", h.Mesh, h.Name, doc.Mesh, doc.Name)
	}
	snap := z.DB.Snapshot()
	if _, ok := api.Meshes.Named(snap, "", doc.Mesh); !ok {
		return brought{}, fmt.Errorf("mesh: mesh %q does not exist", doc.Mesh)
	}
	api.CheckMeta(kind, doc, z.Site, &r)
	m := api.Meta{ID: api.LocalID(kind, doc.Mesh, "", doc.Name, z.Site), Core: doc.Name, Labels: doc.Labels, Owner: proxyOwner}
	if zoneProxy {
		row := kind.Decode(m, doc.Spec, true, &r)
		if err := r.Err(); err != nil {
			return brought{}, err
		}
		return z.broughtZoneProxy(snap, h, kind, row)
	}
	var row *api.Object[api.Dataplane]
	have, ok := api.Dataplanes.Get(snap, m.ID)
	if ok && have.Owner == api.ZoneProxyOwner {
		return brought{}, errTaken(h)
	}
	if ok && bytes.Equal(have.Written, doc.Spec) {
		row = &api.Object[api.Dataplane]{Meta: m, Spec: have.Spec, Written: have.Written}
		row.Labels = api.Dataplanes.Label(&m, &row.Spec)
	} else {
		row = api.Dataplanes.Decode(m, doc.Spec, true, &r).(*api.Object[api.Dataplane])
	}
	return brought{dataplane: row}, r.Err()
}

// broughtZoneProxy judges a ZoneIngress or ZoneEgress that a proxy of a mesh
// brought against what is stored. One is of one mesh from then on, that of the
// proxy, which may say nothing of others.
func (z *zone) broughtZoneProxy(snap *db.Snapshot, h *xds.Hello, kind api.AnyKind, row api.Row) (brought, error) {
	m := row.Head()
	if _, err := api.ZoneProxyMesh(snap, m.Labels, h.Mesh); err != nil {
		return brought{}, err
	}
	out := brought{dataplane: api.ZoneProxyRow(row, h.Mesh, z.Site), zoneProxy: row}
	if api.ZoneProxyTaken(snap, m.Kind, h.Mesh, h.Name) {
		return brought{}, errTaken(h)
	}
	have, ok := kind.Row(snap, m.ID)
	switch {
	case !ok || have.Head().Label(api.LabelMesh) == h.Mesh:
		m.Labels = maps.Clone(m.Labels)
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[api.LabelMesh] = h.Mesh
	case have.Head().Label(api.LabelMesh) != "":
		return brought{}, fmt.Errorf("%s %q is stored for another mesh: give the proxy another name", m.Kind, h.Name)
	case bytes.Equal(have.Raw(), row.Raw()):
		out = brought{dataplane: api.ZoneProxyRow(have, h.Mesh, z.Site)}
	default:
		return brought{}, fmt.Errorf("another %s %q is stored, for all meshes: delete it, or start the proxy by its name and without a definition", m.Kind, h.Name)
	}
	return out, nil
}

// errTaken: the name is that of a proxy of another kind.
func errTaken(h *xds.Hello) error {
	return fmt.Errorf("a proxy of another kind is called %q in mesh %q: Dataplane, ZoneIngress and ZoneEgress share their names; give the proxy another", h.Name, h.Mesh)
}

// authenticate checks the proxy's token against the Dataplane it says it is,
// and against the one that is stored under the same name.
func (z *zone) authenticate(h *xds.Hello, row *api.Object[api.Dataplane]) error {
	if z.config.DPServer.Auth == "none" {
		return nil
	}
	if len(h.Credentials) != 1 {
		return fmt.Errorf("could not extract credential from DiscoveryRequest: request must have exactly 1 %q header, got %d", "authorization", len(h.Credentials))
	}
	snap := z.DB.Snapshot()
	claims, err := z.Validator.ParseDataplane(snap, z.Now(), row.Mesh, h.Credentials[0])
	if err != nil {
		return fmt.Errorf("authentication failed: %w", err)
	}
	bound := z.workloadBound(snap, row, claims.Tags)
	if err := claims.Check(row, bound); err != nil {
		return fmt.Errorf("authentication failed: %w", err)
	}
	if bound && claims.Workload == "" {
		return fmt.Errorf("authentication failed: dataplane derives its identity from the workload %q: give it the label %s and a token that is bound to it", api.WorkloadOf(row), api.LabelWorkload)
	}
	if old, ok := api.Dataplanes.Named(snap, row.Mesh, row.Name); ok && row.Revision == 0 {
		if err := claims.Check(old, false); err != nil {
			return fmt.Errorf("authentication failed: another proxy of this name is registered: %w", err)
		}
	}
	return nil
}

// workloadBound reports whether the token must name the workload: the identity
// derives from it, and the workload is more than the Dataplane's own name, which
// every token can be bound to. A token that is bound to the service tag of
// older clients has named it. Identities select by all labels, also those that
// the control plane adds.
func (z *zone) workloadBound(snap *db.Snapshot, row *api.Object[api.Dataplane], tags map[string][]string) bool {
	workload := api.WorkloadOf(row)
	if workload == row.Name || len(tags[api.LabelService]) > 0 && workload == row.Label(api.LabelService) {
		return false
	}
	full := *row
	full.Labels = api.ComputeLabels(api.Dataplanes, row.ID, row.Labels, z.Site)
	mid := api.SelectIdentity(api.MeshIdentities.In(snap, row.Mesh), full.Labels)
	if mid == nil {
		return false
	}
	id, err := api.SPIFFEID(mid, &full, z.Site.Zone)
	return err == nil && id.FromWorkload
}

// registerTries bounds the attempts to register against concurrent writers.
const registerTries = 5

// errGone: the Dataplane was deleted before its proxy was connected.
var errGone = errors.New("the Dataplane was deleted while its proxy was connecting")

// errOvertaken: a newer stream of the proxy has been admitted meanwhile.
var errOvertaken = errors.New("the proxy has connected again")

// register stores what a proxy brought; what the Dataplane follows from first,
// without which it would be taken away again.
func (z *zone) register(ctx context.Context, h *xds.Hello, rows brought) error {
	if rows.zoneProxy != nil {
		if err := z.enter(ctx, h, rows.zoneProxy, rows.dataplane.ID); err != nil {
			return err
		}
	}
	return z.enter(ctx, h, rows.dataplane, rows.dataplane.ID)
}

// enter stores a row that a proxy brought. If it is new the proxy is marked as
// joining first, so that no plan ever has it without the mark. One that comes out
// equal is not written: reconnects cost nothing.
func (z *zone) enter(ctx context.Context, h *xds.Hello, row api.Row, proxy api.ID) error {
	rec := store.RecordOf(row)
	kind, _ := api.ByName(rec.Kind)
	rec.Labels, rec.Modified = api.ComputeLabels(kind, rec.ID, rec.Labels, z.Site), z.Now()
	for try := 0; ; try++ {
		op := store.Op{Record: rec, Expect: store.Absent}
		if have, ok := kind.Row(z.DB.Snapshot(), rec.ID); ok {
			stored := store.RecordOf(have)
			op.Expect = store.At(stored.Revision)
			op.Record.Created, op.Record.Owner = stored.Created, stored.Owner
			if op.Record.Equal(&stored) {
				return nil
			}
		} else {
			op.Record.Created = rec.Modified
			_, err := z.DB.Write(func(tx *db.Tx) error {
				api.Joinings.Put(tx, &api.Joining{Proxy: proxy, Stream: h.Stream})
				return nil
			})
			if err != nil {
				return err
			}
		}
		_, err := z.Feeder.Apply(ctx, []store.Op{op})
		if err == nil || !errors.Is(err, store.ErrConflict) || try == registerTries {
			return err
		}
	}
}

// connect enters the connection of an admitted proxy. The mark of one that is
// still joining moves on to the newer stream. It fails with errGone when the
// reaper was faster.
func (z *zone) connect(h *xds.Hello, id api.ID, meta map[string]*structpb.Value) error {
	c := &api.Connection{
		Proxy: id, Instance: z.Instance, Stream: h.Stream, Since: z.Now(),
		AdminAddress: meta["dataplane.admin.address"].GetStringValue(), AdminSocket: meta["dataplane.admin.socketPath"].GetStringValue(),
		AdminPort: portOf(meta["dataplane.admin.port"]), ReadinessPort: portOf(meta["dataplane.readinessReporter.port"]),
	}
	c.WorkDir, c.SystemCA = meta["workdir"].GetStringValue(), meta["systemCaPath"].GetStringValue()
	c.HostIP = meta["dynamicMetadata"].GetStructValue().GetFields()["HOST_IP"].GetStringValue()
	c.MetricsCert, c.MetricsKey = meta["metricsCertPath"].GetStringValue(), meta["metricsKeyPath"].GetStringValue()
	c.DNSPort = portOf(meta["dataplane.dns.port"])
	c.NoIPv6 = meta["ipv6Enabled"] != nil && !meta["ipv6Enabled"].GetBoolValue()
	for _, f := range meta["features"].GetListValue().GetValues() {
		switch f.GetStringValue() {
		case "feature-reuse-port":
			c.ReusePort = true
		case "feature-tcp-accesslog-via-named-pipe":
			c.LogPipe = true
		case "feature-otel-via-kuma-dp":
			c.OTLP = true
		case bootstrap.FeatureInWorkDir:
			c.InWorkDir = true
		case "feature-bind-outbounds":
			c.BindOutbounds = true
		case "feature-strict-inbound-ports":
			c.StrictInbounds = true
		case "feature-transparent-proxy-in-dataplane-metadata":
			c.Redirection = redirection(meta["transparentProxy"].GetStructValue())
		}
	}
	z.leaving.Lock()
	defer z.leaving.Unlock()
	_, err := z.DB.Write(func(tx *db.Tx) error {
		if _, ok := api.Dataplanes.Get(tx, id); !ok {
			return errGone
		}
		if have, ok := api.Connections.Get(tx, id.Key()); ok && have.Instance == c.Instance && have.Stream > c.Stream {
			return errOvertaken
		}
		if j, ok := api.Joinings.Get(tx, id.Key()); ok && j.Stream != h.Stream {
			api.Joinings.Put(tx, &api.Joining{Proxy: id, Stream: h.Stream})
		}
		api.Connections.Put(tx, c)
		return nil
	})
	if err == nil { // that it is connected shows before it has answered anything
		z.report(xds.Status{Proxy: id, Stream: h.Stream, Connected: c.Since, Node: h.Node})
	}
	return err
}

// redirection reads what a proxy says of its host, in the form in which the host is
// configured.
func redirection(said *structpb.Struct) *api.Redirection {
	redirect := said.GetFields()["redirect"].GetStructValue()
	port := func(of string) uint32 {
		one := redirect.GetFields()[of].GetStructValue().GetFields()
		if !one["enabled"].GetBoolValue() {
			return 0
		}
		return portOf(one["port"])
	}
	return &api.Redirection{
		Inbound: port("inbound"), Outbound: port("outbound"), DNS: port("dns") != 0,
		IPv4Only: strings.EqualFold(said.GetFields()["ipFamilyMode"].GetStringValue(), "ipv4"),
	}
}

// portOf reads a port that the metadata has as text or as number.
func portOf(v *structpb.Value) uint32 {
	if v == nil {
		return 0
	}
	if n := v.GetNumberValue(); n > 0 && n < 1<<16 {
		return uint32(n)
	}
	n, err := strconv.ParseUint(v.GetStringValue(), 10, 16)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// report enters what the discovery server says about a stream.
func (z *zone) report(s xds.Status) { z.status.Report(s) }
