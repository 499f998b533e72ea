package proxy

import (
	"encoding/json"
	"net/url"
	"strings"
)

// inventory is what control planes are told of the environment: which variables are
// there, never what they say.
type inventory struct {
	PipeEnabled bool            `json:"pipeEnabled"`
	Shared      signalInventory `json:"shared"`
	Traces      signalInventory `json:"traces"`
	Logs        signalInventory `json:"logs"`
	Metrics     signalInventory `json:"metrics"`
}

type signalInventory struct {
	Signal              string   `json:"signal"`
	EndpointPresent     bool     `json:"endpointPresent"`
	EndpointParsedAsURL bool     `json:"endpointParsedAsURL"`
	EndpointHasPath     bool     `json:"endpointHasPath"`
	ProtocolPresent     bool     `json:"protocolPresent"`
	HeadersPresent      bool     `json:"headersPresent"`
	TimeoutPresent      bool     `json:"timeoutPresent"`
	CompressionPresent  bool     `json:"compressionPresent"`
	InsecurePresent     bool     `json:"insecurePresent"`
	CertificatePresent  bool     `json:"certificatePresent"`
	ClientCertPresent   bool     `json:"clientCertificatePresent"`
	ClientKeyPresent    bool     `json:"clientKeyPresent"`
	EffectiveProtocol   string   `json:"effectiveProtocol"` // unknown, grpc or http/protobuf
	EffectiveAuthMode   string   `json:"effectiveAuthMode"` // none, headers, tls or mtls
	OverrideKinds       []string `json:"overrideKinds,omitempty"`
}

// inventory is nil where nothing is in the environment.
func (env Environment) inventory(pipe bool) json.RawMessage {
	found := false
	for name := range env {
		found = found || name != hostKey
	}
	if !found {
		return nil
	}
	body, err := json.Marshal(inventory{pipe, env.of("shared", ""), env.of("traces", "TRACES_"), env.of("logs", "LOGS_"), env.of("metrics", "METRICS_")})
	if err != nil {
		panic("proxy: " + err.Error()) // plain data encodes
	}
	return body
}

func (env Environment) of(signal, prefix string) signalInventory {
	has := func(name string) bool { return env[prefix+name] != "" }
	out := signalInventory{
		Signal: signal, EndpointPresent: has("ENDPOINT"), ProtocolPresent: has("PROTOCOL"), HeadersPresent: has("HEADERS"), TimeoutPresent: has("TIMEOUT"),
		CompressionPresent: has("COMPRESSION"), InsecurePresent: has("INSECURE"), CertificatePresent: has("CERTIFICATE"),
		ClientCertPresent: has("CLIENT_CERTIFICATE"), ClientKeyPresent: has("CLIENT_KEY"), EffectiveProtocol: "unknown", EffectiveAuthMode: "none",
	}
	if u, err := url.Parse(env[prefix+"ENDPOINT"]); err == nil && u.Scheme != "" && u.Host != "" {
		out.EndpointParsedAsURL, out.EndpointHasPath = true, strings.Trim(u.Path, "/") != ""
	}
	if p := env[prefix+"PROTOCOL"]; p == "grpc" || p == "http/protobuf" {
		out.EffectiveProtocol = p
	}
	switch {
	case out.ClientCertPresent && out.ClientKeyPresent:
		out.EffectiveAuthMode = "mtls"
	case out.HeadersPresent:
		out.EffectiveAuthMode = "headers"
	case out.CertificatePresent:
		out.EffectiveAuthMode = "tls"
	}
	if prefix == "" {
		return out
	}
	for _, name := range []string{"endpoint", "protocol", "headers", "timeout", "compression", "insecure", "certificate", "client_certificate", "client_key"} {
		if has(strings.ToUpper(name)) {
			out.OverrideKinds = append(out.OverrideKinds, name)
		}
	}
	return out
}
