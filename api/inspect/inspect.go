// Package inspect answers what policies say of a proxy, and whom a policy or a
// service is about.
//
// It owns the inspection part of the HTTP API, as a list of endpoints that both
// control planes mount ([Endpoints]). What policies say is computed with package
// api/policy, and names, outbounds and configuration with the queries of
// xds/plan: the same code that makes what a proxy gets. It writes nothing, keeps
// nothing between two calls, asks no proxy and knows no policy kind by itself.
//
//	snapshot ─▶ policies of a kind as JSON ─▶ policy.Set ─▶ Select ─▶ rules with their sources ─▶ answer
//	    └─────▶ an engine of its own ─▶ plan.LayoutOf, plan.Proxy ─▶ names, resources ────────────────┘
//
// # Why
//
// A policy is read here as JSON: to, rules or default, whatever the kind. Confs
// merge as JSON anyway, so this gives what the plan's Go types give, for all
// kinds with one code, also for those that no plan implements. Routes alone have
// another shape: their rules are matched up by what they match.
//
// Every call computes on a snapshot of its own. The engine that serves the
// proxies would have most of it at hand, but a call would hold up its rounds, and
// would leave plans of proxies in it that are not connected. One call costs the
// plan of one proxy, and reading all policies of its mesh: a tenth of a second
// with 1,000 services and as many policies, and a second for a whole
// configuration, of which one is made at a time. That could be kept and shared,
// but people look rarely.
package inspect

import (
	"cmp"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/incr"
	"github.com/atoll-mesh/atoll/api/openapi"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/xds/plan"
)

// Titles of errors, as existing clients show them.
const (
	titlePolicy = "Could not retrieve policy"
	titleList   = "Could not list resources"
	titleConfig = "Failed to inspect proxy config"
)

type inspector struct {
	db   *db.DB
	site api.Site
	turn chan struct{} // held while a configuration is made
}

// Endpoints are the paths of inspection for a control plane at the site.
func Endpoints(d *db.DB, site api.Site) []rest.Endpoint {
	s := &inspector{d, site, make(chan struct{}, 1)}
	out := []rest.Endpoint{
		ofProxy(s, "_rules", "Everything that policies say of a proxy", rules),
		ofProxy(s, "_policies", "What policies say of a proxy as such", proxyPolicies),
		ofProxy(s, "_inbounds/{kri}/_policies", "What policies say of an inbound or listener", inboundPolicies),
		ofProxy(s, "_outbounds/{kri}/_policies", "What policies say of calls to a port of a service", outboundPolicies),
		ofProxy(s, "_outbounds/{kri}/_routes", "Where calls to a port of a service go", outboundRoutes),
		ofProxy(s, "_outbounds/{kri}/_routes/{route}/_policies", "What policies say of calls that take a route", routePolicies),
		ofProxy(s, "_layout", "What a proxy listens on and what it calls", layout),
		ofProxy(s, "policies", "The policies of a proxy, by the part that they act on", matchedPolicies),
		s.configEndpoint(),
		s.servicesEndpoint(),
	}
	out = append(out, s.hostnameEndpoints()...)
	for _, k := range policyKinds() {
		out = append(out, s.reachEndpoints(k)...)
	}
	return out
}

// itemPath is the path of a resource in a mesh.
func itemPath(plural string) string { return "GET /meshes/{mesh}/" + plural + "/{name}/" }

// doc describes an endpoint that answers with a T.
func doc[T any](summary string, query ...openapi.Param) openapi.Operation {
	return openapi.Operation{Summary: summary, Tag: "Inspection", Query: query, Answer: openapi.OfType(reflect.TypeFor[T]())}
}

