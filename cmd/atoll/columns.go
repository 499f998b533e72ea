package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
)

// shownRow is what tables show of a resource, of every kind.
type shownRow struct {
	Mesh    string            `json:"mesh"`
	Name    string            `json:"name"`
	Labels  map[string]string `json:"labels"`
	Created time.Time         `json:"creationTime"`
	KRI     string            `json:"kri"`

	// Spec and Status of the kinds that have them; the spec is decoded when a
	// column asks.
	Spec   json.RawMessage `json:"spec"`
	Status struct {
		Proxies      *api.ProxyCounts      `json:"dataplaneProxies"`
		MeshServices []api.MultiZoneMember `json:"meshServices"`
	} `json:"status"`

	Dataplane struct {
		Networking struct {
			Address string       `json:"address"`
			Gateway *api.Gateway `json:"gateway"`
		} `json:"networking"`
	} `json:"dataplane"`
	DataplaneInsight api.DataplaneInsight `json:"dataplaneInsight"`

	Zone struct {
		Enabled *bool `json:"enabled"`
	} `json:"zone"`
	ZoneInsight api.ZoneInsight `json:"zoneInsight"`

	// Dataplanes of a MeshInsight, which is flat.
	Dataplanes api.DataplaneStat           `json:"dataplanes"`
	Resources  map[string]api.ResourceStat `json:"resources"`
}

// specOf decodes the spec as far as tables show it.
func specOf[S any](r *shownRow) (s S) {
	_ = json.Unmarshal(r.Spec, &s) // of a newer form: what is understood
	return s
}

// column is a header and what stands below it; wide ones are shown when asked for.
type column struct {
	header string
	wide   bool
	cell   func(*printer, *shownRow) string
}

// columns of a kind: where it is, what matters of it, how old it is, and what
// only few want to know.
func columns(info api.Facts) []column {
	var out []column
	add := func(wide bool, header string, cell func(*shownRow) string) {
		out = append(out, column{header, wide, func(_ *printer, r *shownRow) string { return cell(r) }})
	}
	if info.Scope == api.MeshScope {
		add(false, "MESH", func(r *shownRow) string { return r.Mesh })
	}
	add(false, "NAME", func(r *shownRow) string { return r.Name })
	out = append(out, ownColumns(info)...)
	out = append(out, column{"AGE", false, func(p *printer, r *shownRow) string { return p.age(r.Created) }})
	if info.Name != api.Dataplanes.Name {
		add(true, "LABELS", (*shownRow).tags)
	}
	if !info.Unhashed && !info.AdminOnly {
		add(true, "ORIGIN", func(r *shownRow) string { return r.Labels[api.LabelOrigin] })
		add(true, "ZONE", func(r *shownRow) string { return r.Labels[api.LabelZone] })
		add(true, "KRI", func(r *shownRow) string { return r.KRI })
	}
	return out
}

