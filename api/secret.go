package api

// Secret holds bytes that only administrators may see: keys, certificates,
// lists of revoked tokens. It is the spec of Secrets, which belong to a mesh,
// and of GlobalSecrets.
type Secret struct {
	// The bytes, base64 in JSON and YAML.
	Data []byte `json:"data,omitempty"`
}

// Secrets belong to a mesh.
var Secrets = newKind(Kind[Secret]{
	Facts: Facts{
		Name: "Secret", Plural: "secrets", Scope: MeshScope, Flow: Down,
		Flat: true, Unhashed: true, AdminOnly: true, Kube: KubeCore,
	},
})

// GlobalSecrets belong to no mesh.
var GlobalSecrets = newKind(Kind[Secret]{
	Facts: Facts{
		Name: "GlobalSecret", Plural: "globalsecrets", Alias: "global-secrets", Scope: GlobalScope, Flow: Down,
		Flat: true, Unhashed: true, AdminOnly: true, Kube: KubeCore,
	},
})

// Config is what control planes tell each other about themselves.
type Config struct {
	// The value, as text.
	Config string `json:"config,omitempty"`
}

// Configs have no REST path.
var Configs = newKind(Kind[Config]{
	Facts: Facts{
		Name: "Config", Plural: "configs", Scope: GlobalScope, Flow: Down,
		Flat: true, Unhashed: true, Hidden: true, AdminOnly: true, Kube: KubeCore,
	},
})
