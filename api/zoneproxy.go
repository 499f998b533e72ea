package api

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"strings"

	"github.com/atoll-mesh/atoll/api/db"
)

// What a ZoneIngress or ZoneEgress means. In earlier releases it was a proxy for
// all meshes; here an Envoy is in one mesh, and a zone proxy is a Dataplane.

// ZoneProxyOwner owns the Dataplanes that stand for a ZoneIngress or ZoneEgress.
const ZoneProxyOwner = "zoneproxy-generator"

// checkOwnZone: a zone proxy is written in the zone that it is in.
func checkOwnZone(m *Meta, zone string, r *Report) {
	if zone != "" && m.Zone != "" && zone != m.Zone {
		r.At("zone").Add("must be %q, the zone that it is written in; write it in zone %q", m.Zone, zone)
	}
}

func checkZoneProxy(address string, port uint32, admin *EnvoyAdmin, r *Report) {
	checkAddress(address, r.At("address"))
	if admin != nil && admin.Port != 0 && admin.Port == port {
		r.At("admin.port").Add("must differ from port")
	}
}

// ZoneProxyKinds are the kinds whose rows [ZoneProxyRow] reads.
func ZoneProxyKinds() []AnyKind { return []AnyKind{ZoneIngresses, ZoneEgresses} }

// ZoneProxies lists the local ZoneIngresses and ZoneEgresses that stand for
// something in the mesh. Of two with one name the first stands.
func ZoneProxies(r db.Reader, mesh string) iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for _, k := range ZoneProxyKinds() {
			for row := range k.AllRows(r) {
				m := row.Head()
				if name := m.Label(LabelMesh); !m.Local() || name != "" && name != mesh {
					continue
				}
				if !yield(row) {
					return
				}
			}
		}
	}
}

// ZoneProxyRow is the Dataplane that a ZoneIngress or ZoneEgress stands for in a
// mesh. Its name and labels are those of the zone proxy.
func ZoneProxyRow(proxy Row, mesh string, site Site) *Object[Dataplane] {
	var n Networking
	listen := func(kind, address string, port uint32, admin *EnvoyAdmin) {
		n = Networking{Address: address, Admin: admin, Listeners: []ZoneListener{{Type: kind, Address: address, Port: port}}}
	}
	switch s := proxy.Body().(type) {
	case *ZoneIngress:
		listen(ZoneIngresses.Name, s.Networking.Address, s.Networking.Port, s.Networking.Admin)
	case *ZoneEgress:
		listen(ZoneEgresses.Name, s.Networking.Address, s.Networking.Port, s.Networking.Admin)
	}
	from := proxy.Head()
	m := Meta{ID: LocalID(Dataplanes, mesh, "", from.Name, site), Core: from.Name, Owner: ZoneProxyOwner}
	labels := maps.Clone(from.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelManagedBy] = ZoneProxyOwner
	m.Labels = ComputeLabels(Dataplanes, m.ID, labels, site)
	row := Dataplanes.New(m, Dataplane{Networking: n})
	row.Labels = Dataplanes.Label(&row.Meta, &row.Spec)
	return row
}

// ZoneProxyOf is the ZoneIngress or ZoneEgress that the Dataplane stands for.
func ZoneProxyOf(r db.Reader, dp *Object[Dataplane]) (Row, bool) {
	if dp.Owner != ZoneProxyOwner {
		return nil, false
	}
	for _, l := range dp.Spec.Networking.Listeners {
		if k, ok := ByName(l.Type); ok {
			return k.RowNamed(r, "", dp.Name)
		}
	}
	return nil, false
}

// ZoneProxyTaken reports whether a proxy of another kind than the zone proxy has
// its name in the mesh. Dataplanes, ZoneIngresses and ZoneEgresses share their
// names: what somebody else wrote stands in place of what would be derived.
func ZoneProxyTaken(r db.Reader, kind, mesh, name string) bool {
	dp, ok := Dataplanes.Named(r, mesh, name)
	if !ok {
		return false
	}
	of, found := ZoneProxyOf(r, dp)
	return dp.Owner != ZoneProxyOwner || found && of.Head().Kind != kind
}

// ZoneProxyMesh is the mesh that the Envoy of a ZoneIngress or ZoneEgress is in:
// that of its label kuma.io/mesh, else the one that the proxy asks for, else
// default, else the only one. The error says what to do where that is none.
func ZoneProxyMesh(r db.Reader, labels map[string]string, asks string) (string, error) {
	named := labels[LabelMesh]
	if named != "" && asks != "" && named != asks {
		return "", fmt.Errorf("mesh: the label %s says %q and the proxy is to be in mesh %q: let both say the same", LabelMesh, named, asks)
	}
	exists := func(mesh string) bool {
		_, ok := Meshes.Named(r, "", mesh)
		return ok
	}
	if mesh := cmp.Or(named, asks); mesh != "" {
		if !exists(mesh) {
			return "", fmt.Errorf("mesh: mesh %q does not exist: create it, or name another by the label %s", mesh, LabelMesh)
		}
		return mesh, nil
	}
	if exists("default") {
		return "default", nil
	}
	var all []string
	for m := range Meshes.All(r) {
		all = append(all, m.Name)
	}
	switch len(all) {
	case 0:
		return "", fmt.Errorf("mesh: there is no mesh that the proxy could be in: create one, and name it by the label %s", LabelMesh)
	case 1:
		return all[0], nil
	}
	return "", fmt.Errorf("mesh: a proxy is in one mesh, and there are %s: name one by the label %s", strings.Join(all, ", "), LabelMesh)
}
