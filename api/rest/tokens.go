package rest

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/openapi"
)

// longValid is how long tokens live that are asked for without a time.
const longValid = 10 * 365 * 24 * time.Hour

func (s *server) tokenRoutes() {
	s.route("POST /tokens/dataplane", titleToken, s.dataplaneToken)
	s.route("POST /tokens/zone", titleToken, s.zoneToken)
	s.route("POST /tokens/user", titleToken, s.userToken)
}

// readToken reads a request for a token. A member that is not known is a fault:
// who means to bind a token to a name, and misspells the member, would get one
// for every name.
func (s *server) readToken(w http.ResponseWriter, r *http.Request, t auth.Token, into any, report *api.Report) error {
	if !s.issues(t) {
		return &Problem{Status: http.StatusBadRequest, Detail: "issuing tokens using the control plane is disabled."}
	}
	if err := bodyIsJSON(r); err != nil {
		return err
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	if err := api.CheckJSON(body); err != nil {
		return badRequest("bad request: %v", err)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return badRequest("bad request: %v", err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return badRequest("bad request: %v", err)
	}
	known := slices.Sorted(maps.Keys(openapi.OfType(reflect.TypeOf(into))["properties"].(openapi.Schema)))
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, name) }) {
			report.At(name).Misnamed(name, known, "unknown field")
		}
	}
	return nil
}

// validFor reads a duration; the report has a fault if it is wrong.
func validFor(text string, needed bool, report *api.Report) time.Duration {
	at := report.At("validFor")
	if text == "" {
		if needed {
			at.Add("cannot be empty")
		}
		return longValid
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		at.Add("is invalid: %v", err)
	}
	if needed && d == 0 {
		at.Add("cannot be empty or nil")
	}
	return d
}

func wrongRequest(report *api.Report) error {
	if faults := report.Faults(); len(faults) > 0 {
		p := invalid(faults...)
		p.Title, p.Detail = titleRequest, "Resource is not valid"
		return p
	}
	return nil
}

func sendToken(w http.ResponseWriter, token string, err error) error {
	if err != nil {
		return err
	}
	plain(w, http.StatusOK, token)
	return nil
}

func (s *server) dataplaneToken(w http.ResponseWriter, r *http.Request) error {
	if UserOf(r).IsAnonymous() {
		if err := s.mayAct(r, s.Access.GenerateDpToken, api.ActionGenerateDataplane, auth.Subject{}); err != nil {
			return err // before the body is read
		}
	}
	var q client.DataplaneTokenRequest
	var report api.Report
	if err := s.readToken(w, r, auth.DataplaneToken, &q, &report); err != nil {
		return err
	}
	if q.Mesh == "" {
		report.At("mesh").Add("cannot be empty")
	}
	if q.Type != "" && q.Type != "dataplane" {
		report.At("type").Add("%s is not a valid proxy type", q.Type)
	}
	lifetime := validFor(q.ValidFor, false, &report)
	if err := wrongRequest(&report); err != nil {
		return err
	}
	on := auth.Subject{Kind: api.Dataplanes.Name, Mesh: q.Mesh, Name: q.Name}
	if q.Workload != "" {
		on.Labels = map[string]string{api.LabelWorkload: q.Workload}
	}
	if err := s.mayAct(r, s.Access.GenerateDpToken, api.ActionGenerateDataplane, on); err != nil {
		return err
	}
	claims := auth.DataplaneClaims{Name: q.Name, Mesh: q.Mesh, Tags: q.Tags, Type: q.Type, Workload: q.Workload}
	token, err := auth.IssueDataplane(s.DB.Snapshot(), s.Now(), claims, lifetime)
	return sendToken(w, token, err)
}

func (s *server) zoneToken(w http.ResponseWriter, r *http.Request) error {
	if err := s.mayAct(r, s.Access.GenerateZoneToken, api.ActionGenerateZone, auth.Subject{}); err != nil {
		return err
	}
	if s.Site.Federated {
		return &Problem{Status: http.StatusNotFound, Detail: "zone tokens are issued by the global control plane, which holds the key; ask it"}
	}
	var q client.ZoneTokenRequest
	var report api.Report
	if err := s.readToken(w, r, auth.ZoneToken, &q, &report); err != nil {
		return err
	}
	lifetime := validFor(q.ValidFor, false, &report)
	if err := wrongRequest(&report); err != nil {
		return err
	}
	token, err := auth.IssueZone(s.DB.Snapshot(), s.Now(), auth.ZoneClaims{Zone: q.Zone, Scope: q.Scope}, lifetime)
	return sendToken(w, token, err)
}

func (s *server) userToken(w http.ResponseWriter, r *http.Request) error {
	if err := s.mayAct(r, s.Access.GenerateUserToken, api.ActionGenerateUser, auth.Subject{}); err != nil {
		return err
	}
	var q client.UserTokenRequest
	var report api.Report
	if err := s.readToken(w, r, auth.UserToken, &q, &report); err != nil {
		return err
	}
	if q.Name == "" {
		report.At("name").Add("cannot be empty")
	}
	lifetime := validFor(q.ValidFor, true, &report)
	if err := wrongRequest(&report); err != nil {
		return err
	}
	token, err := auth.IssueUser(s.DB.Snapshot(), s.Now(), auth.User{Name: q.Name, Groups: q.Groups}, lifetime)
	return sendToken(w, token, err)
}
