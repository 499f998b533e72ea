// Package rest is the HTTP API of a control plane.
//
// It owns the paths, bodies and errors that clients see: create, read, update,
// delete and list for every kind in [api.Kinds] through one generic handler,
// overviews, watches, tokens, and who may do what. The control planes mount it
// and add endpoints of their own through [Options].Extra. It reads snapshots of
// the database, writes through the store's feeder, and holds no lock while it
// answers. Its only state is which rows changed lately, so that a watch can
// resume; it may be lost at any time.
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
//
// A watch is not a queue of events. A stream has the set of names that changed
// since its last message, and sends what they are now: a slow client costs the
// size of that set, gets the newest state, and holds up nobody.
package rest

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/openapi"
	"github.com/atoll-mesh/atoll/api/store"
)

// Limits of a request.
const (
	// MaxBody is the largest document, in bytes.
	MaxBody = 1 << 20
	// maxHeader is the size of all header lines.
	maxHeader = 64 << 10
)

// RevisionHeader of a PUT or DELETE names the store's revision that holds the
// write: what to wait for to know that it has reached every proxy.
const RevisionHeader = "Atoll-Revision"

// PositionHeader of a GET names the revision that it shows with its history, as
// a watch takes it: one that resumes after the store was restored from a backup
// begins again. A revision alone fits any history.
const PositionHeader = "Atoll-Position"

// ResultHeader of a PUT says what it did: client.Created, Updated or Unchanged.
const ResultHeader = "Atoll-Result"

// KumaVersion is the version of the API that is spoken, as clients of the
// existing ecosystem compare it with their own.
const KumaVersion = "3.0.0"

// Limits of time of a connection. What streams sets its own end of writing.
const (
	readHeaderTime = time.Second
	readTime       = 10 * time.Second
	writeTimeout   = 30 * time.Second
	idleTime       = 2 * time.Minute
)

// Options of a server. DB, Feeder, Site, Access and Now are needed.
type Options struct {
	DB     *db.DB
	Feeder *store.Feeder
	Site   api.Site
	Access auth.Access
	// Validator judges user tokens; nil: one that knows Secrets only.
	Validator *auth.Validator
	// LocalhostIsAdmin makes callers from loopback administrators, unless a header
	// says that a proxy sent the request on for somebody else. A proxy that says
	// nothing of itself makes everybody administrator: leave it off beside one.
	LocalhostIsAdmin bool
	// ReadOnly refuses every write of a resource.
	ReadOnly bool
	// BasePath is put before every path; empty or "/": none.
	BasePath string
	// NoIssuing lists the tokens that are not issued here; no keys are made to
	// sign them.
	NoIssuing []auth.Token
	// Origins are the web pages that may call the API from a browser (CORS);
	// see [ParseOrigins].
	Origins []*regexp.Regexp
	// RootURL is the address of the API as clients see it through a proxy that
	// changes it, such as https://mesh.example/api; empty: that of the request.
	RootURL string
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
	// Judge notes faults of a document that package api cannot see; nil: none.
	// It is asked only of what has none that it can.
	Judge func(api.Row, *api.Report)
	// Extra endpoints.
	Extra []Endpoint
	Now   func() time.Time
	Log   *slog.Logger
}

// Endpoint is one path beside those of this package.
type Endpoint struct {
	// Pattern is one of http.ServeMux: "GET /convergence". One with /_resources/
	// in it is also served with a dash, as an existing client spells it.
	Pattern string
	// Open endpoints ask nobody who they are.
	Open bool
	// Grant says who may call it; nil: those who may read resources.
	Grant func(auth.Access) auth.Grant
	// Doc describes it in GET /openapi; its Pattern is not looked at.
	Doc openapi.Operation
	// Waits: an answer may take long. How many wait at a time is bounded, in all
	// and for each caller, together with watches.
	Waits bool
	// Action is what roles call it, where they are in force: on the resource of
	// {mesh} and {name} in the pattern, or on the control plane without them.
	// Empty: the grant decides.
	Action api.Action
	// Kind is that of the resource; empty: Dataplane.
	Kind string
	// Handle answers. An error that is a *[Problem] is sent as it is; others as
	// the table of errors has them.
	Handle func(http.ResponseWriter, *http.Request) error
}

type server struct {
	Options
	mux      *http.ServeMux
	patterns []string // of all routes
	hostname string
	recent   *recent
	lasting  shares
	refusals calm
}

// New returns the handler of the whole API.
func New(o Options) http.Handler {
	s := &server{Options: o, mux: http.NewServeMux(), lasting: shares{by: map[string]int{}}}
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
	s.RootURL = strings.TrimSuffix(s.RootURL, "/")
	s.hostname, _ = os.Hostname() // shown only
	s.recent = follow(s.DB, s.Instance)
	s.routes()
	return s
}

// NewServer is an http.Server around the handler, with limits of time and size
// that a slow or hostile client cannot exceed. The caller serves and closes it;
// Shutdown ends the streams of [Draining] requests.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	drain, begin := context.WithCancel(context.Background())
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTime,
		ReadTimeout:       readTime,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.Background(), drainKey{}, drain.Done())
		},
	}
	s.RegisterOnShutdown(begin)
	return s
}

