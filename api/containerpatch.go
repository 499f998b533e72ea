package api

import "encoding/json"

// ContainerPatch changes the containers that are injected into pods, by JSON
// patches (RFC 6902) of the container objects. A pod names its patches in the
// annotation kuma.io/container-patches. Use it for what the injector has no
// setting for: resources, security context, volumes.
type ContainerPatch struct {
	// Operations on the container of the proxy, one after the other.
	SidecarPatch []ContainerPatchBlock `json:"sidecarPatch,omitempty"`
	// Operations on the init container that redirects traffic, one after the
	// other.
	InitPatch []ContainerPatchBlock `json:"initPatch,omitempty"`
}

// ContainerPatchBlock is one operation.
type ContainerPatchBlock struct {
	// The operation.
	Op string `json:"op" req:"true" enum:"add,remove,replace,move,copy"`
	// Where in the container, as JSON pointer, such as
	// /securityContext/privileged.
	Path string `json:"path" req:"true"`
	// The new value, as JSON inside a text: "true", "\"500m\"", "{\"add\":
	// [\"NET_RAW\"]}". For add and replace.
	Value string `json:"value,omitempty"`
	// Where move and copy take the value from, as JSON pointer.
	From string `json:"from,omitempty"`
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
