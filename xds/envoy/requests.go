package envoy

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkinputsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// pathKey is where the chain notes the path without the query. Matchers see only both together, in which a regular
// expression cannot be kept from looking for the path in the query.
const pathKey = "atoll.request.path"

// comparesPaths reports whether some permission looks at the path of requests.
func comparesPaths(p ir.Permissions) bool {
	return slices.ContainsFunc(slices.Concat(p.Deny, p.Allow, p.AllowShadowDeny), func(one ir.Permission) bool {
		return one.Request.Path != ir.PathMatch{}
	})
}

// notePath writes the note, in front of who reads it. PATH without more would be what a caller claims in the header
// x-envoy-original-path.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/http/set_filter_state/v3/set_filter_state.proto
// https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage#command-operators
func (w *work) notePath() *hcmv3.HttpFilter {
	return w.httpFilter("envoy.filters.http.set_filter_state", &httpstatev3.Config{
		OnRequestHeaders: []*statev3.FilterStateValue{{
			Key:         &statev3.FilterStateValue_ObjectKey{ObjectKey: pathKey},
			FactoryKey:  "envoy.string",
			Value:       &statev3.FilterStateValue_FormatString{FormatString: textFormat("%PATH(NQ:PATH)%")},
			SkipIfEmpty: true,
		}},
	})
}

// treacherous are paths in their normal form that some servers take for others still, since they drop the parameters of
// segments first: /a/..;/b and /;x/b are /b. Nobody may ask for them. (A path with a zero Envoy itself refuses.)
const treacherous = `(?i)\C*/(?:(?:\.|%2e){1,2}(?:;|%3b)|(?:;|%3b)[^/]*/)\C*`

// refuseTreacherous is in front of all permissions that look at paths.
func (w *work) refuseTreacherous() *xdsmatcherv3.Matcher_MatcherList_FieldMatcher {
	return &xdsmatcherv3.Matcher_MatcherList_FieldMatcher{
		Predicate: w.path(fits(treacherous)),
		OnMatch:   w.verdict(ir.DefaultPermission, rbacv3.RBAC_DENY),
	}
}

// requestPredicates is what e asks of the request, compared in the way that [ir.Permissions] says. Envoy joins what a
// caller sends several times by commas; a header that is not there matches nothing. \C is any byte, also of what is no
// UTF-8, which a dot is not.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/type/matcher/v3/http_inputs.proto
func (w *work) requestPredicates(e entry) []*predicate {
	var all []*predicate
	denies := e.action == rbacv3.RBAC_DENY
	header := func(name string, match *xdsmatcherv3.StringMatcher) *predicate {
		return w.predicate("envoy.matching.inputs.request_headers", &matcherv3.HttpRequestHeaderMatchInput{HeaderName: name}, match)
	}
	switch m := e.Request.Method; {
	case m == "":
	case denies && m == "GET":
		all = append(all, header(":method", fits("(?i:GET|HEAD)")))
	case denies:
		all = append(all, header(":method", fits("(?i:"+regexp.QuoteMeta(m)+")")))
	default:
		all = append(all, header(":method", equal(m)))
	}
	if e.Request.Path != (ir.PathMatch{}) {
		all = append(all, w.path(w.pathMatch(e)))
	}
	for _, h := range e.Request.Headers {
		present := header(h.Name, fits(`\C*`))
		switch {
		case h.Match == ir.Present || h.Match == ir.Prefix && h.Value == "":
			all = append(all, present)
		case h.Match == ir.Absent:
			all = append(all, notHolds(present))
		case h.Match == ir.Exact && denies:
			all = append(all, header(h.Name, fits(`(?:\C*,)?\s*(?i:`+regexp.QuoteMeta(h.Value)+`)\s*(?:,\C*)?`)))
		case h.Match == ir.Exact:
			all = append(all, header(h.Name, equal(h.Value)))
		case h.Match == ir.Prefix && denies:
			all = append(all, header(h.Name, fits(`(?:\C*,)?\s*(?i:`+regexp.QuoteMeta(h.Value)+`)\C*`)))
		case h.Match == ir.Prefix:
			all = append(all, header(h.Name, &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Prefix{Prefix: h.Value}}))
		case h.Match == ir.Regex && !denies:
			all = append(all, header(h.Name, fits(h.Value)))
		default:
			w.fail("%s: header %s: match %q", e.Policy, h.Name, h.Match)
		}
	}
	if len(e.Request.Query) > 0 {
		w.fail("%s: a condition on query parameters", e.Policy)
	}
	return all
}

func (w *work) pathMatch(e entry) *xdsmatcherv3.StringMatcher {
	m, denies := e.Request.Path, e.action == rbacv3.RBAC_DENY
	prefix := m.Match == ir.Prefix
	switch {
	case denies && (prefix || m.Match == ir.Exact):
		return fits(anyhow(m.Value, prefix))
	case prefix:
		return fits(spelled(strings.TrimSuffix(m.Value, "/")) + `(?:/\C*)?`)
	case m.Match == ir.Exact:
		return fits(spelled(m.Value))
	case m.Match == ir.Regex && !denies:
		return fits(m.Value)
	}
	w.fail("%s: path match %q", e.Policy, m.Match)
	return equal(m.Value)
}

func (w *work) path(match *xdsmatcherv3.StringMatcher) *predicate {
	return w.predicate("envoy.matching.inputs.filter_state", &networkinputsv3.FilterStateInput{Key: pathKey}, match)
}

// anyhow is a regular expression for all that some server may take for the path, or for one below it: without case, with
// parameters after its segments (RFC 3986, section 3.3), with a slash at the end.
func anyhow(path string, below bool) string {
	const parameters = `(?:(?:;|%3b)[^/]*)?`
	var out strings.Builder
	for segment := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if segment != "" {
			out.WriteString("/" + spelled(segment) + parameters)
		}
	}
	rest := `(?:/` + parameters + `)?`
	if below {
		rest = `(?:/\C*)?`
	}
	return "(?i)" + out.String() + rest
}

// spelled is a regular expression for all ways to write a path of which Envoy's normal form leaves several: of what may
// stand in a path by itself or percent-encoded, and of what is percent-encoded in upper or lower case. An application
// takes them for one.
func spelled(path string) string {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return regexp.QuoteMeta(path)
	}
	var out strings.Builder
	for _, b := range []byte(decoded) {
		switch {
		case b == '/' || strings.IndexByte("-._~", b) >= 0 || '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'z':
			out.WriteString(regexp.QuoteMeta(string(rune(b))))
		case '!' <= b && b <= '~' && b != '%':
			fmt.Fprintf(&out, "(?:%s|(?i:%%%02x))", regexp.QuoteMeta(string(rune(b))), b)
		default:
			fmt.Fprintf(&out, "(?i:%%%02x)", b)
		}
	}
	return out.String()
}

func equal(s string) *xdsmatcherv3.StringMatcher {
	return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_Exact{Exact: s}}
}

// fits matches a text of which all is what the expression (RE2) means.
func fits(expression string) *xdsmatcherv3.StringMatcher {
	return &xdsmatcherv3.StringMatcher{MatchPattern: &xdsmatcherv3.StringMatcher_SafeRegex{SafeRegex: &xdsmatcherv3.RegexMatcher{
		EngineType: &xdsmatcherv3.RegexMatcher_GoogleRe2{GoogleRe2: &xdsmatcherv3.RegexMatcher_GoogleRE2{}},
		Regex:      expression,
	}}}
}
