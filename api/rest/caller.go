package rest

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api/auth"
)

type (
	userKey   struct{} // who the caller is
	insideKey struct{} // the caller is this process
)

func as(r *http.Request, u auth.User) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), userKey{}, u))
}

// Inside makes a request one of the control plane itself, which may do
// everything: for callers in this process. Nothing that comes over the network
// can set it.
func Inside(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), insideKey{}, true))
}

func isInside(r *http.Request) bool { return r.Context().Value(insideKey{}) != nil }

// UserOf returns who sent the request.
func UserOf(r *http.Request) auth.User {
	if u, ok := r.Context().Value(userKey{}).(auth.User); ok {
		return u
	}
	return auth.Anonymous()
}

// allow returns nil if the grant allows the caller. Who is not known gets 401,
// because a token may help; who is known gets 403, which names the kind if there is one.
func (s *server) allow(r *http.Request, g auth.Grant, kind string) error {
	u := UserOf(r)
	if isInside(r) || g.Allows(u) {
		return nil
	}
	if u.IsAnonymous() {
		return errUnauthenticated
	}
	if kind == "" {
		return g.Action(u)
	}
	return g.Resource(u, kind)
}

var errUnauthenticated = &Problem{
	Status: http.StatusUnauthorized, Title: "Invalid authentication data", Detail: "Unauthenticated",
}

// caller finds out who calls.
func (s *server) caller(r *http.Request) (auth.User, error) {
	if isInside(r) {
		return auth.ControlPlane(), nil
	}
	if s.LocalhostIsAdmin && fromLocalhost(r) {
		return auth.Admin(), nil
	}
	header := r.Header.Get("Authorization")
	if header == "" || r.Method == http.MethodGet && r.URL.Path == "/" {
		return auth.Anonymous(), nil
	}
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return auth.User{}, errUnauthenticated
	}
	user, err := s.Validator.ParseUser(s.DB.Snapshot(), s.Now(), strings.TrimSpace(token))
	if err != nil {
		if now, before := s.refusals.due(s.Now()); now {
			s.Log.Warn("refused a user token", "from", r.RemoteAddr, "reason", err, "unsaid", before)
		}
		return auth.User{}, errUnauthenticated
	}
	return user, nil
}

// calmTime is how long what strangers cause is not logged again.
const calmTime = 10 * time.Second

// calm keeps strangers from filling the log.
type calm struct {
	mu     sync.Mutex
	last   time.Time
	unsaid int
}

// due reports whether to log now, and how often it was not since the last time.
func (c *calm) due(now time.Time) (yes bool, unsaid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.last.IsZero() && now.Sub(c.last) < calmTime {
		c.unsaid++
		return false, 0
	}
	unsaid, c.last, c.unsaid = c.unsaid, now, 0
	return true, unsaid
}

// proxyHeaders begin the names of what proxies add to the requests of others.
var proxyHeaders = []string{"Forwarded", "Via", "X-Forwarded-", "X-Real-Ip", "X-Client-Ip", "X-Envoy-", "True-Client-Ip", "Cf-Connecting-Ip"}

// fromLocalhost reports whether a program on this machine sent the request
// itself: not through a proxy, as far as proxies say so, and not a web page of
// another site that uses the browser of somebody on this machine.
func fromLocalhost(r *http.Request) bool {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !remote.Addr().Unmap().IsLoopback() || !loopbackHost(r.Host) {
		return false
	}
	for name := range r.Header {
		if slices.ContainsFunc(proxyHeaders, func(p string) bool { return strings.HasPrefix(name, p) }) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	scheme, host, ok := strings.Cut(origin, "://")
	want := "http"
	if r.TLS != nil {
		want = "https"
	}
	return ok && scheme == want && host == r.Host
}

func loopbackHost(host string) bool {
	if a, err := netip.ParseAddrPort(host); err == nil {
		return a.Addr().Unmap().IsLoopback()
	}
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return a.Unmap().IsLoopback()
	}
	name, _, _ := strings.Cut(host, ":")
	return name == "localhost"
}
