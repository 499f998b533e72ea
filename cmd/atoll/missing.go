package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/client"
)

// notThere is a name without a resource, and what the user may have meant.
type notThere struct{ text string }

func (n notThere) Error() string { return n.text }

// missing says what is not there: the mesh, or the resource; which name is near
// it, and in which meshes the name is.
func missing(ctx context.Context, cl *client.Client, kind api.AnyKind, mesh, name string) error {
	info := kind.Info()
	what := fmt.Sprintf("there is no %s %q", info.Name, name)
	list := fmt.Sprintf("; `atoll get %s` lists what there is", info.Plural)
	if mesh != "" {
		if _, err := cl.Get(ctx, api.Meshes, "", mesh); errors.Is(err, client.ErrNotFound) {
			return notThere{fmt.Sprintf("there is no mesh %q%s; `atoll get meshes` lists what there is", mesh, near(ctx, cl, api.Meshes, "", mesh))}
		}
		what += fmt.Sprintf(" in mesh %q", mesh)
		list = fmt.Sprintf("; `atoll get %s -A` lists what there is", info.Plural)
		if elsewhere := meshesWith(ctx, cl, kind, name); len(elsewhere) > 0 {
			return notThere{fmt.Sprintf("%s, but there is one in %s: choose it by -m", what, strings.Join(elsewhere, ", "))}
		}
	}
	return notThere{what + near(ctx, cl, kind, mesh, name) + list}
}

// meshesWith are the meshes in which there is a resource of the name.
func meshesWith(ctx context.Context, cl *client.Client, kind api.AnyKind, name string) []string {
	var meshes []string
	for row, err := range cl.List(ctx, kind, "", url.Values{"name": {name}}) {
		if err != nil {
			break // the first error is the one that counts
		}
		if head := headOf(row); head.Name == name {
			meshes = append(meshes, head.Mesh)
		}
	}
	return meshes
}

// sample is how many names are looked at for one that is near.
const sample = "1000"

// near ends a message with the name that is nearest, or with nothing.
func near(ctx context.Context, cl *client.Client, kind api.AnyKind, mesh, name string) string {
	page, err := cl.Page(ctx, client.Path(kind, mesh, ""), url.Values{"size": {sample}})
	if err != nil {
		return "" // the first error is the one that counts
	}
	var known []string
	for _, row := range page.Items {
		known = append(known, headOf(row).Name)
	}
	if found := api.Nearest(name, known); found != "" {
		return fmt.Sprintf("; did you mean %q?", found)
	}
	return ""
}

// resourceHead is what every resource begins with.
type resourceHead struct {
	Type, Mesh, Name string
	Labels           map[string]string
}

func (h resourceHead) key() string { return h.Mesh + "/" + h.Name }

// headOf reads the head of a resource; what is none has an empty one.
func headOf(row json.RawMessage) (h resourceHead) {
	_ = json.Unmarshal(row, &h) // as said
	return h
}
