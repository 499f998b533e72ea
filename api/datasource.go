package api

import (
	"encoding/base64"
	"slices"
	"strings"
)

// SecureDataSource says where secret bytes are.
type SecureDataSource struct {
	_ struct{} `gone:"secret" use:"type: Secret with secretRef"`
	_ struct{} `gone:"inline,inlineString" use:"type: InsecureInline with insecureInline"`

	// Which of the members says where the bytes are.
	Type string `json:"type" req:"true" enum:"File,Secret,EnvVar,InsecureInline"`
	// A file that the control plane reads.
	File *FileSource `json:"file,omitempty" when:"File"`
	// A Secret of the same mesh: replicated to zones, shown to administrators
	// only.
	SecretRef *SecretRef `json:"secretRef,omitempty" when:"Secret"`
	// An environment variable of the control plane.
	EnvVar *EnvVarSource `json:"envVar,omitempty" when:"EnvVar"`
	// The bytes themselves, in the resource: for tests, as whoever may read it
	// sees them.
	InsecureInline *InlineSource `json:"insecureInline,omitempty" when:"InsecureInline"`
}

// RemoteDataSource says where secret bytes are that a proxy uses itself: it has
// neither the files nor the environment of the control plane.
type RemoteDataSource struct {
	_ struct{} `gone:"secret" use:"type: Secret with secretRef"`
	_ struct{} `gone:"inline,inlineString" use:"type: InsecureInline with insecureInline"`

	// Which of the members says where the bytes are.
	Type string `json:"type" req:"true" enum:"Secret,InsecureInline"`
	// A Secret of the same mesh: replicated to zones, shown to administrators
	// only.
	SecretRef *SecretRef `json:"secretRef,omitempty" when:"Secret"`
	// The bytes themselves, in the resource: for certificates, which are no
	// secret, and for tests.
	InsecureInline *InlineSource `json:"insecureInline,omitempty" when:"InsecureInline"`
}

// FileSource is a file of the control plane; the path is absolute.
type FileSource struct {
	// An absolute path without "..", such as /etc/ca/tls.crt; the file must be
	// where every instance of the control plane runs.
	Path string `json:"path" req:"true" minLen:"1"`
}

// SecretRef names a Secret of the same mesh.
type SecretRef struct {
	// The kind of what is referred to.
	Kind string `json:"kind" req:"true" enum:"Secret"`
	// The name of the Secret, in the mesh of the resource that refers to it.
	Name string `json:"name" req:"true" minLen:"1"`
}

// EnvVarSource is an environment variable of the control plane.
type EnvVarSource struct {
	// The name of the variable, such as MESH_CA_KEY.
	Name string `json:"name" req:"true" minLen:"1"`
}

// InlineSource is the bytes as text, readable by whoever can read the resource.
type InlineSource struct {
	// The bytes as text, such as a PEM block; not base64.
	Value string `json:"value" req:"true" minLen:"1"`
}

// upgradeDataSource turns the older form of a source of bytes, which has no
// type, into the newer: {secret}, {file}, {inline: base64} or {inlineString}.
// What cannot be read so stays, and is refused with the newer form.
func upgradeDataSource(parent map[string]any, field string) {
	older, _ := parent[field].(map[string]any)
	if len(older) != 1 {
		return
	}
	for member, value := range older {
		text, ok := value.(string)
		if !ok {
			return
		}
		switch member {
		case "secret":
			parent[field] = map[string]any{"type": "Secret", "secretRef": map[string]any{"kind": "Secret", "name": text}}
		case "file":
			parent[field] = map[string]any{"type": "File", "file": map[string]any{"path": text}}
		case "inline":
			raw, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return
			}
			text = string(raw)
			fallthrough
		case "inlineString":
			parent[field] = map[string]any{"type": "InsecureInline", "insecureInline": map[string]any{"value": text}}
		}
	}
}

// check accepts nil.
func (d *SecureDataSource) check(r *Report) {
	if d != nil && d.File != nil && (!strings.HasPrefix(d.File.Path, "/") || slices.Contains(strings.Split(d.File.Path, "/"), "..")) {
		r.At("file.path").Add("must be an absolute path without '..'")
	}
}
