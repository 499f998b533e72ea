package inspect

import (
	"cmp"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/hostname"
	"github.com/atoll-mesh/atoll/api/policy"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/xds/plan"
)

// list is a page of resources; Next is absent on the last one.
type list struct {
	Total int    `json:"total"`
	Items []meta `json:"items"`
	Next  string `json:"next,omitempty"`
	// Warnings tell where a policy is not about whom it seems to be.
	Warnings []string `json:"warnings,omitempty"`
}

// reachEndpoints tell whom the policies of a kind select.
func (s *inspector) reachEndpoints(k api.AnyKind) []rest.Endpoint {
	info := k.Info()
	return []rest.Endpoint{
		{
			Pattern: itemPath(info.Plural) + "_resources/dataplanes", Handle: s.policyProxies(k), Kind: info.Name, Action: api.ActionRead,
			Doc: doc[list]("The Dataplanes that a "+info.Name+" selects", rest.PageParams...),
		},
		{
			Pattern: itemPath(info.Plural) + "dataplanes", Handle: s.attachedProxies(k), Kind: info.Name, Action: api.ActionRead,
			Doc: doc[attachedBody]("The Dataplanes that a " + info.Name + " selects, and what it acts on there"),
		},
	}
}

// servicesEndpoint tells who is behind a service.
func (s *inspector) servicesEndpoint() rest.Endpoint {
	return rest.Endpoint{
		Pattern: itemPath(api.MeshServices.Plural) + "_dataplanes", Handle: s.serviceProxies, Kind: api.MeshServices.Name, Action: api.ActionRead,
		Doc: doc[list]("The Dataplanes behind a MeshService", rest.PageParams...),
	}
}

// hostnameEndpoints tell the names of services; of what has none they say so.
func (s *inspector) hostnameEndpoints() []rest.Endpoint {
	var out []rest.Endpoint
	var plurals []string
	for _, k := range hostname.Kinds {
		info := k.Info()
		plurals = append(plurals, info.Plural)
		out = append(out, rest.Endpoint{
			Pattern: itemPath(info.Plural) + "_hostnames", Handle: s.hostnames(k), Kind: info.Name, Action: api.ActionRead,
			Doc: doc[hostnamesBody]("The hostnames of a " + info.Name + ", and the zones that know them"),
		})
	}
	return append(out, rest.Endpoint{Pattern: itemPath("{plural}") + "_hostnames", Doc: doc[hostnamesBody]("Refused for what has no hostnames"),
		Handle: func(_ http.ResponseWriter, r *http.Request) error {
			return rest.BadRequest("%s have no hostnames; only %s do", r.PathValue("plural"), strings.Join(plurals, ", "))
		},
	})
}

func writePage(w http.ResponseWriter, p *rest.Page, proxies iter.Seq[*api.Object[api.Dataplane]], warnings []string) error {
	body := list{Items: []meta{}, Warnings: warnings}
	for dp := range proxies {
		if !p.Wants(dp.Core) {
			continue
		}
		if p.Holds(body.Total) {
			body.Items = append(body.Items, metaOf(&dp.Meta))
		}
		body.Total++
	}
	body.Next = p.Next(body.Total)
	rest.WriteJSON(w, http.StatusOK, body)
	return nil
}

// row is the resource in the path.
func (s *inspector) row(r *http.Request, k api.AnyKind, title string) (*db.Snapshot, api.Row, error) {
	snap := s.db.Snapshot()
	mesh, err := rest.MeshOf(snap, r)
	if err != nil {
		return nil, nil, err
	}
	row, ok := k.RowNamed(snap, mesh, r.PathValue("name"))
	if !ok {
		return nil, nil, rest.NotFound(title)
	}
	return snap, row, nil
}

// matching yields the proxies that a policy selects, by name, and how; in force
// or not.
func matching(snap *db.Snapshot, p *api.Object[spec]) iter.Seq2[*api.Object[api.Dataplane], policy.Selected[spec]] {
	set := policy.NewSet([]*api.Object[spec]{p}, top, true)
	return func(yield func(*api.Object[api.Dataplane], policy.Selected[spec]) bool) {
		for row := range api.Dataplanes.Page(snap, p.Mesh, false) {
			dp := row.(*api.Object[api.Dataplane])
			for _, how := range set.Select(policy.Of(dp, set.Keys(), sections(dp))) {
				if !yield(dp, how) {
					return
				}
			}
		}
	}
}