type drainKey struct{}

// Draining is closed when the server of the request is shutting down: what
// would wait longer ends then. nil, which is never closed, outside of a server.
func Draining(ctx context.Context) <-chan struct{} {
	done, _ := ctx.Value(drainKey{}).(<-chan struct{})
	return done
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
	s.insightRoutes()
	for _, e := range s.Extra {
		s.extra(e)
	}
	s.openapiRoute()
}

func (s *server) extra(e Endpoint) {
	h := func(w http.ResponseWriter, r *http.Request) error {
		grant := s.Access.ReadResources
		if e.Grant != nil {
			grant = e.Grant(s.Access)
		}
		if !e.Open {
			if err := s.readers(r); err != nil { // a grant for everybody is one for those who may read at all
				return err
			}
			if err := s.mayAct(r, grant, e.Action, s.subject(r, e)); err != nil {
				return err
			}
		}
		if e.Waits {
			leave, err := s.lasting.enter(r)
			if err != nil {
				return err
			}
			defer leave()
		}
		return e.Handle(w, r.WithContext(context.WithValue(r.Context(), pagesKey{}, s.pageURL)))
	}
	s.route(e.Pattern, titleInfo, h)
	if dashed := strings.Replace(e.Pattern, "/_resources/", "/-resources/", 1); dashed != e.Pattern {
		s.route(dashed, titleInfo, h)
	}
}

// subject is what the request is about: the resource as roles know it from
// everywhere else, if there is one.
func (s *server) subject(r *http.Request, e Endpoint) auth.Subject {
	name := r.PathValue("name")
	if name == "" {
		return auth.Subject{}
	}
	on := auth.Subject{Kind: cmp.Or(e.Kind, api.Dataplanes.Name), Mesh: r.PathValue("mesh"), Name: name}
	if k, ok := api.ByName(on.Kind); ok {
		if row, ok := k.RowNamed(s.DB.Snapshot(), on.Mesh, name); ok {
			return subjectOf(row)
		}
	}
	return on
}

func (s *server) kindRoutes(k api.AnyKind, plural string) {
	lists := []string{"/" + plural}
	if k.Info().Scope == api.MeshScope {
		lists = append(lists, "/meshes/{mesh}/"+plural)
	}
	item := lists[len(lists)-1] + "/{name}"
	if k.Info().Name != api.ServiceInsights.Name { // whose answers are made elsewhere
		for _, list := range lists {
			s.json("GET "+list, titleList, s.list(k, view{render: s.item}))
		}
		s.json("GET "+item, titleGet, s.get(k))
	}
	s.json("PUT "+item, titlePut, s.put(k))
	s.json("DELETE "+item, titleDelete, s.delete(k))
}

type handler func(http.ResponseWriter, *http.Request) error

// json is a route whose answers, and bodies if it has any, are JSON.
func (s *server) json(pattern, title string, h handler) {
	s.route(pattern, title, func(w http.ResponseWriter, r *http.Request) error {
		if err := bodyIsJSON(r); err != nil {
			return err
		}
		if err := acceptsJSON(r); err != nil {
			return err
		}
		return h(w, r)
	})
}

func (s *server) route(pattern, title string, h handler) {
	s.patterns = append(s.patterns, pattern)
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, title, err)
		}
	})
}

// ServeHTTP finds out who calls, then routes.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.cors(w, r) {
		return
	}
	if s.BasePath != "" && r.URL.Path != "/tokens/user" {
		inside, ok := strings.CutPrefix(r.URL.Path, s.BasePath)
		if !ok || inside != "" && inside[0] != '/' {
			plain(w, http.StatusNotFound, "404: Page Not Found")
			return
		}
		if clean := cleaned(inside); clean != inside {
			// The mux would send the client to a path without the base.
			http.Redirect(w, r, (&url.URL{Path: s.BasePath + clean, RawQuery: r.URL.RawQuery}).String(), http.StatusTemporaryRedirect)
			return
		}
		r = withPath(r, inside)
	}
	user, err := s.caller(r)
	if err != nil {
		s.fail(w, r, "", err)
		return
	}
	r = as(r, user)
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
	if gone := goneKind(r.URL.Path); gone != nil {
		s.fail(w, r, "", gone)
		return
	}
	plain(w, http.StatusNotFound, "404: Page Not Found")
}

// cleaned is the path without empty parts, . and .. (as http.ServeMux has it).
func cleaned(p string) string {
	clean := path.Clean("/" + p)
	if strings.HasSuffix(p, "/") && clean != "/" {
		clean += "/"
	}
	if p == "" {
		return p // the root
	}
	return clean
}

// goneKind is the answer to the path of a kind that earlier releases had: what
// replaces it. nil: the path is not of one.
func goneKind(p string) *Problem {
	parts := strings.Split(strings.TrimPrefix(p, "/"), "/")
	if parts[0] == api.Meshes.Plural && len(parts) > 2 {
		parts = parts[2:]
	}
	use, ok := api.Replacement(parts[0])
	if !ok {
		return nil
	}
	return &Problem{Status: http.StatusNotFound, Title: "Resource type not found", Detail: fmt.Sprintf("%s is no longer supported; use %s", parts[0], use)}
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
