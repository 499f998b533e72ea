package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/atoll-mesh/atoll/api"
)

// ErrNotFound: there is no such resource. Errors of this package are tested
// against it with errors.Is.
var ErrNotFound = errors.New("not found")

// Problem is an answer that is an error.
type Problem struct {
	// Status is the HTTP status.
	Status int
	// Title is what could not be done, Detail why.
	Title, Detail string
	// Faults are the fields of the request that are wrong.
	Faults []api.Fault
}

// Error is the title and the detail, and each wrong field on a line of its own.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Title)
	if p.Detail != "" {
		fmt.Fprintf(&b, " (%s)", strings.TrimSpace(p.Detail))
	}
	for _, f := range p.Faults {
		b.WriteString("\n* " + f.String())
	}
	return b.String()
}

// Is makes errors.Is(err, ErrNotFound) tell a missing resource from the rest.
func (p *Problem) Is(target error) bool {
	return target == ErrNotFound && p.Status == http.StatusNotFound
}

// shownText is how much of an answer without a structure is shown.
const shownText = 500

func problemOf(status int, body []byte) error {
	var b struct {
		Title   string      `json:"title"`
		Detail  string      `json:"detail"`
		Details string      `json:"details"`
		Invalid []api.Fault `json:"invalid_parameters"`
	}
	if json.Unmarshal(body, &b) != nil || b.Title == "" {
		text := strings.TrimSpace(string(body[:min(len(body), shownText)]))
		return &Problem{Status: status, Title: fmt.Sprintf("%d %s", status, http.StatusText(status)), Detail: text}
	}
	if b.Detail == "" {
		b.Detail = b.Details
	}
	return &Problem{Status: status, Title: b.Title, Detail: b.Detail, Faults: b.Invalid}
}

// Root is what GET / answers, without asking who calls.
type Root struct {
	Hostname string `json:"hostname"`
	// Product is always Kuma: clients of the ecosystem refuse others.
	Product    string `json:"product"`
	Version    string `json:"version"`
	InstanceID string `json:"instanceId"`
	ClusterID  string `json:"clusterId"`
	GUI        string `json:"gui"`
	// BasedOnKuma is the version of the API; its presence tells that this is
	// not the original.
	BasedOnKuma  string `json:"basedOnKuma"`
	AtollVersion string `json:"atollVersion"`
}

// Trial is what a write would do: the answer to one with ?dryRun=true.
type Trial struct {
	// Result is one of [Created], [Updated], [Unchanged] and [Deleted].
	Result string `json:"result"`
	// Document is the resource as it would be, or as it is before a deletion;
	// none if the caller may write it and not read it.
	Document json.RawMessage `json:"document,omitempty"`
	// Also is how many other resources a deletion takes away with this one.
	Also     int      `json:"also,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Results of a write.
const (
	Created   = "created"
	Updated   = "updated"
	Unchanged = "unchanged"
	Deleted   = "deleted"
)

// DataplaneTokenRequest asks for a token of a proxy; empty members bind it to
// nothing.
type DataplaneTokenRequest struct {
	Name     string              `json:"name"`
	Mesh     string              `json:"mesh"`
	Tags     map[string][]string `json:"tags"`
	Type     string              `json:"type"`
	Workload string              `json:"workload"`
	// ValidFor is a Go duration; empty: ten years.
	ValidFor string `json:"validFor"`
}

// ZoneTokenRequest asks for a token of a zone.
type ZoneTokenRequest struct {
	Zone  string   `json:"zone"`
	Scope []string `json:"scope"`
	// ValidFor is a Go duration; empty: ten years.
	ValidFor string `json:"validFor"`
}

// UserTokenRequest asks for a token of a user of the API.
type UserTokenRequest struct {
	Name   string   `json:"name"`
	Groups []string `json:"groups"`
	// ValidFor is a Go duration, which is needed.
	ValidFor string `json:"validFor"`
}
