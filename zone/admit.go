package zone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

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
	if kind := meta["dataplane.proxyType"].GetStringValue(); kind != "" && kind != "dataplane" {
		return api.ID{}, fmt.Errorf("proxy type %q is not served: use a Dataplane with networking.listeners", kind)
	}
	var row *api.Object[api.Dataplane]
	var err error
	if text := meta["dataplane.resource"].GetStringValue(); text != "" {
		// From here on the row says it; the metadata of the stream is kept, and
		// shown, as long as the proxy is connected.
		delete(meta, "dataplane.resource")
		row, err = z.brought(h, text)
	} else {
		row, err = z.known(h)
	}
	if err != nil {
		return api.ID{}, err
	}
	if err := z.authenticate(h, row); err != nil {
		return api.ID{}, err
	}
	for try := 0; ; try++ {
		if row.Revision == 0 {
			if err := z.register(ctx, h, row); err != nil {
				return api.ID{}, err
			}
		}
		if err := z.connect(h, row.ID, meta); !errors.Is(err, errGone) || row.Revision != 0 || try == registerTries {
			return row.ID, err
		}
	}
}

// known is the stored Dataplane of a proxy that did not bring one.
func (z *zone) known(h *xds.Hello) (*api.Object[api.Dataplane], error) {
	row, ok := api.Dataplanes.Named(z.DB.Snapshot(), h.Mesh, h.Name)
	if !ok || !row.Local() {
		return nil, fmt.Errorf("resource %q not found; create a Dataplane in the control plane first or pass it as an argument to the proxy", h.Mesh+"."+h.Name)
	}
	return row, nil
}

// brought is the Dataplane that the proxy carries in its metadata, with the
// labels as it sent them. One whose spec is that of the stored row has been judged
// before: reconnects are common, and the judgement is most of what they cost.
func (z *zone) brought(h *xds.Hello, text string) (*api.Object[api.Dataplane], error) {
	var r api.Report
	doc, err := bootstrap.ReadDataplane(text, &r)
	if err != nil {
		return nil, fmt.Errorf("the metadata of the proxy: %w", err)
	}
	if doc.Mesh != h.Mesh || doc.Name != h.Name {
		return nil, fmt.Errorf("proxyId {mesh: %s, name: %s} does not match proxy resource {mesh: %s, name: %s}", h.Mesh, h.Name, doc.Mesh, doc.Name)
	}
	snap := z.DB.Snapshot()
	if _, ok := api.Meshes.Named(snap, "", doc.Mesh); !ok {
		return nil, fmt.Errorf("mesh: mesh %q does not exist", doc.Mesh)
	}
	api.CheckMeta(api.Dataplanes, doc, z.Site, &r)
	m := api.Meta{ID: api.LocalID(api.Dataplanes, doc.Mesh, "", doc.Name, z.Site), Labels: doc.Labels, Owner: proxyOwner}
	var row *api.Object[api.Dataplane]
	if have, ok := api.Dataplanes.Get(snap, m.ID); ok && bytes.Equal(have.Written, doc.Spec) {
		row = &api.Object[api.Dataplane]{Meta: m, Spec: have.Spec, Written: have.Written}
		row.Labels = api.Dataplanes.Label(&m, &row.Spec)
	} else {
		row = api.Dataplanes.Decode(m, doc.Spec, true, &r).(*api.Object[api.Dataplane])
	}
	if err := r.Err(); err != nil {
		return nil, err
	}
	return row, nil
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

// register stores the Dataplane that a proxy brought. One that is new is marked
// as joining first, so that no plan ever has it without the mark. One that comes
// out equal is not written: reconnects cost nothing.
func (z *zone) register(ctx context.Context, h *xds.Hello, row *api.Object[api.Dataplane]) error {
	rec := store.RecordOf(row)
	rec.Labels = api.ComputeLabels(api.Dataplanes, row.ID, row.Labels, z.Site)
	rec.Owner, rec.Modified = proxyOwner, z.Now()
	for try := 0; ; try++ {
		op := store.Op{Record: rec, Expect: store.Absent}
		if have, ok := api.Dataplanes.Get(z.DB.Snapshot(), row.ID); ok {
			op.Expect = store.At(store.Revision(have.Revision))
			op.Record.Created, op.Record.Owner = have.Created, have.Owner
			if stored := store.RecordOf(have); op.Record.Equal(&stored) {
				return nil
			}
		} else {
			op.Record.Created = rec.Modified
			_, err := z.DB.Write(func(tx *db.Tx) error {
				api.Joinings.Put(tx, &api.Joining{Proxy: row.ID, Stream: h.Stream})
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
	for _, f := range meta["features"].GetListValue().GetValues() {
		c.ReusePort = c.ReusePort || f.GetStringValue() == "feature-reuse-port"
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
