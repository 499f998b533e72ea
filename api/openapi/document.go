package openapi

import (
	"regexp"
	"strings"

	"github.com/atoll-mesh/atoll/api"
)

// Operation is one method of one path of the REST API.
type Operation struct {
	// Pattern is that of http.ServeMux: "GET /meshes/{mesh}/dataplanes".
	Pattern string
	// Summary says in a few words what it does; Tag is what it belongs to.
	Summary, Tag string
	// Description says more; empty: there is no more to say.
	Description string
	Query       []Param
	// Body and Answer are schemas; nil: none. Answers of Text are text/plain,
	// of Events text/event-stream if they are asked for with watch.
	Body, Answer Schema
	Text, Events bool
	// Created operations may also answer 201.
	Created bool
}

// Param is a parameter of the query.
type Param struct{ Name, Doc string }

// Ref refers to the schema of that name in the document.
func Ref(name string) Schema { return Schema{"$ref": "#/components/schemas/" + name} }

// Problem is the name of the schema of errors.
const Problem = "Problem"

var variable = regexp.MustCompile(`\{([a-z_]+)\}`)

// API is the OpenAPI document (3.1) of operations, with the schema of every kind
// and those in also.
func API(version string, operations []Operation, also map[string]Schema) Schema {
	schemas := Schema{}
	for _, k := range api.Kinds {
		if !k.Info().Hidden {
			schemas[k.Info().Name] = Document(k)
		}
	}
	for name, s := range also {
		schemas[name] = s
	}
	paths := Schema{}
	for _, o := range operations {
		method, path, _ := strings.Cut(o.Pattern, " ")
		path = strings.TrimSuffix(path, "{$}")
		if paths[path] == nil {
			paths[path] = Schema{}
		}
		paths[path].(Schema)[strings.ToLower(method)] = o.schema(path)
	}
	return Schema{
		"openapi": "3.1.0",
		"info": Schema{
			"title": "Atoll", "version": version,
			"description": "The control plane of a service mesh over many zones.",
			"license":     Schema{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"jsonSchemaDialect": Draft,
		"security":          []Schema{{"token": []string{}}},
		"paths":             paths,
		"components": Schema{
			"schemas":         schemas,
			"securitySchemes": Schema{"token": Schema{"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A user token: atoll generate user-token."}},
			"responses": Schema{"Problem": Schema{
				"description": "What was wrong, and where.",
				"content":     Schema{"application/json": Schema{"schema": Ref(Problem)}},
			}},
		},
	}
}

func (o Operation) schema(path string) Schema {
	out := Schema{"summary": o.Summary, "operationId": operationID(o.Pattern)}
	if o.Tag != "" {
		out["tags"] = []string{o.Tag}
	}
	if o.Description != "" {
		out["description"] = o.Description
	}
	var parameters []Schema
	for _, v := range variable.FindAllStringSubmatch(path, -1) {
		parameters = append(parameters, Schema{"name": v[1], "in": "path", "required": true, "schema": Schema{"type": "string"}})
	}
	for _, p := range o.Query {
		parameters = append(parameters, Schema{"name": p.Name, "in": "query", "description": p.Doc, "schema": Schema{"type": "string"}})
	}
	if parameters != nil {
		out["parameters"] = parameters
	}
	if o.Body != nil {
		out["requestBody"] = Schema{"required": true, "content": Schema{"application/json": Schema{"schema": o.Body}}}
	}
	content := Schema{}
	if o.Text {
		content["text/plain"] = Schema{"schema": Schema{"type": "string"}}
	}
	if o.Answer != nil {
		content["application/json"] = Schema{"schema": o.Answer}
	}
	if o.Events {
		content["text/event-stream"] = Schema{"schema": Schema{"type": "string"}}
	}
	done := func(text string) Schema { return Schema{"description": text, "content": content} }
	responses := Schema{"200": done("Done."), "default": Schema{"$ref": "#/components/responses/Problem"}}
	if o.Created {
		responses["201"] = done("Created.")
	}
	out["responses"] = responses
	return out
}

// operationID is get-meshes-mesh-dataplanes for GET /meshes/{mesh}/dataplanes.
func operationID(pattern string) string {
	words := strings.FieldsFunc(strings.ToLower(pattern), func(r rune) bool {
		return strings.ContainsRune(" /{}$", r)
	})
	return strings.Join(words, "-")
}
