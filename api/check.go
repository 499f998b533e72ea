package api

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Checks that several kinds share. None may reach [Kinds]: the kinds refer to
// their validation.

// checkTop judges the top-level targetRef of a policy. Sections are for
// policies that say something about inbounds.
func checkTop(ref *TargetRef, inbound bool, r *Report) {
	if ref == nil {
		return
	}
	if ref.Kind == RefMesh {
		checkNoLabels(*ref, r)
		checkNoSection(*ref, r)
	} else if ref.SectionName != "" && !inbound {
		r.At("sectionName").Add("can only be used with inbound policies")
	}
}

// checkTo judges the targetRef of a `to` item; kinds are those of the policy.
func checkTo(ref TargetRef, kinds []string, r *Report) {
	if !slices.Contains(kinds, ref.Kind) {
		r.At("kind").OneOf(ref.Kind, kinds, "value '%s' is not supported", ref.Kind)
		return
	}
	switch ref.Kind {
	case RefMesh:
		checkNoLabels(ref, r)
		checkNoSection(ref, r)
	case RefExternalService, RefHTTPRoute:
		checkSomeLabels(ref.Kind, ref.Labels, r)
		checkNoSection(ref, r)
	default:
		checkSomeLabels(ref.Kind, ref.Labels, r)
	}
}

func checkNoLabels(ref TargetRef, r *Report) {
	if len(ref.Labels) > 0 {
		r.At("labels").Add("must not be set with kind %s", ref.Kind)
	}
}

func checkSomeLabels(kind string, labels map[string]string, r *Report) {
	if len(labels) == 0 {
		r.At("labels").Add("must be set when kind is %s", kind)
	}
}

func checkNoSection(ref TargetRef, r *Report) {
	if ref.SectionName != "" {
		r.At("sectionName").Add("must not be set with kind %s", ref.Kind)
	}
}

func checkBackend(ref BackendRef, r *Report) {
	checkSomeLabels(ref.Kind, ref.Labels, r)
	switch {
	case ref.Kind == RefExternalService && ref.SectionName != "":
		r.At("sectionName").Add("must not be set with kind %s", ref.Kind)
	case ref.Kind == RefMultiZoneService && ref.Port == 0:
		r.At("port").Add("must be defined")
	}
}

func checkMatch(m Match, r *Report) {
	if m.SpiffeID != nil {
		if _, err := spiffeid.FromString(m.SpiffeID.Value); err != nil {
			r.At("spiffeID").Add("must be a valid Spiffe ID: %v", err)
		}
	}
	if m.SNI != nil && (len(m.SNI.Value) > 253 || !dnsSubdomain.MatchString(m.SNI.Value)) {
		r.At("sni").Add("must be a lowercase RFC 1123 subdomain")
	}
}

// byCallerReason is why a rule for some callers cannot set what belongs to a
// connection, which is made before the caller is known.
const byCallerReason = "can't be specified when matches contain spiffeID because this field cannot be conditioned on source identity"

// checkMatches judges the matches of a rule, none of which may be empty.
// ByCaller says that some tell callers apart.
func checkMatches(matches []Match, rule *Report) (byCaller bool) {
	for i, m := range matches {
		at := rule.Index("matches", i)
		checkMatch(m, at)
		if m.SpiffeID == nil && m.SNI == nil && m.Caller == nil {
			at.Add("must specify at least one of 'spiffeID' or 'sni'")
		}
		byCaller = byCaller || m.SpiffeID != nil || m.Caller != nil
	}
	return byCaller
}

// checkToOrRules: a policy is about calls that its proxies make or about calls
// that they get; older forms may say both.
func checkToOrRules(top *TargetRef, to, rules int, r *Report) {
	switch {
	case to > 0 && rules > 0 && !top.wasFrom():
		r.Add("fields 'to' must be empty when 'rules' is defined")
	case to == 0 && rules == 0:
		r.Add("at least one of 'to' or 'rules' has to be defined")
	}
}

func checkHeaderMatches(field string, list []HeaderMatch, r *Report) {
	for i, h := range list {
		at := r.Index(field, i).At("value")
		switch {
		case (h.Type == "Present" || h.Type == "Absent") && h.Value != "":
			at.Add("must not be set with type %s", h.Type)
		case h.Type == "RegularExpression":
			checkRegex(h.Value, at)
		}
	}
}

func checkPositive(d *Duration, r *Report) {
	if d != nil && d.Duration <= 0 {
		r.Add("must be greater than zero when defined")
	}
}

// checkCollector judges where a policy sends telemetry: to what a reference
// names, or to the address that release 2 had in its place.
func checkCollector(ref *TelemetryRef, endpoint string, r *Report) {
	switch {
	case ref == nil && endpoint == "":
		r.At("backendRef").Add("in body is required")
		return
	case ref != nil && endpoint != "":
		r.At("endpoint").Add("must not be set together with backendRef, which replaces it")
	}
	if ref != nil {
		checkSomeLabels(ref.Kind, ref.Labels, r.At("backendRef"))
	} else if _, _, ok := hostPort(endpoint); !ok && !isHost(endpoint) {
		r.At("endpoint").Add("must be an address with or without a port, such as \"otel-collector:4317\"")
	}
}

// hostPort splits an address that others dial.
func hostPort(s string) (host string, port uint16, ok bool) {
	host, text, err := net.SplitHostPort(s)
	n, bad := strconv.ParseUint(text, 10, 16)
	return host, uint16(n), err == nil && bad == nil && n > 0 && isHost(host)
}

func isHost(s string) bool {
	var r Report
	checkHost(s, &r)
	return r.Err() == nil
}

// checkHost judges an address that others dial: an IP address or a DNS name.
func checkHost(s string, r *Report) {
	ip, err := netip.ParseAddr(s)
	switch {
	case err == nil && ip.IsUnspecified():
		r.Add("must not be 0.0.0.0 or ::")
	case err == nil:
	case len(s) > 253 || !dnsSubdomain.MatchString(strings.ToLower(strings.TrimSuffix(s, "."))):
		r.Add("address has to be valid IP address or domain name")
	}
}

// checkIP judges an address that must not need DNS; empty is allowed.
func checkIP(s string, r *Report) {
	if _, err := netip.ParseAddr(s); s != "" && err != nil {
		r.Add("address has to be valid IP address")
	}
}

func checkNotNegative(d *Duration, r *Report) {
	if d != nil && d.Duration < 0 {
		r.Add("must not be negative when defined")
	}
}
