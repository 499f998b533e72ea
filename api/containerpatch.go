package api

import "encoding/json"

// ContainerPatch changes the containers that are injected into pods: JSON
// patches (RFC 6902) of the container objects, chosen by an annotation of the pod.
type ContainerPatch struct {
	SidecarPatch []ContainerPatchBlock `json:"sidecarPatch,omitempty"`
	InitPatch    []ContainerPatchBlock `json:"initPatch,omitempty"`
}

// ContainerPatchBlock is one operation.
type ContainerPatchBlock struct {
	Op   string `json:"op" req:"true" enum:"add,remove,replace,move,copy"`
	Path string `json:"path" req:"true"`
	// Value is JSON as text.
	Value string `json:"value,omitempty"`
	From  string `json:"from,omitempty"`
}

// ContainerPatches exist on Kubernetes only, where they are read by injection.
var ContainerPatches = newKind(Kind[ContainerPatch]{
	Facts: Facts{
		Name: "ContainerPatch", Plural: "containerpatches", Scope: MeshScope, ZoneOnly: true, Hidden: true,
	},
	Validate: func(_ *Meta, s *ContainerPatch, r *Report) {
		for i, b := range s.SidecarPatch {
			b.check(r.Index("sidecarPatch", i))
		}
		for i, b := range s.InitPatch {
			b.check(r.Index("initPatch", i))
		}
	},
})

func (b ContainerPatchBlock) check(r *Report) {
	switch b.Op {
	case "add", "replace":
		switch {
		case b.Value == "":
			r.At("value").Add("must be defined")
		case !json.Valid([]byte(b.Value)):
			r.At("value").Add("must be JSON")
		}
	case "move", "copy":
		if b.From == "" {
			r.At("from").Add("must be defined")
		}
	}
}
