// Package rest is the HTTP API of a control plane.
//
// It owns the paths, bodies and errors that clients see: create, read, update,
// delete and list for every kind in [api.Kinds] through one generic handler,
// overviews, tokens, and who may do what. The control planes mount it and add
// endpoints of their own through [Options].Extra. It reads snapshots of the
// database, writes through the store's feeder, keeps no state of its own, and
// holds no lock while it answers.
//
//	request ─▶ who is it ─▶ may they ─▶ snapshot ─▶ answer
//	                            │
//	                            └─▶ document ─▶ all faults, or ops ─▶ Feeder.Apply ─▶ answer
//	                                                 ▲                    │ conflict
//	                                                 └────────────────────┘
//
// # Why
//
// Kinds differ in data, not in code, so a kind has no handler. Reads come from
// the database and not from the store: a page costs one walk over an index,
// and a list is of one moment. A write returns after the database holds it, so
// that whoever wrote reads it. Writers do not see revisions of rows (the
// ecosystem's clients know none): each write names the revision that it
// replaces, and is planned anew when another one was faster.
//
// People get every fault of a document at once, unknown fields included,
// because a field that is silently dropped is found out in production.
package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

// Limits of a request.
const (
	// MaxBody is the largest document, in bytes.
	MaxBody = 1 << 20
	// maxDepth is how deep a document may be nested.
	maxDepth = 64
	// maxHeader is the size of all header lines.
	maxHeader = 64 << 10
)

// RevisionHeader of a PUT or DELETE names the store's revision that holds the
// write: what to wait for to know that it has reached every proxy.
const RevisionHeader = "Atoll-Revision"

// KumaVersion is the version of the API that is spoken, as clients of the
// existing ecosystem compare it with their own.
const KumaVersion = "3.0.0"

// Options of a server. DB, Feeder, Site, Access and Now are needed.
type Options struct {
	DB     *db.DB
	Feeder *store.Feeder
	Site   api.Site
	Access auth.Access
	// Validator judges user tokens; nil: one that knows Secrets only.
	Validator *auth.Validator
	// LocalhostIsAdmin makes callers from loopback administrators.
	LocalhostIsAdmin bool
	// ReadOnly refuses every write of a resource.
	ReadOnly bool
	// BasePath is put before every path; empty or "/": none.
	BasePath string
	// NoIssuing lists the tokens that are not issued here.
	NoIssuing []auth.Token
	// SystemNamespace is used where a resource is shown as a Kubernetes object.
	SystemNamespace string
	// Instance names this process, Version the Atoll it runs, ClusterID the
	// installation; GUI is the address of the web page, empty: none.
	Instance, Version string
	ClusterID         func() string
	GUI               string
	// Config is what GET /config answers: the configuration, secrets masked.
	Config any
	// Status returns the `status` of a row (what control planes found out about
	// it, rows of their own) or nil.
	Status func(db.Reader, api.Row) any
	// Extra endpoints.
	Extra []Endpoint
	Now   func() time.Time
	Log   *slog.Logger
}

// Endpoint is one path beside those of this package.
type Endpoint struct {
	// Pattern is one of http.ServeMux: "GET /convergence".
	Pattern string
	// Open endpoints ask nobody who they are.
	Open bool
	// Grant says who may call it; nil: those who may read resources.
	Grant func(auth.Access) auth.Grant
	// Handle answers. An error that is a *[Problem] is sent as it is; others as
	// the table of errors has them.
	Handle func(http.ResponseWriter, *http.Request) error
}

type server struct {
	Options
	mux      *http.ServeMux
	hostname string
}

