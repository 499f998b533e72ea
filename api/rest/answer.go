package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/store"
)

// Problem is an answer that is an error.
type Problem struct {
	// Status is the HTTP status.
	Status int
	// Title is what could not be done; empty: that of the endpoint.
	Title string
	// Detail says why.
	Detail string
	// Faults are the fields of the request that are wrong.
	Faults []api.Fault
}

func (p *Problem) Error() string {
	text := p.Title + ": " + p.Detail
	for _, f := range p.Faults {
		text += "; " + f.String()
	}
	return text
}

// problemBody is how a Problem is sent. Details and Causes say the same again
// for clients that know only them.
type problemBody struct {
	Type    string      `json:"type"`
	Status  int         `json:"status"`
	Title   string      `json:"title"`
	Detail  string      `json:"detail"`
	Invalid []api.Fault `json:"invalid_parameters,omitempty"`
	Details string      `json:"details"`
	Causes  []cause     `json:"causes,omitempty"`
}

type cause struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// MarshalJSON is the body of the answer.
func (p *Problem) MarshalJSON() ([]byte, error) {
	b := problemBody{
		Type: "/std-errors", Status: p.Status, Title: p.Title, Detail: p.Detail, Invalid: p.Faults, Details: p.Detail,
	}
	for _, f := range p.Faults {
		b.Causes = append(b.Causes, cause{f.Field, f.Reason})
	}
	return encode(b)
}

const detailInvalid = "Resource is not valid"

func invalid(faults ...api.Fault) *Problem {
	return &Problem{Status: http.StatusBadRequest, Detail: detailInvalid, Faults: faults}
}

func notFound(title string) *Problem {
	return &Problem{Status: http.StatusNotFound, Title: title, Detail: "Not found"}
}

func badRequest(format string, args ...any) *Problem {
	return &Problem{Status: http.StatusBadRequest, Title: "Bad Request", Detail: fmt.Sprintf(format, args...)}
}

// storeError is what the store said to a write that it did not take.
type storeError struct{ error }

func (e storeError) Unwrap() error { return e.error }

// statusClientGone is what is logged for a client that did not wait.
const statusClientGone = 499

// problemOf maps errors to answers: the one place that does.
func problemOf(err error) Problem {
	var (
		p      *Problem
		faults *api.Invalid
		large  *http.MaxBytesError
		kept   storeError
	)
	switch {
	case errors.As(err, &p):
		return *p
	case errors.As(err, &faults):
		return Problem{Status: http.StatusBadRequest, Detail: detailInvalid, Faults: faults.Faults}
	case errors.As(err, &large):
		return Problem{Status: http.StatusRequestEntityTooLarge, Detail: fmt.Sprintf("the body is larger than %d bytes", large.Limit)}
	case errors.Is(err, auth.ErrDenied):
		return Problem{Status: http.StatusForbidden, Title: "Access Denied", Detail: err.Error()}
	case errors.Is(err, auth.ErrNoKey):
		return Problem{Status: http.StatusNotFound, Title: "Signing Key not found", Detail: err.Error()}
	case moved(err):
		return Problem{Status: http.StatusConflict, Title: "Conflict", Detail: err.Error()}
	case errors.Is(err, store.ErrInvalid):
		return Problem{Status: http.StatusBadRequest, Detail: err.Error()}
	case errors.Is(err, store.ErrClosed), errors.Is(err, store.ErrUnavailable):
		return Problem{Status: http.StatusServiceUnavailable, Title: "Service unavailable", Detail: err.Error()}
	case errors.Is(err, context.Canceled):
		return Problem{Status: statusClientGone, Detail: "the client went away"}
	case errors.Is(err, context.DeadlineExceeded):
		return Problem{Status: http.StatusServiceUnavailable, Title: "Service unavailable", Detail: "the write was not seen in time"}
	case errors.As(err, &kept):
		return Problem{Status: http.StatusInternalServerError, Detail: "the store did not take the write: " + kept.Error()}
	default:
		return Problem{Status: http.StatusInternalServerError, Detail: "Internal Server Error"}
	}
}

func (s *server) fail(w http.ResponseWriter, r *http.Request, title string, err error) {
	p := problemOf(err)
	if p.Status == statusClientGone && r.Context().Err() == nil {
		p = Problem{Status: http.StatusServiceUnavailable, Title: "Service unavailable", Detail: "the control plane is shutting down"}
	}
	if p.Title == "" {
		p.Title = title
	}
	if p.Status >= http.StatusInternalServerError {
		s.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	if text, ok := plainTexts[p.Status]; ok {
		plain(w, p.Status, text)
		return
	}
	WriteJSON(w, p.Status, &p)
}

// plainTexts are the refusals that have no JSON body.
var plainTexts = map[int]string{
	http.StatusUnsupportedMediaType: "415: Unsupported Media Type",
	http.StatusNotAcceptable:        "406: Not Acceptable",
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the client went away
}

// encode is json.Marshal without HTML escaping.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// WriteJSON answers with v, indented by one space a level.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(v); err != nil {
		plain(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the client went away
}
