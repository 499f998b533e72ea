package rest

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
)

const (
	defaultPage = 100
	maxPage     = 1000
	// pageBytes ends a page early: so much of documents is enough for one answer.
	pageBytes = 8 << 20
)

// page is the body of a list.
type page struct {
	Total int               `json:"total"`
	Items []json.RawMessage `json:"items"`
	Next  *string           `json:"next"`
}

// query is what a list asks for.
type query struct {
	size, offset int
	name         string
	labels       map[string]string
	match        []func(api.Row) bool
}

// view is how rows of a kind are shown.
type view struct {
	// render makes the document of a row.
	render func(*db.Snapshot, api.AnyKind, api.Row) (json.RawMessage, error)
	// with is a kind whose row of the same ID is a part of the document; nil: none.
	with api.AnyKind
}

func (s *server) list(k api.AnyKind, v view) handler {
	info := k.Info()
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := s.allow(r, s.grantFor(info, false), info.Name); err != nil {
			return err
		}
		snap := s.DB.Snapshot()
		mesh, err := MeshOf(snap, r)
		if err != nil {
			return err
		}
		q, err := parseQuery(k, r)
		if err != nil {
			return err
		}
		all := mesh == "" && info.Scope == api.MeshScope
		if watches(r) {
			return s.watch(w, r, k, v, func(row api.Row) bool { return (all || row.Head().Mesh == mesh) && q.selects(row) })
		}
		body := page{Items: []json.RawMessage{}}
		roles := auth.RolesInForce(snap)
		full := q.offset + min(q.size, math.MaxInt-q.offset) // where the next page begins
		room := pageBytes
		// The walk goes on after the page only to count. What costs is to render,
		// and that is done for the page alone.
		for row := range k.Page(snap, mesh, all) {
			if !q.selects(row) || roles && !s.reads(r, snap, row) {
				continue
			}
			if body.Total >= q.offset && body.Total < full {
				one, err := v.render(snap, k, row)
				if err != nil {
					return err
				}
				body.Items = append(body.Items, one)
				if room -= len(one); room <= 0 {
					full = body.Total + 1
				}
			}
			body.Total++
		}
		if full < body.Total {
			next := s.pageURL(r, full)
			body.Next = &next
		}
		s.stamp(w, k, snap)
		WriteJSON(w, http.StatusOK, body)
		return nil
	}
}

// pageURL is the address of the request with another offset.
func (s *server) pageURL(r *http.Request, offset int) string {
	values := r.URL.Query()
	values.Set("offset", strconv.Itoa(offset))
	if s.RootURL != "" {
		return s.RootURL + r.URL.EscapedPath() + "?" + values.Encode()
	}
	u := url.URL{Scheme: "http", Host: r.Host, Path: s.BasePath + r.URL.Path, RawQuery: values.Encode()}
	if r.TLS != nil {
		u.Scheme = "https"
	}
	return u.String()
}

func (q *query) selects(row api.Row) bool {
	head := row.Head()
	if q.name != "" && !strings.Contains(head.Core, q.name) || !api.HasLabels(head.Labels, q.labels) {
		return false
	}
	for _, match := range q.match {
		if !match(row) {
			return false
		}
	}
	return true
}

func parseQuery(k api.AnyKind, r *http.Request) (*query, error) {
	values := r.URL.Query()
	q := query{size: defaultPage, name: values.Get("name"), labels: map[string]string{}}
	if err := q.parsePage(values); err != nil {
		return nil, err
	}
	_, route, _ := strings.Cut(r.Pattern, " ")
	var faults []api.Fault
	fault := func(parameter, format string, args ...any) {
		faults = append(faults, api.Fault{Field: route + "." + parameter, Reason: fmt.Sprintf(format, args...)})
	}
	for parameter := range values {
		rest, ok := strings.CutPrefix(parameter, "filter[")
		if !ok {
			continue
		}
		inner, tail, closed := strings.Cut(rest, "]")
		label, onLabel := strings.CutPrefix(inner, "labels.")
		switch {
		case !closed || !onLabel || label == "":
			fault(parameter, "filters are only supported on labels")
		case tail != "":
			fault(parameter, "advanced filters are not supported")
		default:
			q.labels[label] = values.Get(parameter)
		}
	}
	if k.Info().Name == api.Dataplanes.Name {
		q.parseDataplane(values, fault)
	}
	if faults == nil {
		return &q, nil
	}
	slices.SortFunc(faults, func(a, b api.Fault) int { return strings.Compare(a.Field, b.Field) })
	return nil, invalid(faults...)
}

func (q *query) parsePage(values url.Values) error {
	if text := values.Get("size"); text != "" {
		size, err := strconv.Atoi(text)
		reason := ""
		switch {
		case err != nil:
			reason = "invalid format"
		case size <= 0:
			reason = "must be greater than 0"
		case size > maxPage:
			reason = fmt.Sprintf("invalid page size of %d. Maximum page size is %d", size, maxPage)
		}
		if reason != "" {
			return &Problem{
				Status: http.StatusBadRequest, Detail: "Invalid page size",
				Faults: []api.Fault{{Field: "size", Reason: reason}},
			}
		}
		q.size = size
	}
	if text := values.Get("offset"); text != "" {
		offset, err := strconv.Atoi(text)
		if err != nil || offset < 0 {
			return &Problem{Status: http.StatusBadRequest, Detail: fmt.Sprintf("invalid: invalid offset: %q", text)}
		}
		q.offset = offset
	}
	return nil
}

// parseDataplane reads the parameters that only lists of Dataplanes have.
func (q *query) parseDataplane(values url.Values, fault func(parameter, format string, args ...any)) {
	for _, tag := range values["tag"] {
		key, value, _ := strings.Cut(tag, ":")
		q.match = append(q.match, func(row api.Row) bool { return hasTag(row, key, value) })
	}
	switch text := values.Get("gateway"); text {
	case "":
	case "true", "delegated":
		q.match = append(q.match, isGateway)
	case "false":
		q.match = append(q.match, func(row api.Row) bool { return !isGateway(row) })
	default:
		fault("gateway", "should use `true`, `false` or `delegated` instead of %s", text)
	}
}

func isGateway(row api.Row) bool {
	dp, ok := row.Body().(*api.Dataplane)
	return ok && dp.Networking.Gateway != nil
}

// hasTag reports whether a label or gateway tag of that key contains the
// value; * is any.
func hasTag(row api.Row, key, value string) bool {
	fits := func(tags map[string]string) bool {
		have, ok := tags[key]
		return ok && (value == "*" || strings.Contains(have, value))
	}
	if fits(row.Head().Labels) {
		return true
	}
	dp, ok := row.Body().(*api.Dataplane)
	return ok && dp.Networking.Gateway != nil && fits(dp.Networking.Gateway.Tags)
}
