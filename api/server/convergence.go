package server

import (
	"cmp"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/openapi"
	"github.com/atoll-mesh/atoll/api/rest"
)

// Reach is how far a revision of this control plane has come.
type Reach struct {
	// Revision and Epoch of this control plane's own store.
	Revision uint64 `json:"revision"`
	Epoch    string `json:"epoch"`
	// Converged: every proxy of every connected zone has all of the revision.
	Converged bool        `json:"converged"`
	Zones     []ZoneReach `json:"zones"`
}

// ZoneReach is the part of one zone.
type ZoneReach struct {
	Zone string `json:"zone"`
	// Connected says that the zone is in touch; a zone that is not is not waited for.
	Connected bool `json:"connected"`
	// Enforced is the newest revision that all its proxies have; Epoch is its history.
	Enforced uint64 `json:"enforced"`
	Epoch    string `json:"epoch"`
	Proxies  int    `json:"proxies"`
	Behind   int    `json:"behind"`
	Rejected int    `json:"rejected"`
	// Laggards are some of those that lack or refuse something.
	Laggards []api.Laggard `json:"laggards,omitempty"`
}

// reachOf computes how far a revision is. Source is the name under which zones
// know this control plane: [api.Global], or the zone's own name.
func reachOf(r db.Reader, revision uint64, source string, connected func(zone string) bool) Reach {
	out := Reach{Revision: revision, Zones: []ZoneReach{}}
	if own, ok := api.Revisions.Get(r, ""); ok {
		out.Epoch = own.Epoch
		if out.Revision == 0 {
			out.Revision = own.Counter
		}
	}
	zones := map[string]*ZoneReach{}
	for c := range api.Convergences.All(r) {
		m := c.Spec.Enforced[source]
		z := zones[c.Zone]
		if z == nil {
			z = &ZoneReach{Zone: c.Zone, Connected: connected(c.Zone), Enforced: m.Counter, Epoch: m.Epoch}
			zones[c.Zone] = z
		}
		z.Enforced = min(z.Enforced, m.Counter)
		z.Proxies += c.Spec.Proxies
		z.Behind += c.Spec.Behind
		z.Rejected += c.Spec.Rejected
		z.Laggards = append(z.Laggards, c.Spec.Laggards...)
	}
	out.Converged = true
	for _, z := range zones {
		out.Zones = append(out.Zones, *z)
		if z.Connected && (z.Epoch != out.Epoch || z.Enforced < out.Revision) {
			out.Converged = false
		}
	}
	slices.SortFunc(out.Zones, func(a, b ZoneReach) int { return cmp.Compare(a.Zone, b.Zone) })
	return out
}

// maxWait bounds how long one request waits.
const maxWait = 2 * time.Minute

func metadata(a auth.Access) auth.Grant { return a.ControlPlaneMetadata }

// Convergence is the endpoint that tells how far a revision is, and waits for it:
//
//	GET /convergence?revision=812&wait=30s
//
// Without a revision it tells of the newest. It answers when the revision has
// converged or the wait is over. It names proxies of all meshes, so roles that
// let somebody read some resources do not open it: VIEW_CONTROL_PLANE_METADATA does.
func (s *Server) Convergence(source string, connected func(zone string) bool) rest.Endpoint {
	return rest.Endpoint{Pattern: "GET /convergence", Waits: true, Action: api.ActionViewControlPlaneState, Grant: metadata, Doc: openapi.Operation{
		Summary: "How far a revision is, and wait for it", Tag: "Control plane",
		Query: []openapi.Param{
			{Name: "revision", Doc: "As the header " + rest.RevisionHeader + " of a write told it; the newest without it."},
			{Name: "wait", Doc: "How long to wait for it, at most 2m."},
		},
		Answer: openapi.OfType(reflect.TypeFor[Reach]()),
	}, Handle: func(w http.ResponseWriter, q *http.Request) error {
		var revision uint64
		var wait time.Duration
		var r api.Report
		if text := q.FormValue("revision"); text != "" {
			n, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				r.At("revision").Add("%q is no revision: it is the number in the header %s of a write", text, rest.RevisionHeader)
			}
			revision = n
		}
		if text := q.FormValue("wait"); text != "" {
			d, err := time.ParseDuration(text)
			if err != nil || d < 0 {
				r.At("wait").Add("%q is no duration such as 30s", text)
			}
			wait = min(d, maxWait)
		}
		if err := r.Err(); err != nil {
			return err
		}
		rest.Lasting(w, wait)
		wake := make(chan struct{}, 1)
		stop := s.DB.OnCommit(func(db.Commit) {
			select {
			case wake <- struct{}{}:
			default:
			}
		})
		defer stop()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		for {
			reach := reachOf(s.DB.Snapshot(), revision, source, connected)
			over := reach.Converged
			if !over {
				select {
				case <-wake:
					continue
				case <-timer.C:
				case <-rest.Draining(q.Context()):
				case <-q.Context().Done():
					return nil
				}
			}
			w.Header().Set("Content-Type", "application/json")
			return json.NewEncoder(w).Encode(reach)
		}
	}}
}
