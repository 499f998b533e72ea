package envoy

import (
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// headersToAdd puts replaced headers before appended ones.
func headersToAdd(c ir.HeaderChange) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	add := func(headers []ir.Header, how corev3.HeaderValueOption_HeaderAppendAction) {
		for _, h := range headers {
			out = append(out, &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: h.Name, Value: escapePercent(h.Value)},
				AppendAction: how,
			})
		}
	}
	add(c.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	add(c.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	return out
}

// percent finds format operators, doubled percent signs and, failing these, lone ones.
var percent = regexp.MustCompile(`%[A-Z][A-Z0-9_]*(\([^)]*\))?(:[0-9]+)?%|%%|%`)

// escapePercent doubles every percent sign that is not part of a format operator such as %REQ(:path)% or already doubled.
// Envoy refuses a value with a lone one, and with it the routes of everybody who calls the service.
func escapePercent(value string) string {
	return percent.ReplaceAllStringFunc(value, func(s string) string {
		if s == "%" {
			return "%%"
		}
		return s
	})
}

// rewrite changes host and path of what is sent on.
func (w *work) rewrite(action *routev3.RouteAction, r ir.Route, p path) {
	to := r.Forward.Rewrite
	switch {
	case to.Host != "" && to.AutoHost:
		w.fail("route %q: host rewritten twice", r.Name)
	case to.Host != "":
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: to.Host}
	case to.AutoHost:
		action.HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	}
	if to.Path.Kind != "" {
		action.RegexRewrite, action.PrefixRewrite = w.replacement(r.Name, to.Path, p)
	}
}

// replacement replaces the whole path by an expression, or a true prefix as such: what ends in a slash by what ends in one,
// so that /x/y becomes /z/y and never /zy.
func (w *work) replacement(route string, to ir.PathRewrite, p path) (*matcherv3.RegexMatchAndSubstitute, string) {
	whole := func(value string) *matcherv3.RegexMatchAndSubstitute {
		return &matcherv3.RegexMatchAndSubstitute{
			Pattern:      regex(".*"),
			Substitution: strings.ReplaceAll(value, `\`, `\\`), // a backslash would refer to a group
		}
	}
	switch {
	case to.Kind == ir.ReplaceFull:
		return whole(to.Value), ""
	case to.Kind == ir.ReplacePrefix && p.whole:
		return whole(orElse(to.Value, "/")), ""
	case to.Kind == ir.ReplacePrefix && p.prefix:
		return nil, strings.TrimSuffix(to.Value, "/") + "/"
	case to.Kind == ir.ReplacePrefix:
		w.fail("route %q: a prefix is to be replaced where none is matched", route)
	default:
		w.fail("route %q: path rewrite %q", route, to.Kind)
	}
	return nil, ""
}

func (w *work) redirect(route string, to ir.Redirect, p path) *routev3.Route_Redirect {
	out := &routev3.RedirectAction{HostRedirect: to.Host, PortRedirect: to.Port}
	if to.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: to.Scheme}
	}
	switch to.Status {
	case 0, 302:
		out.ResponseCode = routev3.RedirectAction_FOUND
	case 301:
		out.ResponseCode = routev3.RedirectAction_MOVED_PERMANENTLY
	case 303:
		out.ResponseCode = routev3.RedirectAction_SEE_OTHER
	case 307:
		out.ResponseCode = routev3.RedirectAction_TEMPORARY_REDIRECT
	case 308:
		out.ResponseCode = routev3.RedirectAction_PERMANENT_REDIRECT
	default:
		w.fail("route %q: redirect with status %d", route, to.Status)
	}
	if to.Path.Kind != "" {
		switch expression, prefix := w.replacement(route, to.Path, p); {
		case expression != nil:
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: expression}
		case prefix != "":
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: prefix}
		}
	}
	return &routev3.Route_Redirect{Redirect: out}
}