// ownColumns are those that only some kinds have.
func ownColumns(info api.Facts) []column {
	plain := func(header string, cell func(*shownRow) string) column {
		return column{header, false, func(_ *printer, r *shownRow) string { return cell(r) }}
	}
	wide := func(header string, cell func(*shownRow) string) column {
		return column{header, true, func(_ *printer, r *shownRow) string { return cell(r) }}
	}
	switch info.Name {
	case api.Dataplanes.Name:
		return []column{
			plain("TAGS", (*shownRow).tags),
			plain("ADDRESS", func(r *shownRow) string { return r.Dataplane.Networking.Address }),
			plain("STATUS", (*shownRow).proxyStatus),
			wide("ENVOY", (*shownRow).envoy),
			{"CERTIFICATE", true, func(p *printer, r *shownRow) string { return p.certificate(r) }},
		}
	case api.Zones.Name:
		return []column{
			{"STATUS", false, func(p *printer, r *shownRow) string { return p.zoneStatus(r) }},
			plain("VERSION", (*shownRow).zoneVersion),
			{"LAST SEEN", false, func(p *printer, r *shownRow) string { return p.lastSeen(r) }},
		}
	case api.MeshInsights.Name:
		return []column{
			plain("PROXIES", func(r *shownRow) string { return fmt.Sprintf("%d/%d", r.Dataplanes.Online, r.Dataplanes.Total) }),
			plain("RESOURCES", func(r *shownRow) string {
				var n uint32
				for _, stat := range r.Resources {
					n += stat.Total
				}
				return strconv.Itoa(int(n))
			}),
		}
	case api.MeshServices.Name:
		return []column{
			plain("PORTS", func(r *shownRow) string {
				return list(specOf[api.MeshService](r).Ports, func(p api.MeshServicePort) string { return portText(p.Name, p.Port, p.AppProtocol) })
			}),
			plain("PROXIES", func(r *shownRow) string { return first(r.counts(), specOf[api.MeshService](r).State) }),
		}
	case api.MeshMultiZoneServices.Name:
		return []column{
			plain("PORTS", func(r *shownRow) string {
				return list(specOf[api.MeshMultiZoneService](r).Ports, func(p api.MultiZoneServicePort) string { return portText(p.Name, p.Port, p.AppProtocol) })
			}),
			plain("SERVICES", func(r *shownRow) string { return strconv.Itoa(len(r.Status.MeshServices)) }),
			wide("IN", func(r *shownRow) string {
				return list(r.Status.MeshServices, func(m api.MultiZoneMember) string { return m.Zone + "/" + m.Name })
			}),
		}
	case api.MeshExternalServices.Name:
		return []column{
			plain("PORT", func(r *shownRow) string {
				m := specOf[api.MeshExternalService](r).Match
				return portText("", m.Port, m.Protocol)
			}),
			plain("ENDPOINTS", func(r *shownRow) string {
				return list(specOf[api.MeshExternalService](r).Endpoints, func(e api.ExternalEndpoint) string { return fmt.Sprintf("%s:%d", e.Address, e.Port) })
			}),
		}
	case api.MeshZoneAddresses.Name:
		return []column{plain("ADDRESS", func(r *shownRow) string {
			a := specOf[api.MeshZoneAddress](r)
			return fmt.Sprintf("%s:%d", a.Address, a.Port)
		})}
	case api.HostnameGenerators.Name:
		return []column{plain("TEMPLATE", func(r *shownRow) string { return specOf[api.HostnameGenerator](r).Template })}
	case api.Workloads.Name:
		return []column{plain("PROXIES", (*shownRow).counts)}
	}
	if info.Policy == nil {
		return nil
	}
	of := []column{plain("PROXIES OF", func(r *shownRow) string { return refText(specOf[policyShape](r).TargetRef) })}
	if info.Policy.To {
		of = append(of, plain("TO", func(r *shownRow) string {
			return list(specOf[policyShape](r).To, func(t toShape) string { return refText(&t.TargetRef) })
		}))
	}
	if info.Policy.Rules {
		of = append(of, plain("RULES", func(r *shownRow) string {
			s := specOf[policyShape](r)
			return strconv.Itoa(len(s.Rules) + len(s.From))
		}))
	}
	return append(of, wide("EFFECT", func(r *shownRow) string { return first(r.Labels[api.LabelEffect], "enforced") }))
}

// policyShape is what policies of all kinds have in common, in older forms too.
type policyShape struct {
	TargetRef *refShape         `json:"targetRef"`
	To        []toShape         `json:"to"`
	Rules     []json.RawMessage `json:"rules"`
	From      []json.RawMessage `json:"from"`
}

type toShape struct {
	TargetRef refShape `json:"targetRef"`
}

type refShape struct {
	Kind        string            `json:"kind"`
	Name        string            `json:"name"`
	SectionName string            `json:"sectionName"`
	Labels      map[string]string `json:"labels"`
	Tags        map[string]string `json:"tags"`
}

// refText is a reference in a few words: Mesh, MeshService backend, Dataplane app=web.
func refText(r *refShape) string {
	if r == nil || r.Kind == "" {
		return api.RefMesh
	}
	text := r.Kind
	labels := maps.Clone(r.Labels)
	if name := first(r.Name, labels[api.LabelDisplayName]); name != "" {
		text += " " + name
		delete(labels, api.LabelDisplayName)
	}
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, r.Tags)
	if len(labels) > 0 {
		text += " " + labelText(labels)
	}
	if r.SectionName != "" {
		text += ":" + r.SectionName
	}
	return text
}