// New returns the handler of the whole API.
func New(o Options) http.Handler {
	s := &server{Options: o, mux: http.NewServeMux()}
	if s.Validator == nil {
		s.Validator = auth.NewValidator(auth.Options{})
	}
	if s.ClusterID == nil {
		s.ClusterID = func() string { return "" }
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.SystemNamespace == "" {
		s.SystemNamespace = "kuma-system"
	}
	s.BasePath = strings.TrimSuffix(s.BasePath, "/")
	s.hostname, _ = os.Hostname() // shown only
	s.routes()
	return s
}

// NewServer is an http.Server around the handler, with limits of time and size
// that a slow or hostile client cannot exceed. The caller serves and closes it.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// Titles of errors, as existing clients show them.
const (
	titleGet     = "Could not retrieve a resource"
	titleList    = "Could not retrieve resources"
	titlePut     = "Could not process a resource"
	titleDelete  = "Could not delete a resource"
	titleToken   = "Could not issue a token"
	titleRequest = "Invalid request"
	titleInfo    = "Could not process the request"
)

func (s *server) routes() {
	for _, k := range api.Kinds {
		info := k.Info()
		if info.Hidden {
			continue
		}
		for _, plural := range []string{info.Plural, info.Alias} {
			if plural != "" {
				s.kindRoutes(k, plural)
			}
		}
	}
	s.overviewRoutes()
	s.infoRoutes()
	s.tokenRoutes()
	for _, e := range s.Extra {
		s.route(e.Pattern, titleInfo, func(w http.ResponseWriter, r *http.Request) error {
			grant := s.Access.ReadResources
			if e.Grant != nil {
				grant = e.Grant(s.Access)
			}
			if !e.Open {
				if err := s.allow(r, grant, ""); err != nil {
					return err
				}
			}
			return e.Handle(w, r)
		})
	}
}

func (s *server) kindRoutes(k api.AnyKind, plural string) {
	list := "/" + plural
	if k.Info().Scope == api.MeshScope {
		s.route("GET /"+plural, titleList, s.list(k, s.item))
		list = "/meshes/{mesh}/" + plural
	}
	item := list + "/{name}"
	s.route("GET "+list, titleList, s.list(k, s.item))
	s.route("GET "+item, titleGet, s.get(k))
	s.route("PUT "+item, titlePut, s.put(k))
	s.route("DELETE "+item, titleDelete, s.delete(k))
}

type handler func(http.ResponseWriter, *http.Request) error

func (s *server) route(pattern, title string, h handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, title, err)
		}
	})
}

// ServeHTTP finds out who calls, then routes.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.BasePath != "" && r.URL.Path != "/tokens/user" {
		path, ok := strings.CutPrefix(r.URL.Path, s.BasePath)
		if !ok || path != "" && path[0] != '/' {
			plain(w, http.StatusNotFound, "404: Page Not Found")
			return
		}
		r = withPath(r, path)
	}
	user, err := s.caller(r)
	if err != nil {
		s.fail(w, r, "", err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), userKey{}, user))
	if _, pattern := s.mux.Handler(r); pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	miss := missed{header: w.Header()}
	s.mux.ServeHTTP(&miss, r)
	if miss.status == http.StatusMethodNotAllowed {
		plain(w, miss.status, "405: Method Not Allowed")
		return
	}
	plain(w, http.StatusNotFound, "404: Page Not Found")
}

func withPath(r *http.Request, path string) *http.Request {
	if path == "" {
		path = "/"
	}
	r2 := r.Clone(r.Context())
	r2.URL.Path, r2.URL.RawPath = path, ""
	return r2
}

// missed takes what the mux says of a path that it does not know: the status,
// and the header Allow. The body is ours.
type missed struct {
	header http.Header
	status int
}

func (m *missed) Header() http.Header         { return m.header }
func (m *missed) WriteHeader(status int)      { m.status = status }
func (m *missed) Write(b []byte) (int, error) { return len(b), nil }

type userKey struct{}

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
	if g.Allows(u) {
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
		s.Log.Warn("refused a user token", "from", r.RemoteAddr, "reason", err)
		return auth.User{}, errUnauthenticated
	}
	return user, nil
}

// fromLocalhost reports whether a program on this machine sent the request
// itself: not through a proxy, and not a web page of another site that uses
// the browser of somebody on this machine.
func fromLocalhost(r *http.Request) bool {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !remote.Addr().Unmap().IsLoopback() || !loopbackHost(r.Host) {
		return false
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if r.Header.Values(name) != nil {
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
