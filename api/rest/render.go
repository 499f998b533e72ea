package rest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

// head is the common part of every resource that is shown, in the order in
// which clients are used to see it.
type head struct {
	Type     string            `json:"type"`
	Mesh     string            `json:"mesh,omitempty"`
	Name     string            `json:"name"`
	Created  time.Time         `json:"creationTime"`
	Modified time.Time         `json:"modificationTime"`
	Labels   map[string]string `json:"labels,omitempty"`
	KRI      string            `json:"kri,omitempty"`
	SNIs     []sni             `json:"snis,omitempty"`
}

type sni struct {
	Port int    `json:"port"`
	SNI  string `json:"sni"`
}

func headOf(k api.AnyKind, row api.Row) head {
	m := row.Head()
	return head{
		Type: k.Info().Name, Mesh: m.Mesh, Name: m.Core, Created: m.Created, Modified: m.Modified,
		Labels: m.Labels, KRI: k.Info().KRI(m.ID, ""), SNIs: snisOf(k, row),
	}
}

// port is a port of a service, and how it is called in an SNI.
type port struct {
	number  int
	section string
}

// portsOf are the ports of a row that is called over mTLS by name.
func portsOf(row api.Row) []port {
	var out []port
	switch s := row.Body().(type) {
	case *api.MeshService:
		for _, p := range s.Ports {
			out = append(out, port{int(p.Port), p.Section()})
		}
	case *api.MeshMultiZoneService:
		for _, p := range s.Ports {
			out = append(out, port{int(p.Port), p.Section()})
		}
	case *api.MeshExternalService:
		out = append(out, port{int(s.Match.Port), s.Section()})
	}
	return out
}

func snisOf(k api.AnyKind, row api.Row) []sni {
	var out []sni
	for _, p := range portsOf(row) {
		if name, ok := api.SNI(k, row.Head().ID, p.section); ok {
			out = append(out, sni{p.number, name})
		}
	}
	slices.SortFunc(out, func(a, b sni) int { return a.Port - b.Port })
	return out
}

// item is a resource as the API shows it: the head, then the spec as it was
// written (beside the head for flat kinds), then the status.
func (s *server) item(snap *db.Snapshot, k api.AnyKind, row api.Row) (json.RawMessage, error) {
	out, err := encode(headOf(k, row))
	if err != nil {
		return nil, err
	}
	if k.Info().Flat {
		return join(out, specOnly(row.Raw())), nil
	}
	tail := struct {
		Spec   json.RawMessage `json:"spec"`
		Status any             `json:"status,omitempty"`
	}{Spec: row.Raw(), Status: s.status(snap, row)}
	more, err := encode(tail)
	return join(out, more), err
}

func (s *server) status(snap *db.Snapshot, row api.Row) any {
	if s.Status == nil {
		return nil
	}
	return s.Status(snap, row)
}

// specOnly is a flat spec without members that have the name of one of the
// head. Peers and stores may bring such, which no kind has a meaning for, and a
// name that comes twice is read differently by every client (RFC 8259, 4).
func specOnly(spec []byte) []byte {
	in := json.NewDecoder(bytes.NewReader(spec))
	if _, err := in.Token(); err != nil {
		return spec
	}
	var out []byte // nil as long as all members stay
	for at := in.InputOffset(); in.More(); at = in.InputOffset() {
		name, err := in.Token()
		if err != nil {
			return spec
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return spec
		}
		taken := false
		switch name {
		case "type", "mesh", "name", "creationTime", "modificationTime", "labels", "kri", "snis":
			taken = true
		}
		switch {
		case taken && out == nil:
			out = append(make([]byte, 0, len(spec)), spec[:at]...)
		case !taken && out != nil:
			member := bytes.TrimLeft(spec[at:in.InputOffset()], ", \t\r\n")
			if len(out) > 1 {
				out = append(out, ',')
			}
			out = append(out, member...)
		}
	}
	if out == nil {
		return spec
	}
	return append(out, '}')
}

// join puts the members of two JSON objects into one.
func join(a, b []byte) []byte {
	a, b = bytes.TrimSpace(a), bytes.TrimSpace(b)
	if len(b) < 2 || len(bytes.TrimSpace(b[1:len(b)-1])) == 0 {
		return a
	}
	out := make([]byte, 0, len(a)+len(b))
	out = append(out, a[:len(a)-1]...)
	out = append(out, ',')
	return append(out, b[1:]...)
}

// clusterScoped are the kinds that have no namespace on Kubernetes.
var clusterScoped = []string{"Mesh", "Zone", "ZoneInsight", "MeshInsight", "ServiceInsight"}

// computedLabels are not part of what a user would write into a cluster.
var computedLabels = []string{
	api.LabelDisplayName, api.LabelOrigin, api.LabelZone, api.LabelEnv, api.LabelNamespace,
	api.LabelIngress, api.LabelEgress, api.LabelManagedBy, api.LabelGraceSince,
}

// kubernetes is the resource as an object that can be applied to a cluster.
func (s *server) kubernetes(snap *db.Snapshot, k api.AnyKind, row api.Row, namespace string) (json.RawMessage, error) {
	info, m := k.Info(), row.Head()
	type metadata struct {
		Name      string            `json:"name"`
		Namespace string            `json:"namespace,omitempty"`
		Labels    map[string]string `json:"labels,omitempty"`
		Created   *time.Time        `json:"creationTimestamp"`
	}
	object := struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   metadata          `json:"metadata"`
		Mesh       string            `json:"mesh,omitempty"`
		Type       string            `json:"type,omitempty"`
		Data       map[string][]byte `json:"data,omitempty"`
		Spec       json.RawMessage   `json:"spec,omitempty"`
		Status     any               `json:"status,omitempty"`
	}{APIVersion: "kuma.io/v1alpha1", Kind: info.Name}
	object.Metadata.Name = m.Core
	if !m.Created.IsZero() {
		object.Metadata.Created = &m.Created
	}
	if !slices.Contains(clusterScoped, info.Name) {
		object.Metadata.Namespace = s.SystemNamespace
		if namespace != "" {
			object.Metadata.Namespace = namespace
		}
	}
	labels := maps.Clone(m.Labels)
	maps.DeleteFunc(labels, func(name, _ string) bool { return slices.Contains(computedLabels, name) })
	secret, isSecret := row.Body().(*api.Secret)
	if info.Scope == api.MeshScope { // elsewhere the label is the user's
		if info.Flat && !isSecret {
			object.Mesh = m.Mesh
			delete(labels, api.LabelMesh)
		} else {
			if labels == nil {
				labels = map[string]string{}
			}
			labels[api.LabelMesh] = m.Mesh
		}
	}
	object.Metadata.Labels = labels
	if isSecret {
		object.APIVersion, object.Kind = "v1", "Secret"
		object.Type = "system.kuma.io/secret"
		if info.Scope == api.GlobalScope {
			object.Type = "system.kuma.io/global-secret"
		}
		object.Data = map[string][]byte{"value": secret.Data}
	} else {
		object.Spec, object.Status = row.Raw(), s.status(snap, row)
	}
	return encode(object)
}
