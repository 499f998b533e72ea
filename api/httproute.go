package api

import (
	"net/netip"
	"regexp/syntax"
	"strings"
)

// MeshHTTPRoute says where requests to a service go.
type MeshHTTPRoute struct {
	// TargetRef nil is the whole mesh.
	TargetRef *TargetRef        `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	To        []MeshHTTPRouteTo `json:"to,omitempty"`
}

// MeshHTTPRouteTo is the routes of one destination.
type MeshHTTPRouteTo struct {
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// Hostnames is of older forms and must be empty.
	Hostnames []string        `json:"hostnames,omitempty"`
	Rules     []HTTPRouteRule `json:"rules,omitempty"`
}

// HTTPRouteRule is what happens to requests that fit any of the matches.
type HTTPRouteRule struct {
	Matches []HTTPMatch   `json:"matches" req:"true" minItems:"1"`
	Default HTTPRouteConf `json:"default" req:"true"`
}

// HTTPMatch tells requests apart; all conditions must hold.
type HTTPMatch struct {
	Path        *PathMatch    `json:"path,omitempty"`
	Method      string        `json:"method,omitempty" enum:"CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,TRACE"`
	QueryParams []QueryMatch  `json:"queryParams,omitempty"`
	Headers     []HeaderMatch `json:"headers,omitempty"`
}

// PathMatch matches the path. PathPrefix matches whole segments.
type PathMatch struct {
	Type  string `json:"type" req:"true" enum:"Exact,PathPrefix,RegularExpression"`
	Value string `json:"value" req:"true" minLen:"1"`
}

// QueryMatch matches a query parameter.
type QueryMatch struct {
	Type  string `json:"type" req:"true" enum:"Exact,RegularExpression"`
	Name  string `json:"name" req:"true" minLen:"1"`
	Value string `json:"value" req:"true"`
}

// HTTPRouteConf leaves unset what it does not speak of.
type HTTPRouteConf struct {
	Filters []HTTPFilter `json:"filters,omitempty"`
	// BackendRefs is where requests go; none: to the destination itself.
	BackendRefs []BackendRef `json:"backendRefs,omitempty"`
}

// HTTPFilter changes a request or a response; the member named by Type is set.
type HTTPFilter struct {
	Type                   string           `json:"type" req:"true" enum:"RequestHeaderModifier,ResponseHeaderModifier,RequestRedirect,URLRewrite,RequestMirror"`
	RequestHeaderModifier  *HeaderModifier  `json:"requestHeaderModifier,omitempty" when:"RequestHeaderModifier"`
	ResponseHeaderModifier *HeaderModifier  `json:"responseHeaderModifier,omitempty" when:"ResponseHeaderModifier"`
	RequestRedirect        *RequestRedirect `json:"requestRedirect,omitempty" when:"RequestRedirect"`
	URLRewrite             *URLRewrite      `json:"urlRewrite,omitempty" when:"URLRewrite"`
	RequestMirror          *RequestMirror   `json:"requestMirror,omitempty" when:"RequestMirror"`
}

// HeaderModifier changes headers; a name appears once.
type HeaderModifier struct {
	Set    []HeaderKeyValue `json:"set,omitempty" maxItems:"16"`
	Add    []HeaderKeyValue `json:"add,omitempty" maxItems:"16"`
	Remove []string         `json:"remove,omitempty" maxItems:"16"`
}

// HeaderKeyValue is a header.
type HeaderKeyValue struct {
	Name  string `json:"name" req:"true" minLen:"1" maxLen:"256" pattern:"^[a-z0-9!#$%&'*+\\-.^_\\x60|~]+$"`
	Value string `json:"value" req:"true"`
}

// RequestRedirect answers with another address to ask.
type RequestRedirect struct {
	Scheme     string       `json:"scheme,omitempty" enum:"http,https"`
	Hostname   string       `json:"hostname,omitempty"`
	Port       uint32       `json:"port,omitempty" min:"1" max:"65535"`
	StatusCode uint32       `json:"statusCode,omitempty" enum:"301,302,303,307,308" default:"302"`
	Path       *PathRewrite `json:"path,omitempty"`
}

// URLRewrite changes what the destination sees of the address.
type URLRewrite struct {
	Hostname              string       `json:"hostname,omitempty"`
	Path                  *PathRewrite `json:"path,omitempty"`
	HostToBackendHostname bool         `json:"hostToBackendHostname,omitempty"`
}

// PathRewrite replaces the whole path or the prefix that matched.
type PathRewrite struct {
	Type               string `json:"type" req:"true" enum:"ReplaceFullPath,ReplacePrefixMatch"`
	ReplaceFullPath    string `json:"replaceFullPath,omitempty"`
	ReplacePrefixMatch string `json:"replacePrefixMatch,omitempty"`
}

// RequestMirror sends a copy of requests elsewhere.
type RequestMirror struct {
	// Percentage nil is all requests.
	Percentage *IntOrString `json:"percentage,omitempty" range:"0,100"`
	BackendRef BackendRef   `json:"backendRef" req:"true"`
}

// MeshHTTPRoutes are written anywhere.
var MeshHTTPRoutes = newKind(Kind[MeshHTTPRoute]{
	Facts: Facts{
		Name: "MeshHTTPRoute", Plural: "meshhttproutes", Short: "mhttpr", Scope: MeshScope, Flow: Down | Up | Across,
		Policy: &PolicyInfo{To: true},
	},
	Cross:    crossesAsProducer,
	Validate: validateHTTPRoute,
})

func validateHTTPRoute(_ *Meta, s *MeshHTTPRoute, r *Report) {
	checkTop(s.TargetRef, false, r.At("targetRef"))
	kinds := []string{RefService, RefExternalService, RefMultiZoneService}
	for i, to := range s.To {
		at := r.Index("to", i)
		checkTo(to.TargetRef, kinds, at.At("targetRef"))
		if len(to.Hostnames) > 0 {
			at.At("hostnames").Add("must not be set")
		}
		for j, rule := range to.Rules {
			rule.check(at.Index("rules", j))
		}
	}
}

func (rule *HTTPRouteRule) check(r *Report) {
	prefixes := true
	for i, m := range rule.Matches {
		m.check(r.Index("matches", i))
		prefixes = prefixes && m.Path != nil && m.Path.Type == "PathPrefix"
	}
	for i, f := range rule.Default.Filters {
		f.check(prefixes, r.Index("default.filters", i))
	}
	for i, ref := range rule.Default.BackendRefs {
		checkBackend(ref, r.Index("default.backendRefs", i))
	}
}

func (m *HTTPMatch) check(r *Report) {
	if m.Path != nil {
		m.Path.check(r.At("path"))
	}
	seen := map[string]bool{}
	for i, q := range m.QueryParams {
		at := r.Index("queryParams", i)
		if seen[q.Name] {
			at.At("name").Add("multiple entries for name %s", q.Name)
		}
		seen[q.Name] = true
		if q.Type == "RegularExpression" {
			checkRegex(q.Value, at.At("value"))
		}
	}
	checkHeaderMatches("headers", m.Headers, r)
}

func (p *PathMatch) check(r *Report) {
	at := r.At("value")
	switch {
	case p.Type == "RegularExpression":
		checkRegex(p.Value, at)
	case !strings.HasPrefix(p.Value, "/"):
		at.Add("must be an absolute path")
	case p.Type == "PathPrefix" && p.Value != "/" && strings.HasSuffix(p.Value, "/"):
		at.Add("does not need a trailing slash because only a `/`-separated prefix or an entire path is matched")
	}
}

// checkRegex refuses what Envoy would refuse together with all else in the same
// message: both use the syntax of RE2.
func checkRegex(s string, r *Report) {
	if _, err := syntax.Parse(s, syntax.Perl); err != nil {
		r.Add("must be a regular expression (RE2): %v", err)
	}
}

func (f *HTTPFilter) check(prefixes bool, r *Report) {
	if m := f.RequestHeaderModifier; m != nil {
		m.check(r.At("requestHeaderModifier"))
	}
	if m := f.ResponseHeaderModifier; m != nil {
		m.check(r.At("responseHeaderModifier"))
	}
	if d := f.RequestRedirect; d != nil {
		at := r.At("requestRedirect")
		checkHostname(d.Hostname, at.At("hostname"))
		d.Path.check(prefixes, at.At("path"))
	}
	if u := f.URLRewrite; u != nil {
		at := r.At("urlRewrite")
		checkHostname(u.Hostname, at.At("hostname"))
		u.Path.check(prefixes, at.At("path"))
		if u.HostToBackendHostname {
			at.At("hostToBackendHostname").Add("must not be set")
		}
	}
	if m := f.RequestMirror; m != nil {
		checkBackend(m.BackendRef, r.At("requestMirror.backendRef"))
	}
}

func checkHostname(s string, r *Report) {
	if s == "" {
		return
	}
	if _, err := netip.ParseAddr(s); err == nil {
		r.Add("cannot be an IP address")
	} else if len(s) > 253 || !dnsSubdomain.MatchString(s) {
		r.Add("must be a lowercase RFC 1123 subdomain")
	}
}

func (m *HeaderModifier) check(r *Report) {
	if len(m.Set)+len(m.Add)+len(m.Remove) == 0 {
		r.Add("must have at least one defined: set, add, remove")
	}
	seen := map[string]bool{}
	once := func(field, name string, i int, part string) {
		if seen[name] {
			r.Index(field, i).At(part).Add("duplicate header name")
		}
		seen[name] = true
	}
	for i, h := range m.Set {
		once("set", h.Name, i, "name")
	}
	for i, h := range m.Add {
		once("add", h.Name, i, "name")
	}
	for i, name := range m.Remove {
		once("remove", name, i, "")
	}
}

func (p *PathRewrite) check(prefixes bool, r *Report) {
	switch {
	case p == nil:
	case p.Type == "ReplaceFullPath" && p.ReplaceFullPath == "":
		r.At("replaceFullPath").Add("must be defined")
	case p.Type == "ReplacePrefixMatch" && !prefixes:
		r.At("type").Add("can only appear if all matches match a path prefix")
	}
}
