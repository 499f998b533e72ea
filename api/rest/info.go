package rest

import (
	"net/http"
	"slices"
	"strings"
	"unicode"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/db"
)

func (s *server) infoRoutes() {
	s.json("GET /{$}", titleInfo, s.root)
	s.json("GET /config", titleInfo, func(w http.ResponseWriter, r *http.Request) error {
		if err := s.readers(r); err != nil {
			return err
		}
		if err := s.mayAct(r, s.Access.ControlPlaneMetadata, api.ActionViewControlPlaneState, auth.Subject{}); err != nil {
			return err
		}
		WriteJSON(w, http.StatusOK, s.Config)
		return nil
	})
	s.json("GET /who-am-i", titleInfo, func(w http.ResponseWriter, r *http.Request) error {
		u := UserOf(r)
		if u.IsAnonymous() {
			if err := s.readers(r); err != nil {
				return err
			}
		}
		if u.Groups == nil {
			u.Groups = []string{}
		}
		WriteJSON(w, http.StatusOK, u)
		return nil
	})
	s.json("GET /policies", titleInfo, s.policies)
	s.json("GET /_resources", titleInfo, s.resources)
	s.json("GET /_kri/{kri}", titleGet, s.byKRI)
}

// readers refuses callers who may not read at all.
func (s *server) readers(r *http.Request) error { return s.allow(r, s.Access.ReadResources, "") }

func (s *server) root(w http.ResponseWriter, _ *http.Request) error {
	WriteJSON(w, http.StatusOK, client.Root{
		Hostname: s.hostname, Product: "Kuma", Version: KumaVersion, InstanceID: s.Instance,
		ClusterID: s.ClusterID(), GUI: s.GUI, BasedOnKuma: KumaVersion, AtollVersion: s.Version,
	})
	return nil
}

// kindInfo describes a kind in GET /_resources.
type kindInfo struct {
	Name       string      `json:"name"`
	Scope      string      `json:"scope"`
	ReadOnly   bool        `json:"readOnly"`
	Path       string      `json:"path"`
	Singular   string      `json:"singularDisplayName"`
	Plural     string      `json:"pluralDisplayName"`
	ShortName  string      `json:"shortName"`
	Federation bool        `json:"includeInFederation"`
	Policy     *policyInfo `json:"policy,omitempty"`
}

type policyInfo struct {
	IsTargetRef       bool `json:"isTargetRef"`
	HasToTargetRef    bool `json:"hasToTargetRef"`
	HasFromTargetRef  bool `json:"hasFromTargetRef"`
	HasRulesTargetRef bool `json:"hasRulesTargetRef"`
	IsFromAsRules     bool `json:"isFromAsRules"`
}

// shown are the kinds that have a path, by name.
func shown() []api.Facts {
	var out []api.Facts
	for _, k := range api.Kinds {
		if info := k.Info(); !info.Hidden {
			out = append(out, info)
		}
	}
	slices.SortFunc(out, func(a, b api.Facts) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// shownReadOnly is what existing clients go by. They take a zone under a global
// to be read-only as a whole, although it takes resources of its own origin.
func (s *server) shownReadOnly(info api.Facts) bool {
	return s.Site.Federated || s.readOnly(info) != nil
}

func (s *server) resources(w http.ResponseWriter, r *http.Request) error {
	if err := s.readers(r); err != nil {
		return err
	}
	out := []kindInfo{}
	for _, info := range shown() {
		one := kindInfo{
			Name: info.Name, Scope: "Global", ReadOnly: s.shownReadOnly(info), Path: info.Plural,
			Singular: words(info.Name), Plural: plural(words(info.Name)), ShortName: info.Short,
			Federation: info.Flow.Has(api.Down) && !info.ReadOnly,
		}
		if info.Scope == api.MeshScope {
			one.Scope = "Mesh"
		}
		if p := info.Policy; p != nil {
			one.Policy = &policyInfo{IsTargetRef: true, HasToTargetRef: p.To, HasRulesTargetRef: p.Rules}
		}
		out = append(out, one)
	}
	WriteJSON(w, http.StatusOK, map[string]any{"resources": out})
	return nil
}

// policyKind describes a kind in GET /policies.
type policyKind struct {
	Name         string `json:"name"`
	ReadOnly     bool   `json:"readOnly"`
	Path         string `json:"path"`
	Singular     string `json:"singularDisplayName"`
	Plural       string `json:"pluralDisplayName"`
	Experimental bool   `json:"isExperimental"`
	TargetRef    bool   `json:"isTargetRefBased"`
	Inbound      bool   `json:"isInbound"`
	Outbound     bool   `json:"isOutbound"`
}

func (s *server) policies(w http.ResponseWriter, r *http.Request) error {
	if err := s.readers(r); err != nil {
		return err
	}
	out := []policyKind{}
	for _, info := range shown() {
		if p := info.Policy; p != nil {
			out = append(out, policyKind{
				Name: info.Name, ReadOnly: s.shownReadOnly(info), Path: info.Plural, Singular: words(info.Name),
				Plural: plural(words(info.Name)), TargetRef: true, Inbound: p.Rules, Outbound: p.To,
			})
		}
	}
	WriteJSON(w, http.StatusOK, map[string]any{"policies": out})
	return nil
}

// words splits the name of a kind: MeshHTTPRoute is Mesh HTTP Route.
func words(name string) string {
	runes := []rune(name)
	var b strings.Builder
	for i, c := range runes {
		starts := unicode.IsUpper(c) && i > 0 &&
			(unicode.IsLower(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1]))
		if starts {
			b.WriteByte(' ')
		}
		b.WriteRune(c)
	}
	return b.String()
}

func plural(words string) string {
	switch {
	case strings.HasSuffix(words, "y"):
		return strings.TrimSuffix(words, "y") + "ies"
	case strings.HasSuffix(words, "s"), strings.HasSuffix(words, "h"):
		return words + "es"
	default:
		return words + "s"
	}
}

func (s *server) byKRI(w http.ResponseWriter, r *http.Request) error {
	if err := s.readers(r); err != nil {
		return err
	}
	id, _, err := api.ParseKRI(r.PathValue("kri"))
	if err != nil {
		return badRequest("bad request: %v", err)
	}
	k, _ := api.ByName(id.Kind) // ParseKRI knows the kind
	if err := s.allow(r, s.grantFor(k.Info(), false), k.Info().Name); err != nil {
		return err
	}
	snap := s.DB.Snapshot()
	row, ok := k.Row(snap, id)
	if !ok && !s.Site.IsGlobal() {
		row, ok = s.mineByKRI(snap, k, id)
	}
	if !ok {
		return notFound("")
	}
	return s.show(w, r, snap, k, row)
}

// mineByKRI finds a row of this zone by a KRI that says nothing of the zone
// although the kind has one, or the other way round: identifiers come from
// tools that make them of what they see, and what is local has no other zone.
func (s *server) mineByKRI(snap *db.Snapshot, k api.AnyKind, id api.ID) (api.Row, bool) {
	switch id.Zone {
	case "":
		id.Zone = s.Site.Zone
	case s.Site.Zone:
		id.Zone = ""
	default:
		return nil, false
	}
	row, ok := k.Row(snap, id)
	return row, ok && row.Head().Local()
}

// issues reports whether tokens of that kind are issued here.
func (s *server) issues(t auth.Token) bool { return !slices.Contains(s.NoIssuing, t) }
