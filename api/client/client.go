// Package client calls the REST API of a control plane.
//
// It owns the requests and answers as Go values: the command line, the proxy's
// keeper and the tests call it, and the server shares its wire types. It never
// caches, never retries a write, and knows kinds only through package api.
//
// # Why
//
// Resources stay JSON here: what a user wrote and what is shown to a user are
// documents, and decoding them into Go types would lose the fields that this
// version does not know. Pages are joined, because a caller that forgets the
// second page is a fault that shows only in large meshes.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/atoll-mesh/atoll/api"
)

// Options of a client. URL is needed.
type Options struct {
	// URL of the control plane: http://localhost:5681.
	URL string
	// Token is a user token, sent as Bearer; empty: none.
	Token string
	// CAFile is a PEM file of authorities to trust beside those of the system.
	CAFile string
	// SkipVerify trusts any server.
	SkipVerify bool
	// Timeout of one request; zero: a minute.
	Timeout time.Duration
	// UserAgent; empty: atoll.
	UserAgent string
	// Transport replaces the network, for tests.
	Transport http.RoundTripper
}

// Client calls one control plane. It may be used concurrently.
type Client struct {
	base  *url.URL
	token string
	agent string
	http  http.Client
}

const (
	// maxAnswer bounds the memory that an answer may take, in bytes.
	maxAnswer = 256 << 20
	// pageSize is the largest page that servers give.
	pageSize = 1000
)

// New returns a client. Nothing is sent yet.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("address of the control plane %q: want http://HOST:PORT or https://HOST:PORT", o.URL)
	}
	c := &Client{base: base, token: o.Token, agent: o.UserAgent}
	if c.agent == "" {
		c.agent = "atoll"
	}
	c.http = http.Client{
		Timeout: o.Timeout,
		// A control plane does not redirect; what does shall not see the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     o.Transport,
	}
	if c.http.Timeout == 0 {
		c.http.Timeout = time.Minute
	}
	if o.Transport == nil {
		c.http.Transport, err = transport(o)
	}
	return c, err
}

func transport(o Options) (http.RoundTripper, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: o.SkipVerify},
	}
	if o.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("authorities of the control plane: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authorities of the control plane: no certificate in %s", o.CAFile)
	}
	t.TLSClientConfig.RootCAs = pool
	return t, nil
}

// Do sends one request and decodes the JSON answer into the value, or the text
// into a *string; nil: the answer is dropped. body is JSON, nil: none. It is for
// the endpoints that have no method here. An answer that is no success is a
// *[Problem].
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body []byte, into any) (http.Header, error) {
	_, header, err := c.do(ctx, method, path, query, body, into)
	return header, err
}

// request makes a request of the path, which comes escaped: names are a part of it.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Request, error) {
	u := *c.base
	full, err := url.Parse(strings.TrimSuffix(u.EscapedPath(), "/") + path)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	u.Path, u.RawPath, u.RawQuery = full.Path, full.RawPath, query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if method == http.MethodPut || method == http.MethodDelete {
		// They can be sent again where a kept connection turns out to be closed. Of a
		// header without values nothing is sent: so net/http is told.
		req.Header["Idempotency-Key"] = nil
	}
	req.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// unreached is the error of a request without an answer. The address is said once.
