package api

import (
	"net/netip"
	"regexp/syntax"
	"strings"
)

// MeshHTTPRoute says where requests to a service go, by path, method, headers
// and query: to split traffic between versions, redirect, rewrite or mirror.
// Requests that no rule matches go to the service itself.
type MeshHTTPRoute struct {
	// The proxies that call; absent: all of the mesh.
	TargetRef *TargetRef `json:"targetRef,omitempty" kinds:"Mesh,Dataplane"`
	// Routes, by the service that is called.
	To []MeshHTTPRouteTo `json:"to,omitempty"`
}

// MeshHTTPRouteTo is the routes of one destination.
type MeshHTTPRouteTo struct {
	// The service that clients call, all of its ports or the one in sectionName.
	// Its protocol must be http, http2 or grpc, or tcp.
	TargetRef TargetRef `json:"targetRef" req:"true" kinds:"Mesh,MeshService,MeshExternalService,MeshMultiZoneService,MeshHTTPRoute"`
	// Of older forms; must be empty.
	Hostnames []string `json:"hostnames,omitempty"`
	// What happens to which requests. The most specific match decides, not the
	// order: exact paths, then longer prefixes, then regular expressions; then
	// method, more headers, more query parameters.
	Rules []HTTPRouteRule `json:"rules,omitempty"`
}

// HTTPRouteRule is what happens to requests that fit any of the matches.
type HTTPRouteRule struct {
	// Which requests, any one of the list.
	Matches []HTTPMatch `json:"matches" req:"true" minItems:"1"`
	// What happens to them. Rules with equal matches, of several policies, are
	// merged.
	Default HTTPRouteConf `json:"default" req:"true"`
}

// HTTPMatch tells requests apart; all conditions must hold.
type HTTPMatch struct {
	// Absent: any path.
	Path *PathMatch `json:"path,omitempty"`
	// Absent: any method.
	Method string `json:"method,omitempty" enum:"CONNECT,DELETE,GET,HEAD,OPTIONS,PATCH,POST,PUT,TRACE"`
	// Parameters that must all match, each name once.
	QueryParams []QueryMatch `json:"queryParams,omitempty"`
	// Headers that must all match.
	Headers []HeaderMatch `json:"headers,omitempty"`
}

// PathMatch matches the path. PathPrefix matches whole segments.
type PathMatch struct {
	// PathPrefix matches whole segments: /v2 matches /v2 and /v2/a, not /v20. A
	// RegularExpression (RE2) matches the whole path.
	Type string `json:"type" req:"true" enum:"Exact,PathPrefix,RegularExpression"`
	// An absolute path such as /v2, without a slash at the end for a prefix; or
	// the expression.
	Value string `json:"value" req:"true" minLen:"1"`
}

// QueryMatch matches a query parameter.
type QueryMatch struct {
	// How the value is compared.
	Type string `json:"type" req:"true" enum:"Exact,RegularExpression"`
	// The name of the parameter.
	Name string `json:"name" req:"true" minLen:"1"`
	// The whole value, or a regular expression (RE2) for the whole of it.
	Value string `json:"value" req:"true"`
}

// HTTPRouteConf leaves unset what it does not speak of.
type HTTPRouteConf struct {
	// Changes of requests and responses, all of them.
	Filters []HTTPFilter `json:"filters,omitempty"`
	// Where requests go, by weight; absent: to the service itself. The share of
	// references that are not resolved is answered with 500.
	BackendRefs []BackendRef `json:"backendRefs,omitempty"`
}

// HTTPFilter changes a request or a response; the member named by Type is set.
type HTTPFilter struct {
	// Which of the members says what is done.
	Type string `json:"type" req:"true" enum:"RequestHeaderModifier,ResponseHeaderModifier,RequestRedirect,URLRewrite,RequestMirror"`
	// Changes headers before the request is passed on.
	RequestHeaderModifier *HeaderModifier `json:"requestHeaderModifier,omitempty" when:"RequestHeaderModifier"`
	// Changes headers of the response.
	ResponseHeaderModifier *HeaderModifier `json:"responseHeaderModifier,omitempty" when:"ResponseHeaderModifier"`
	// Answers with a redirect; nothing is passed on.
	RequestRedirect *RequestRedirect `json:"requestRedirect,omitempty" when:"RequestRedirect"`
	// Changes host or path before the request is passed on.
	URLRewrite *URLRewrite `json:"urlRewrite,omitempty" when:"URLRewrite"`
	// Sends a copy elsewhere, whose answer is dropped.
	RequestMirror *RequestMirror `json:"requestMirror,omitempty" when:"RequestMirror"`
}

// HeaderModifier changes headers; a name appears once.
type HeaderModifier struct {
	// Headers that replace those of the same name.
	Set []HeaderKeyValue `json:"set,omitempty" maxItems:"16"`
	// Headers that are added to those of the same name.
	Add []HeaderKeyValue `json:"add,omitempty" maxItems:"16"`
	// Names of headers that are taken out.
	Remove []string `json:"remove,omitempty" maxItems:"16"`
}

// HeaderKeyValue is a header.
type HeaderKeyValue struct {
	// The header, in lower case.
	Name string `json:"name" req:"true" minLen:"1" maxLen:"256" pattern:"^[a-z0-9!#$%&'*+\\-.^_\\x60|~]+$"`
	// Its value.
	Value string `json:"value" req:"true"`
}

// RequestRedirect answers with another address to ask.
type RequestRedirect struct {
	// Absent: that of the request.
	Scheme string `json:"scheme,omitempty" enum:"http,https"`
	// A DNS name. Absent: that of the request.
	Hostname string `json:"hostname,omitempty"`
	// Absent: that of the request.
	Port uint32 `json:"port,omitempty" min:"1" max:"65535"`
	// 301 and 308 are for good, the others for now; 307 and 308 keep the method.
	StatusCode uint32 `json:"statusCode,omitempty" enum:"301,302,303,307,308" default:"302"`
	// Absent: that of the request.
	Path *PathRewrite `json:"path,omitempty"`
}

// URLRewrite changes what the destination sees of the address.
type URLRewrite struct {
	// What the destination sees as host, a DNS name. Absent: as the client sent
	// it.
	Hostname string `json:"hostname,omitempty"`
	// What the destination sees as path. Absent: as the client sent it.
	Path *PathRewrite `json:"path,omitempty"`
	// Of gateways; must not be set.
	HostToBackendHostname bool `json:"hostToBackendHostname,omitempty"`
}

// PathRewrite replaces the whole path or the prefix that matched.
type PathRewrite struct {
	// Whether the whole path is replaced or only the prefix that matched, which
	// all matches of the rule must then have.
	Type string `json:"type" req:"true" enum:"ReplaceFullPath,ReplacePrefixMatch"`
	// The new path; for ReplaceFullPath. The query stays.
	ReplaceFullPath string `json:"replaceFullPath,omitempty"`
	// What stands for the prefix: with match /v2 and "/" here, /v2/a becomes /a.
	// For ReplacePrefixMatch.
	ReplacePrefixMatch string `json:"replacePrefixMatch,omitempty"`
}

// RequestMirror sends a copy of requests elsewhere.
type RequestMirror struct {
	// The share of requests that are copied; decimals as text: "0.5". Absent:
	// all.
	Percentage *IntOrString `json:"percentage,omitempty" range:"0,100"`
	// Who gets the copies; if it is not resolved, nobody.
	BackendRef BackendRef `json:"backendRef" req:"true"`
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
