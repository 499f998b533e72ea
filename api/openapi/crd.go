package openapi

import (
	"strings"

	"github.com/atoll-mesh/atoll/api"
)

// Group and Version of the kinds on Kubernetes.
const (
	Group   = "kuma.io"
	Version = "v1alpha1"
)

// CRD returns the CustomResourceDefinition of a kind (apiextensions.k8s.io/v1),
// nil for kinds that are something else on Kubernetes or are not there.
//
// Schemas hold types and words, for kubectl explain, and nothing that refuses:
// unknown fields are kept (x-kubernetes-preserve-unknown-fields), and enums,
// bounds and defaults are left to the webhook, so that it sees every fault at
// once, and every older form as it was written.
func CRD(k api.AnyKind) Schema {
	i := k.Info()
	if i.Kube == api.KubeCore || i.Kube == api.KubeNone {
		return nil
	}
	scope, plural := "Namespaced", strings.ReplaceAll(i.Plural, "-", "")
	if i.Kube == api.KubeCluster {
		scope = "Cluster"
	}
	names := Schema{
		"kind": i.Name, "listKind": i.Name + "List", "plural": plural, "singular": strings.ToLower(i.Name),
		"categories": []string{"kuma"},
	}
	if i.Short != "" {
		names["shortNames"] = []string{i.Short}
	}
	text := Schema{"type": "string"}
	properties := Schema{
		"apiVersion": text, "kind": text, "metadata": Schema{"type": "object"},
		"spec": structural(k.Shape()), "status": open(),
	}
	if i.Flat {
		properties["mesh"] = text // where flat kinds name their mesh
		properties["spec"] = open()
	}
	version := Schema{
		"name": Version, "served": true, "storage": true, "subresources": Schema{},
		"schema": Schema{"openAPIV3Schema": Schema{"type": "object", "description": k.Shape().Doc, "properties": properties}},
	}
	if c := columns(i); c != nil {
		version["additionalPrinterColumns"] = c
	}
	return Schema{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": Schema{"name": plural + "." + Group},
		"spec":     Schema{"group": Group, "names": names, "scope": scope, "versions": []Schema{version}},
	}
}

// structural is the schema of a value in the subset that Kubernetes takes.
func structural(s *api.Shape) Schema {
	out := Schema{}
	if s.Doc != "" {
		out["description"] = s.Doc
	}
	switch {
	case s.Format == "int-or-string" || s.Format == "uint64":
		out["x-kubernetes-int-or-string"] = true
	case s.Type == "":
		out["x-kubernetes-preserve-unknown-fields"] = true
	case s.Type == "object":
		object(out, s, structural)
		delete(out, "required")
		if _, values := out["additionalProperties"]; !values {
			out["x-kubernetes-preserve-unknown-fields"] = true
		}
	case s.Type == "array":
		out["type"], out["items"] = "array", structural(s.Elem)
	default:
		out["type"] = s.Type
	}
	return out
}

// open is an object of any fields.
func open() Schema {
	return Schema{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
}

// columns are what kubectl get shows beside the name.
func columns(i api.Facts) []Schema {
	column := func(name, path string) []Schema {
		return []Schema{{"name": name, "type": "string", "jsonPath": path}}
	}
	switch {
	case i.Policy != nil:
		return column("TargetRef Kind", ".spec.targetRef.kind")
	case i.Destination:
		return column("Hostname", ".status.addresses[0].hostname")
	}
	return nil
}