// policyProxies lists the proxies that a policy selects.
func (s *inspector) policyProxies(k api.AnyKind) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		snap, row, err := s.row(r, k, titlePolicy)
		if err != nil {
			return err
		}
		page, err := rest.PageOf(r)
		if err != nil {
			return err
		}
		warnings, err := sharedCallers(snap, row.Head().ID)
		if err != nil {
			return err
		}
		return writePage(w, page, func(yield func(*api.Object[api.Dataplane]) bool) {
			for dp := range matching(snap, read(row)) {
				if !yield(dp) {
					return
				}
			}
		}, warnings)
	}
}

// serviceProxies lists the proxies behind a MeshService.
func (s *inspector) serviceProxies(w http.ResponseWriter, r *http.Request) error {
	snap, row, err := s.row(r, api.MeshServices, titleList)
	if err != nil {
		return err
	}
	page, err := rest.PageOf(r)
	if err != nil {
		return err
	}
	all := slices.SortedFunc(plan.Selected(snap, row.(*api.Object[api.MeshService])), func(a, b *api.Object[api.Dataplane]) int {
		return cmp.Compare(a.Core, b.Core)
	})
	return writePage(w, page, slices.Values(all), nil)
}

// attachment is the part of a proxy that policies act on: the proxy as such
// (also for what it calls), or one of its inbounds.
type attachment struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Service string `json:"service"`
}

// attachments lists the parts of a proxy, each with its section; the proxy as
// such comes first.
func attachments(dp *api.Object[api.Dataplane]) (all []attachment, section []string) {
	all, section = []attachment{{Type: "dataplane"}}, []string{""}
	add := func(name string, port uint32, address string) {
		all = append(all, attachment{"inbound", address + ":" + strconv.Itoa(int(port)), dp.Label(api.LabelWorkload)})
		section = append(section, name)
	}
	n := dp.Spec.Networking
	for _, in := range n.Inbound {
		add(in.Section(), in.Port, cmp.Or(in.Address, n.Address))
	}
	for _, l := range n.Listeners {
		add(l.Section(), l.Port, cmp.Or(l.Address, n.Address))
	}
	return all, section
}

// attaches reports whether a selected policy acts on the part of a proxy with
// the section; the empty section is the proxy as such.
func attaches(info api.Facts, how policy.Selected[spec], section string) bool {
	p := &how.Policy.Spec
	if section == "" {
		return how.Section == "" && (info.Policy.Single || len(p.To) > 0)
	}
	return len(p.Rules) > 0 && how.Selects(section)
}

type attachedBody struct {
	Total int        `json:"total"`
	Items []attached `json:"items"`
}

type attached struct {
	Kind        string       `json:"kind"`
	Dataplane   proxyName    `json:"dataplane"`
	Attachments []attachment `json:"attachments"`
}

type proxyName struct {
	Mesh string `json:"mesh"`
	Name string `json:"name"`
}

// sidecar is what these answers call a Dataplane.
const sidecar = "SidecarDataplane"

// attachedProxies is the older form of policyProxies.
func (s *inspector) attachedProxies(k api.AnyKind) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		snap, row, err := s.row(r, k, titlePolicy)
		if err != nil {
			return err
		}
		body := attachedBody{Items: []attached{}}
		for dp, how := range matching(snap, read(row)) {
			one := attached{Kind: sidecar, Dataplane: proxyName{dp.Mesh, dp.Core}, Attachments: []attachment{}}
			parts, section := attachments(dp)
			for i, part := range parts {
				if attaches(k.Info(), how, section[i]) {
					one.Attachments = append(one.Attachments, part)
				}
			}
			body.Items = append(body.Items, one)
		}
		body.Total = len(body.Items)
		rest.WriteJSON(w, http.StatusOK, body)
		return nil
	}
}

