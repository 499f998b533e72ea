package main

import (
	"fmt"
	"net/http/httptest"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/inspect"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/memory"
)

// description is what a control plane answers to GET /openapi.
func description() ([]byte, error) {
	rows, site := db.New(api.Schema), api.Site{}
	var plane server.Server // its endpoints are described, not called
	extra := append(inspect.Endpoints(rows, site), plane.Convergence("", nil))
	anybody := auth.DefaultAccess()
	anybody.ReadResources = auth.Grant{Groups: []string{auth.GroupUnauthenticated}}
	h := rest.New(rest.Options{
		DB: rows, Feeder: store.NewFeeder(memory.New().Open(), rows, site, nil), Site: site, Access: anybody,
		Extra: append(extra, plane.Envoy(nil)...), Version: "1", Now: time.Now,
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/openapi", nil))
	if w.Code != 200 {
		return nil, fmt.Errorf("GET /openapi: %d %s", w.Code, w.Body)
	}
	return w.Body.Bytes(), nil
}
