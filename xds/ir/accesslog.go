package ir

import "encoding/json"

// AccessLog writes about each request (HTTP) or connection (TCP) for which all that is set holds: a line to Path, or a
// record to Collector.
type AccessLog struct {
	Denied    bool      `json:"denied,omitempty"`    // only what Permissions refused; Format may then be empty for a JSON line that names the policy
	Peer      PeerMatch `json:"peer,omitzero"`       // only from these callers
	Route     string    `json:"route,omitempty"`     // only what takes the route of this name
	NotRoutes []string  `json:"notRoutes,omitempty"` // only what takes none of these

	Path   string `json:"path,omitempty"`   // a file, "/dev/stdout" too; relative to where the proxy runs
	Reader string `json:"reader,omitempty"` // host:port: Path is a pipe, and who reads it is told to send the line there

	// Format or Fields is what a line contains, in Envoy's command operators, as users write them: text without newline, or
	// an object. Values that are not there are "-", or left out.
	Format    string     `json:"format,omitempty"`
	Fields    []LogField `json:"fields,omitempty"`
	OmitEmpty bool       `json:"omitEmpty,omitempty"`

	// A record for Collector has Format as body, or Body: OTLP's AnyValue in JSON, with operators in its texts. Resource is
	// what is the same for all records, in plain text.
	Collector  *Collector      `json:"collector,omitempty"`
	Body       json.RawMessage `json:"body,omitempty"`
	Attributes []LogField      `json:"attributes,omitempty"`
	Resource   []LogField      `json:"resource,omitempty"`
}

// LogField is a named value of a log.
type LogField struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Collector is who takes OTLP, behind a cluster: by gRPC, or, if URL is set, by POST to it.
type Collector struct {
	Cluster string `json:"cluster"`
	URL     string `json:"url,omitempty"` // such as http://collector:4318/v1/logs
}
