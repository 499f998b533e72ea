package rest

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/openapi"
)

// openapiRoute serves the description of every other route. What it says does
// not depend on rows, so it is made once.
func (s *server) openapiRoute() {
	var body json.RawMessage
	s.json("GET /openapi", titleInfo, func(w http.ResponseWriter, r *http.Request) error {
		if err := s.readers(r); err != nil {
			return err
		}
		WriteJSON(w, http.StatusOK, body)
		return nil
	})
	body, err := encode(openapi.API(s.Version, s.operations(), map[string]openapi.Schema{
		openapi.Problem: openapi.OfType(reflect.TypeFor[problemBody]()),
	}))
	if err != nil {
		panic("rest: the description of the API: " + err.Error()) // it is made of plain values
	}
}

var watchParams = []openapi.Param{
	{Name: "watch", Doc: "true: go on, with server-sent events (reset, put, delete, end) of what changes."},
	{Name: "revision", Doc: "With watch: after this revision, as the id of an earlier event or the header " + PositionHeader + " of an answer told it. A number alone, as " + RevisionHeader + " tells it, does not say of which history it is, if the store was restored from a backup meanwhile."},
}

var formatParams = []openapi.Param{
	{Name: "format", Doc: "universal (default), or kubernetes for an object of Kubernetes."},
	{Name: "namespace", Doc: "With format=kubernetes: the namespace of the object."},
}

var listParams = append(slices.Clip(PageParams), openapi.Param{Name: "filter[labels.KEY]", Doc: "The value that the label KEY must have."})

// operations describes every route, in the order of paths.
func (s *server) operations() []openapi.Operation {
	docs := map[string]openapi.Operation{}
	for _, e := range s.Extra {
		docs[e.Pattern] = e.Doc
	}
	for _, o := range fixedOperations() {
		docs[o.Pattern] = o
	}
	for _, k := range api.Kinds {
		for _, o := range kindOperations(k.Info()) {
			docs[o.Pattern] = o
		}
	}
	var out []openapi.Operation
	for _, pattern := range s.patterns {
		if strings.Contains(pattern, "/-resources/") {
			continue // another spelling
		}
		o := docs[pattern]
		o.Pattern = pattern
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b openapi.Operation) int { return strings.Compare(a.Pattern, b.Pattern) })
	return out
}

func listOf(item openapi.Schema) openapi.Schema {
	return openapi.Schema{
		"type": "object", "required": []string{"total", "items", "next"},
		"properties": openapi.Schema{
			"total": openapi.Schema{"type": "integer", "description": "Items of all pages."},
			"items": openapi.Schema{"type": "array", "items": item},
			"next":  openapi.Schema{"type": []string{"string", "null"}, "description": "The address of the next page."},
		},
	}
}

// kindOperations are the routes of a kind, whichever of them are served.
func kindOperations(i api.Facts) []openapi.Operation {
	var out []openapi.Operation
	one := openapi.Ref(i.Name)
	overview := openapi.Schema{"type": "object", "required": []string{"type", "name"}}
	done := openapi.OfType(reflect.TypeFor[warned]())
	deletion := map[string]string{
		api.Meshes.Name: "Everything in the mesh goes with it, secrets too, by the right to delete the mesh alone; refused while there are Dataplanes in it. With dryRun=true the answer counts what would go.",
		api.Zones.Name:  "The copies of what the zone wrote go with it, by the right to delete the zone alone; refused while it is connected.",
	}
	for _, plural := range []string{i.Plural, i.Alias} {
		if plural == "" {
			continue
		}
		lists := []string{"/" + plural}
		if i.Scope == api.MeshScope {
			lists = append(lists, "/meshes/{mesh}/"+plural)
		}
		add := func(o openapi.Operation) {
			o.Tag = i.Name
			out = append(out, o)
		}
		params := slices.Concat(listParams, watchParams)
		if i.Name == api.Dataplanes.Name {
			params = append(params, openapi.Param{Name: "tag", Doc: "KEY:VALUE that a proxy must have; VALUE may be a part, or *."},
				openapi.Param{Name: "gateway", Doc: "true, false or delegated."})
		}
		for _, list := range lists {
			add(openapi.Operation{Pattern: "GET " + list, Summary: "List " + words(i.Name), Query: params, Answer: listOf(one), Events: true})
			for _, suffix := range []string{"/_overview", "+insights"} {
				add(openapi.Operation{Pattern: "GET " + list + suffix, Summary: "List " + words(i.Name) + " with what is known of them", Query: params, Answer: listOf(overview), Events: true})
			}
		}
		item := lists[len(lists)-1] + "/{name}"
		add(openapi.Operation{Pattern: "GET " + item, Summary: "Get a " + words(i.Name), Query: slices.Concat(formatParams, watchParams), Answer: one, Events: true})
		add(openapi.Operation{Pattern: "PUT " + item, Summary: "Create or replace a " + words(i.Name), Body: one, Answer: done, Created: true})
		add(openapi.Operation{Pattern: "DELETE " + item, Summary: "Delete a " + words(i.Name), Description: deletion[i.Name], Answer: done})
		for _, at := range []string{item + "/_overview", lists[len(lists)-1] + "+insights/{name}"} {
			add(openapi.Operation{Pattern: "GET " + at, Summary: "Get a " + words(i.Name) + " with what is known of it", Answer: overview, Query: watchParams, Events: true})
		}
	}
	return out
}

// fixedOperations are the routes beside those of kinds.
func fixedOperations() []openapi.Operation {
	open := openapi.Schema{"type": "object"}
	of := func(name string, t reflect.Type) openapi.Schema {
		return openapi.Schema{
			"type": "object", "required": []string{name},
			"properties": openapi.Schema{name: openapi.Schema{"type": "array", "items": openapi.OfType(t)}},
		}
	}
	token := func(path, what string, t reflect.Type) openapi.Operation {
		body := openapi.OfType(t)
		delete(body, "required") // what may be left out is a matter of meaning
		return openapi.Operation{Pattern: "POST /tokens/" + path, Summary: "Issue a token for " + what, Tag: "Tokens", Body: body, Text: true}
	}
	info := func(pattern, summary string, answer openapi.Schema) openapi.Operation {
		return openapi.Operation{Pattern: "GET " + pattern, Summary: summary, Tag: "Control plane", Answer: answer}
	}
	return []openapi.Operation{
		info("/{$}", "Which control plane this is", openapi.OfType(reflect.TypeFor[client.Root]())),
		info("/openapi", "This document", open),
		info("/config", "The configuration, secrets masked", open),
		info("/who-am-i", "Who the caller is", open),
		info("/policies", "Kinds of policies", of("policies", reflect.TypeFor[policyKind]())),
		info("/_resources", "All kinds", of("resources", reflect.TypeFor[kindInfo]())),
		info("/_kri/{kri}", "A document by its KRI", open),
		info("/global-insight", "Counts of everything", openapi.OfType(reflect.TypeFor[globalInsight]())),
		info("/global-insights", "Counts of documents", open),
		token("dataplane", "a proxy", reflect.TypeFor[client.DataplaneTokenRequest]()),
		token("zone", "a zone", reflect.TypeFor[client.ZoneTokenRequest]()),
		token("user", "a user", reflect.TypeFor[client.UserTokenRequest]()),
	}
}
