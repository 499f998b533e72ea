package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/openapi"
	"github.com/atoll-mesh/atoll/api/rest"
)

// envoyTime bounds how long a question to an Envoy takes.
const envoyTime = 15 * time.Second

// Envoy is the endpoints that show what the Envoy of a proxy has, counts and
// reaches, by asking it:
//
//	GET /meshes/{mesh}/dataplanes/{name}/xds?include_eds=true
//	GET /meshes/{mesh}/dataplanes/{name}/stats?format=json&usedonly=false
//	GET /meshes/{mesh}/dataplanes/{name}/clusters?format=json
//
// A zone asks the Envoy itself, global the proxy's zone. Whatever keeps them from
// an answer is a 400 that says what.
func (s *Server) Envoy(ask func(context.Context, *api.Object[api.Dataplane], api.Question) ([]byte, error)) []rest.Endpoint {
	endpoint := func(path string, about api.About, action api.Action, grant func(auth.Access) auth.Grant, doc openapi.Operation) rest.Endpoint {
		doc.Tag = "Proxies"
		return rest.Endpoint{Pattern: "GET /meshes/{mesh}/dataplanes/{name}/" + path, Grant: grant, Action: action, Doc: doc, Handle: func(w http.ResponseWriter, r *http.Request) error {
			snap := s.DB.Snapshot()
			if _, ok := api.Meshes.Named(snap, "", r.PathValue("mesh")); !ok {
				return &rest.Problem{Status: http.StatusNotFound, Title: "Failed to retrieve Mesh", Detail: "Not found"}
			}
			proxy, ok := api.Dataplanes.Named(snap, r.PathValue("mesh"), r.PathValue("name"))
			if !ok {
				return &rest.Problem{Status: http.StatusNotFound, Title: titleEnvoy, Detail: "Not found"}
			}
			q, err := questionOf(about, r)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(r.Context(), envoyTime)
			defer cancel()
			body, err := ask(ctx, proxy, q)
			if err != nil {
				return unanswered(r.Context(), err)
			}
			kind := "text/plain; charset=utf-8"
			if q.JSON {
				kind = "application/json"
			}
			w.Header().Set("Content-Type", kind)
			w.Header().Set("X-Content-Type-Options", "nosniff") // the proxy wrote it
			_, _ = w.Write(body)                                // the client went away
			return nil
		}}
	}
	format := openapi.Param{Name: "format", Doc: "json, or text as without it."}
	return []rest.Endpoint{
		endpoint("xds", api.AboutConfig, api.ActionViewConfigDump, func(a auth.Access) auth.Grant { return a.ViewConfigDump }, openapi.Operation{
			Summary: "What an Envoy was sent, as it says itself", Answer: openapi.Schema{"type": "object"},
			Query: []openapi.Param{{Name: "include_eds", Doc: "true: with the endpoints."}},
		}),
		endpoint("stats", api.AboutStats, api.ActionViewStats, func(a auth.Access) auth.Grant { return a.ViewStats }, openapi.Operation{
			Summary: "What an Envoy counts", Text: true,
			Query: []openapi.Param{format, {Name: "usedonly", Doc: "false: also what has never counted."}},
		}),
		endpoint("clusters", api.AboutClusters, api.ActionViewClusters, func(a auth.Access) auth.Grant { return a.ViewClusters }, openapi.Operation{
			Summary: "Whom an Envoy reaches, and how well", Text: true, Query: []openapi.Param{format},
		}),
	}
}

const titleEnvoy = "Could not execute admin operation"

// questionOf reads the parameters of a request.
func questionOf(about api.About, r *http.Request) (api.Question, error) {
	q := api.Question{About: about, JSON: about == api.AboutConfig}
	var err error
	flag := func(name string, otherwise bool) bool {
		text := r.FormValue(name)
		if text == "" {
			return otherwise
		}
		yes, bad := strconv.ParseBool(text)
		if bad != nil {
			err = &rest.Problem{Status: http.StatusBadRequest, Title: "Bad Request", Detail: fmt.Sprintf("bad request: %s is %q; allowed: true, false", name, text)}
		}
		return yes
	}
	switch about {
	case api.AboutConfig:
		q.EDS = flag("include_eds", false)
		return q, err
	case api.AboutStats:
		q.Used = flag("usedonly", true)
	}
	switch f := r.FormValue("format"); f {
	case "", "text":
	case "json":
		q.JSON = true
	default:
		err = &rest.Problem{Status: http.StatusBadRequest, Title: "Bad Request", Detail: fmt.Sprintf("bad request: format is %q; allowed: json, text", f)}
	}
	return q, err
}

// unanswered is the answer where there is none from the Envoy.
func unanswered(client context.Context, err error) error {
	switch {
	case client.Err() != nil:
		return client.Err()
	case errors.Is(err, api.ErrNotConnected):
		return &rest.Problem{Status: http.StatusBadRequest, Title: "Bad Request", Detail: err.Error()}
	case errors.Is(err, context.DeadlineExceeded):
		return &rest.Problem{Status: http.StatusBadRequest, Title: titleEnvoy, Detail: fmt.Sprintf("no answer within %v", envoyTime)}
	}
	return &rest.Problem{Status: http.StatusBadRequest, Title: titleEnvoy, Detail: err.Error()}
}
