package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// app is a service of the shop. It knows nothing of the mesh: it listens on one
// port, and calls others at ports of its own machine.
//
//	GET /                     says who it is and what came with the request
//	GET /?slow=2s             the same, later
//	GET /call/cart/REST       calls GET /REST of the cart, and shows what came back
type app struct {
	service, instance, zone string
	url                     string
	upstreams               map[string]string // service → URL
	server                  *http.Server
	client                  *http.Client
}

// reply is what a service answers.
type reply struct {
	Service  string `json:"service"`
	Instance string `json:"instance"`
	Zone     string `json:"zone"`
	// Caller is the SPIFFE ID that the proxy of this service verified.
	Caller  string            `json:"caller,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Called  *reply            `json:"called,omitempty"`
}

// last is the service at the end of the chain of calls.
func (r *reply) last() *reply {
	for r.Called != nil {
		r = r.Called
	}
	return r
}

// maxReply bounds what is read of an answer.
const maxReply = 1 << 20

// newApp starts a service at the address.
func newApp(service, instance, zone, address string, ports demoPorts) (*app, error) {
	at := func(port int) string { return "http://" + net.JoinHostPort(address, strconv.Itoa(port)) }
	a := &app{
		service: service, instance: instance, zone: zone, url: at(ports.Service),
		upstreams: map[string]string{"catalog": at(ports.Catalog), "cart": at(ports.Cart), "payments": at(ports.Payments)},
		client:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}},
	}
	l, err := net.Listen("tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		return nil, fmt.Errorf("service %s: %w", instance, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /call/{service}", a.call)
	mux.HandleFunc("GET /call/{service}/{rest...}", a.call)
	mux.HandleFunc("GET /", a.answer)
	a.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = a.server.Serve(l) }() // ends with close
	return a, nil
}

func (a *app) close() {
	_ = a.server.Close() // nothing is lost: it holds no state
	a.client.CloseIdleConnections()
}

func (a *app) answer(w http.ResponseWriter, q *http.Request) {
	if text := q.FormValue("slow"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
		case <-q.Context().Done():
			return
		}
	}
	a.reply(w, q, nil)
}

func (a *app) call(w http.ResponseWriter, q *http.Request) {
	to, ok := a.upstreams[q.PathValue("service")]
	if !ok {
		http.Error(w, a.service+" calls no such service", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(q.Context(), 10*time.Second)
	defer cancel()
	url := to + "/" + q.PathValue("rest")
	if q.URL.RawQuery != "" {
		url += "?" + q.URL.RawQuery
	}
	status, body, err := fetchReply(ctx, a.client, url)
	switch {
	case err != nil:
		http.Error(w, fmt.Sprintf("%s cannot call %s: %v", a.instance, q.PathValue("service"), err), http.StatusBadGateway)
	case status != http.StatusOK: // the caller shall see who refused, and why
		w.WriteHeader(status)
		_, _ = w.Write(body)
	default:
		var called reply
		if err := json.Unmarshal(body, &called); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		a.reply(w, q, &called)
	}
}

func (a *app) reply(w http.ResponseWriter, q *http.Request, called *reply) {
	r := reply{Service: a.service, Instance: a.instance, Zone: a.zone, Headers: map[string]string{}, Called: called}
	for name, values := range q.Header {
		r.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	r.Caller = callerOf(q.Header.Get("X-Forwarded-Client-Cert"))
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(r) // who does not listen is not told
}

// callerOf finds the caller's SPIFFE ID in the header that its proxy sets:
// https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
func callerOf(header string) string {
	for part := range strings.SplitSeq(header, ";") {
		if uri, ok := strings.CutPrefix(part, "URI="); ok {
			return uri
		}
	}
	return ""
}

func fetchReply(ctx context.Context, c *http.Client, url string) (int, []byte, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	answer, err := c.Do(q)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxReply))
	return answer.StatusCode, body, err
}