func (c *Client) unreached(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("control plane at %s: %w", c.base, err)
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body []byte, into any) (int, http.Header, error) {
	req, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return 0, nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, c.unreached(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	refused := res.StatusCode < 200 || res.StatusCode > 299
	if err != nil && !refused { // of a refusal, a part says what it is
		return 0, nil, fmt.Errorf("control plane at %s: read the answer: %w", c.base, err)
	}
	if len(answer) > maxAnswer {
		return 0, nil, fmt.Errorf("control plane at %s: the answer to %s %s is larger than %d bytes", c.base, method, path, maxAnswer)
	}
	if refused {
		return res.StatusCode, res.Header, problemOf(res.StatusCode, answer)
	}
	switch into := into.(type) {
	case nil:
	case *string:
		*into = string(answer)
	default:
		if err := json.Unmarshal(answer, into); err != nil {
			return res.StatusCode, res.Header, fmt.Errorf("control plane at %s: answer to %s %s: %w", c.base, method, path, err)
		}
	}
	return res.StatusCode, res.Header, nil
}

// Path is that of a resource, escaped, or of the list if name is empty; without
// a mesh the list is that of all meshes.
func Path(k api.AnyKind, mesh, name string) string {
	info := k.Info()
	path := "/" + info.Plural
	if info.Scope == api.MeshScope && mesh != "" {
		path = "/meshes/" + url.PathEscape(mesh) + path
	}
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	return path
}

// Applied is what an apply did.
type Applied struct {
	Kind, Mesh, Name string
	// Result is [Created], [Updated] or [Unchanged]; a server of another make
	// does not tell the last two apart: Updated.
	Result string
	// Revision of the store that holds the document.
	Revision uint64
	Warnings []string
}

// Headers that the server sets on every write.
const (
	revisionHeader = "Atoll-Revision"
	resultHeader   = "Atoll-Result"
)

// Apply creates or replaces the resource of a JSON document.
func (c *Client) Apply(ctx context.Context, document []byte) (Applied, error) {
	done, path, err := place(document)
	if err != nil {
		return done, err
	}
	var answer struct {
		Warnings []string `json:"warnings"`
	}
	status, header, err := c.do(ctx, http.MethodPut, path, nil, document, &answer)
	if err != nil {
		return done, err
	}
	switch done.Result = header.Get(resultHeader); {
	case done.Result != "":
	case status == http.StatusCreated:
		done.Result = Created
	default:
		done.Result = Updated
	}
	done.Warnings, done.Revision = answer.Warnings, revisionOf(header)
	return done, nil
}

// ErrNoTrial: the control plane cannot tell what a write would do.
var ErrNoTrial = errors.New("this control plane cannot try a change without making it")

// try sends a write with ?dryRun=true, which what is not of this project would
// take for a write.
func (c *Client) try(ctx context.Context, method, path string, body []byte) (Trial, error) {
	var trial Trial
	root, err := c.Root(ctx)
	if err != nil {
		return trial, err
	}
	if root.AtollVersion == "" {
		return trial, fmt.Errorf("%w: it is %s %s", ErrNoTrial, root.Product, root.Version)
	}
	_, err = c.Do(ctx, method, path, url.Values{"dryRun": {"true"}}, body, &trial)
	return trial, err
}

// TryApply says what [Client.Apply] would do; nothing is written.
func (c *Client) TryApply(ctx context.Context, document []byte) (Trial, error) {
	_, path, err := place(document)
	if err != nil {
		return Trial{}, err
	}
	return c.try(ctx, http.MethodPut, path, document)
}

// TryDelete says what [Client.Delete] would do; nothing is deleted.
func (c *Client) TryDelete(ctx context.Context, k api.AnyKind, mesh, name string) (Trial, error) {
	return c.try(ctx, http.MethodDelete, Path(k, mesh, name), nil)
}

// place finds the resource of a document, and its path.
func place(document []byte) (Applied, string, error) {
	var d struct{ Type, Mesh, Name string }
	if err := json.Unmarshal(document, &d); err != nil {
		return Applied{}, "", fmt.Errorf("not a resource: %w", err)
	}
	done := Applied{Kind: d.Type, Mesh: d.Mesh, Name: d.Name}
	k, ok := api.ByName(d.Type)
	var faults api.Report
	if !ok {
		_, _ = api.ParseDocument(document, &faults) // says which kinds are meant
	}
	if d.Name == "" {
		faults.At("name").Add("cannot be empty")
	}
	if ok && k.Info().Scope == api.MeshScope && d.Mesh == "" {
		faults.At("mesh").Add("cannot be empty")
	}
	if err := faults.Err(); err != nil {
		return done, "", err
	}
	if k.Info().Scope == api.GlobalScope {
		done.Mesh = ""
	}
	return done, Path(k, d.Mesh, d.Name), nil
}

func revisionOf(h http.Header) uint64 {
	n, _ := strconv.ParseUint(h.Get(revisionHeader), 10, 64) // absent: an older server
	return n
}

// Get returns the resource as JSON; [ErrNotFound] if there is none.
func (c *Client) Get(ctx context.Context, k api.AnyKind, mesh, name string) (json.RawMessage, error) {
	var out json.RawMessage
	_, err := c.Do(ctx, http.MethodGet, Path(k, mesh, name), nil, nil, &out)
	return out, err
}

// Delete deletes the resource and returns the revision of the store without
// it; [ErrNotFound] if there is none.
func (c *Client) Delete(ctx context.Context, k api.AnyKind, mesh, name string) (uint64, error) {
	header, err := c.Do(ctx, http.MethodDelete, Path(k, mesh, name), nil, nil, nil)
	if err != nil {
		return 0, err
	}
	return revisionOf(header), nil
}

// List yields every resource of the kind in the mesh, or in all meshes if mesh
// is empty, page by page. query may hold filters. An error is the last yield.
func (c *Client) List(ctx context.Context, k api.AnyKind, mesh string, query url.Values) iter.Seq2[json.RawMessage, error] {
	return c.Pages(ctx, Path(k, mesh, ""), query)
}

// Overviews is List with what is known of the resources at run time, for the
// kinds that have overviews.
func (c *Client) Overviews(ctx context.Context, k api.AnyKind, mesh string, query url.Values) iter.Seq2[json.RawMessage, error] {
	return c.Pages(ctx, Path(k, mesh, "")+"/_overview", query)
}

// Page is a part of a list.
type Page struct {
	// Total is how many there are on all pages.
	Total int               `json:"total"`
	Items []json.RawMessage `json:"items"`
	// Next is the address of the page after this one; nil: there is none.
	Next *string `json:"next"`
	// Warnings are about the list as a whole.
	Warnings []string `json:"warnings"`
}

// Page asks for one page of a list; query says which: size and offset.
func (c *Client) Page(ctx context.Context, path string, query url.Values) (Page, error) {
	var page Page
	_, err := c.Do(ctx, http.MethodGet, path, query, nil, &page)
	return page, err
}

// Pages yields the items of any list with pages.
func (c *Client) Pages(ctx context.Context, path string, query url.Values) iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		ask := url.Values{}
		for name, values := range query {
			ask[name] = values
		}
		ask.Set("size", strconv.Itoa(pageSize))
		for offset := 0; ; {
			ask.Set("offset", strconv.Itoa(offset))
			page, err := c.Page(ctx, path, ask)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.Next == nil || len(page.Items) == 0 {
				return
			}
			offset += len(page.Items) // a page of large items is shorter than asked for
		}
	}
}

// Root asks the control plane who it is; no token is needed.
func (c *Client) Root(ctx context.Context) (Root, error) {
	var out Root
	_, err := c.Do(ctx, http.MethodGet, "/", nil, nil, &out)
	return out, err
}

// DataplaneToken asks for a token of a proxy.
func (c *Client) DataplaneToken(ctx context.Context, q DataplaneTokenRequest) (string, error) {
	return c.issue(ctx, "/tokens/dataplane", q)
}

// ZoneToken asks for a token of a zone.
func (c *Client) ZoneToken(ctx context.Context, q ZoneTokenRequest) (string, error) {
	return c.issue(ctx, "/tokens/zone", q)
}

// UserToken asks for a token of a user of the API.
func (c *Client) UserToken(ctx context.Context, q UserTokenRequest) (string, error) {
	return c.issue(ctx, "/tokens/user", q)
}

func (c *Client) issue(ctx context.Context, path string, request any) (string, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return "", fmt.Errorf("request of a token: %w", err)
	}
	var token string
	_, err = c.Do(ctx, http.MethodPost, path, nil, body, &token)
	return token, err
}