type matchedBody struct {
	Kind  string    `json:"kind"`
	Total int       `json:"total"`
	Items []matched `json:"items"`
}

type matched struct {
	attachment
	Matched map[string][]meta `json:"matchedPolicies"`
}

// matchedPolicies lists the policies of a proxy, by the part that they act on.
func matchedPolicies(q *question) (matchedBody, error) {
	body := matchedBody{Kind: sidecar, Items: []matched{}}
	parts, section := attachments(q.dp)
	all := views(q, func(api.Facts) bool { return true })
	for i, part := range parts {
		found := map[string][]meta{}
		for _, v := range all {
			for _, p := range v.selected(sections(q.dp)...) {
				if attaches(v.info, p, section[i]) {
					found[v.info.Name] = append(found[v.info.Name], metaOf(&p.Policy.Meta))
				}
			}
		}
		if len(found) > 0 {
			body.Items = append(body.Items, matched{part, found})
		}
	}
	body.Total = len(body.Items)
	return body, nil
}

type hostnameItem struct {
	Hostname string `json:"hostname"`
	Zones    []zone `json:"zones"`
}

type zone struct {
	Name string `json:"name"`
}

type hostnamesBody struct {
	Total int            `json:"total"`
	Items []hostnameItem `json:"items"`
}

// hostnames lists the names of a service in each zone that is asked: of a zone
// those that it enters in the service's status, at global those that each zone will
// come to. What global does not know is when a zone heard of the services of
// others, which decides who of two of them keeps a name; it takes its own word.
func (s *inspector) hostnames(k api.AnyKind) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		snap, row, err := s.row(r, k, titleList)
		if err != nil {
			return err
		}
		zones := []string{s.site.Zone}
		if s.site.IsGlobal() {
			zones = nil
			for z := range api.Zones.All(snap) {
				zones = append(zones, z.Name)
			}
			slices.Sort(zones)
		}
		found := map[string][]zone{}
		for _, name := range zones {
			for host := range namesIn(snap, row.Head(), name) {
				found[host] = append(found[host], zone{name})
			}
		}
		body := hostnamesBody{Total: len(found), Items: []hostnameItem{}}
		for _, host := range slices.Sorted(maps.Keys(found)) {
			body.Items = append(body.Items, hostnameItem{host, found[host]})
		}
		rest.WriteJSON(w, http.StatusOK, body)
		return nil
	}
}

// namesIn is the names of a service in a zone, which has its own generators and
// those of global.
func namesIn(snap *db.Snapshot, service *api.Meta, zone string) map[string]bool {
	dir := hostname.New(zone)
	for g := range api.HostnameGenerators.All(snap) {
		if from := zoneOf(&g.Meta); from == "" || from == zone {
			dir.PutGenerator(g)
		}
	}
	for _, k := range hostname.Kinds {
		for row := range k.Rows(snap, service.Mesh) {
			if seen := seenIn(snap, k, row, zone); seen != nil {
				dir.PutService(seen)
			}
		}
	}
	out := map[string]bool{}
	if h := dir.Of(service.ID); h != nil {
		for _, a := range h.Addresses {
			out[a.Hostname] = true
		}
	}
	return out
}

// seenIn is a service as a zone sees it, nil if it does not: what comes from
// elsewhere has the origin global and another name there.
func seenIn(snap *db.Snapshot, k api.AnyKind, row api.Row, zone string) *api.Meta {
	seen := *row.Head()
	from := zoneOf(&seen)
	if from == zone {
		seen.Source = ""
	} else {
		if origin, ok := api.Zones.Named(snap, "", from); from != "" && (!k.MayCross(row) || ok && !origin.Spec.IsEnabled()) {
			return nil
		}
		seen.Source = api.Global
		if seen.Labels != nil {
			seen.Labels = maps.Clone(seen.Labels)
			seen.Labels[api.LabelOrigin] = api.OriginGlobal
		}
	}
	seen.Core = api.CoreName(k, &seen)
	return &seen
}

func zoneOf(m *api.Meta) string { return cmp.Or(m.Zone, m.Label(api.LabelZone)) }