// policyKinds are the kinds of policies, by name.
func policyKinds() []api.AnyKind {
	var out []api.AnyKind
	for _, k := range api.Kinds {
		if k.Info().Policy != nil {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(a, b api.AnyKind) int { return cmp.Compare(a.Info().Name, b.Info().Name) })
	return out
}

// question is a call about one proxy.
type question struct {
	*http.Request
	snap *db.Snapshot
	dp   *api.Object[api.Dataplane]
	// shadow takes policies into account that are marked as not in force.
	shadow bool
	// fields asks where each field was written.
	fields bool
}

var shadowParam = openapi.Param{Name: "shadow", Doc: "true: as if policies with the label " + api.LabelEffect + ": shadow were in force."}

// ofProxy makes an endpoint of an answer about the proxy in the path.
func ofProxy[T any](s *inspector, path, summary string, answer func(*question) (T, error)) rest.Endpoint {
	return rest.Endpoint{
		Pattern: itemPath(api.Dataplanes.Plural) + path, Action: api.ActionRead,
		Doc: doc[T](summary, shadowParam, openapi.Param{Name: "include", Doc: "fields: where each field of a conf was written, too."}),
		Handle: func(w http.ResponseWriter, r *http.Request) error {
			q := &question{Request: r, snap: s.db.Snapshot()}
			var err error
			if q.shadow, err = flag(r, "shadow"); err != nil {
				return err
			}
			if q.fields, err = includes(r, "fields"); err != nil {
				return err
			}
			if q.dp, err = dataplane(q.snap, r, titlePolicy); err != nil {
				return err
			}
			body, err := answer(q)
			if err != nil {
				return err
			}
			rest.WriteJSON(w, http.StatusOK, body)
			return nil
		},
	}
}

// dataplane is the one in the path.
func dataplane(snap *db.Snapshot, r *http.Request, title string) (*api.Object[api.Dataplane], error) {
	mesh, err := rest.MeshOf(snap, r)
	if err != nil {
		return nil, err
	}
	dp, ok := api.Dataplanes.Named(snap, mesh, r.PathValue("name"))
	if !ok {
		return nil, rest.NotFound(title)
	}
	return dp, nil
}

// flag reads a parameter that is true or false; absent is false.
func flag(r *http.Request, parameter string) (bool, error) {
	text := r.URL.Query().Get(parameter)
	if text == "" {
		return false, nil
	}
	yes, err := strconv.ParseBool(text)
	if err != nil {
		return false, rest.BadRequest("invalid value of query parameter %q: %q; use true or false", parameter, text)
	}
	return yes, nil
}

// includes reports whether the parameter include names what the endpoint can
// add to its answer.
func includes(r *http.Request, what string) (bool, error) {
	found := false
	for _, list := range r.URL.Query()["include"] {
		for one := range strings.SplitSeq(list, ",") {
			if one != what && one != "" {
				return false, rest.BadRequest("unsupported value of query parameter %q: %q; use %q", "include", one, what)
			}
			found = found || one == what
		}
	}
	return found, nil
}

// meta is how a resource is named in answers.
type meta struct {
	Type   string            `json:"type"`
	Mesh   string            `json:"mesh"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
	KRI    string            `json:"kri,omitempty"`
}

func metaOf(m *api.Meta) meta {
	out := meta{Type: m.Kind, Mesh: m.Mesh, Name: m.Core, Labels: m.Labels, KRI: kri(m.ID, "")}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	return out
}

func kri(id api.ID, section string) string {
	k, ok := api.ByName(id.Kind)
	if !ok {
		return ""
	}
	return k.Info().KRI(id, section)
}

// identifier is the KRI in the path: it must be one.
func identifier(q *question, parameter string) (string, error) {
	text := q.PathValue(parameter)
	if _, _, err := api.ParseKRI(text); err != nil {
		return "", rest.BadRequest("%v", err)
	}
	return text, nil
}

// layoutOf computes the layout of the proxy, see the package's Why.
func layoutOf(q *question) (*plan.Layout, error) {
	l, err := incr.Peek(incr.New(q.snap, incr.WithWorkers(1)), plan.LayoutOf.Ref(q.dp.ID))
	if err != nil {
		return nil, fmt.Errorf("layout of %s: %w", q.dp.ID, err)
	}
	return l, nil
}