func labelText(labels map[string]string) string {
	out := make([]string, 0, len(labels))
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, name+"="+labels[name])
	}
	return strings.Join(out, ",")
}

// portText is 80/http, with the name if it says more.
func portText(name string, port int32, protocol string) string {
	text := fmt.Sprintf("%d/%s", port, first(protocol, "tcp"))
	if name != "" && name != strconv.Itoa(int(port)) {
		text = name + ":" + text
	}
	return text
}

// shownItems is how many items of a list a cell shows.
const shownItems = 3

// list shows the first items.
func list[T any](items []T, show func(T) string) string {
	var out []string
	for i, item := range items {
		if i == shownItems {
			out = append(out, fmt.Sprintf("and %d more", len(items)-i))
			break
		}
		out = append(out, show(item))
	}
	return strings.Join(out, ", ")
}

// counts is how many of the proxies of a service are healthy.
func (r *shownRow) counts() string {
	if r.Status.Proxies == nil {
		return ""
	}
	return fmt.Sprintf("%d/%d", r.Status.Proxies.Healthy, r.Status.Proxies.Total)
}

func (r *shownRow) envoy() string {
	for _, s := range slices.Backward(r.DataplaneInsight.Subscriptions) {
		if s.Version != nil && s.Version.Envoy != nil {
			return s.Version.Envoy.Version
		}
	}
	return ""
}

// certificate is how long the proxy's certificate is still valid.
func (p *printer) certificate(r *shownRow) string {
	m := r.DataplaneInsight.MTLS
	switch {
	case m == nil || m.CertificateExpirationTime == nil:
		return "none"
	case m.CertificateExpirationTime.Before(p.now):
		return "EXPIRED"
	}
	return "for " + span(m.CertificateExpirationTime.Sub(p.now))
}

// tags are the labels that say what the workload is, and a gateway's tags.
func (r *shownRow) tags() string {
	tags := maps.Clone(r.Labels)
	for _, computed := range []string{api.LabelDisplayName, api.LabelMesh, api.LabelOrigin, api.LabelEnv, api.LabelManagedBy} {
		delete(tags, computed)
	}
	if g := r.Dataplane.Networking.Gateway; g != nil {
		maps.Copy(tags, g.Tags)
	}
	return labelText(tags)
}

// proxyStatus is REJECTING for a proxy that is online and refuses something.
func (r *shownRow) proxyStatus() string {
	if !slices.ContainsFunc(r.DataplaneInsight.Subscriptions, api.DataplaneSubscription.Online) {
		return "OFFLINE"
	}
	if len(r.DataplaneInsight.Rejected) > 0 {
		return "REJECTING"
	}
	return "ONLINE"
}

func (p *printer) zoneStatus(r *shownRow) string {
	switch {
	case r.Zone.Enabled != nil && !*r.Zone.Enabled:
		return "DISABLED"
	case p.connected(r):
		return "ONLINE"
	}
	return "OFFLINE"
}

// connected: the insight says it of other zones, the convergence of this one too.
func (p *printer) connected(r *shownRow) bool {
	return slices.ContainsFunc(r.ZoneInsight.Subscriptions, api.ZoneSubscription.Online) ||
		slices.ContainsFunc(p.zones, func(z server.ZoneReach) bool { return z.Zone == r.Name && z.Connected })
}

func (r *shownRow) zoneVersion() string {
	for _, s := range slices.Backward(r.ZoneInsight.Subscriptions) {
		if s.Version != nil && s.Version.KumaCP != nil {
			return s.Version.KumaCP.Version
		}
	}
	return ""
}

func (p *printer) lastSeen(r *shownRow) string {
	if p.connected(r) {
		return "now"
	}
	var seen time.Time
	later := func(t *time.Time) {
		if t != nil && t.After(seen) {
			seen = *t
		}
	}
	if h := r.ZoneInsight.HealthCheck; h != nil {
		later(h.Time)
	}
	for _, s := range r.ZoneInsight.Subscriptions {
		later(s.ConnectTime)
		later(s.DisconnectTime)
	}
	if seen.IsZero() {
		return "never"
	}
	return p.age(seen)
}
