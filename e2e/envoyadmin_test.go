package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/atoll-mesh/atoll/api/client"
)

// see asks a control plane about the Envoy of a proxy, as its REST API answers.
func (p *plane) see(t testing.TB, path string) (string, error) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.value(t, "API")+"/meshes/default/dataplanes/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(p.value(t, "administrator's token"))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return answerTo(q, httpClient)
}

// What an Envoy has, counts and reaches is seen at its zone and, through it, at
// global; nobody else sees it, and nobody sees a secret.
func TestEnvoysAreSeenFromGlobal(t *testing.T) {
	g := startGlobal(t)
	east := startZone(t, "east", g)
	meshIn(t, east)
	web := startProxy(t, east, spec{mesh: "default", name: "web-1", service: "web"})

	// global knows the proxy by another name.
	name := ""
	eventually(t, "the proxy at global", func() error {
		var list struct {
			Items []struct {
				Name   string
				Labels map[string]string
			}
		}
		if _, err := g.client.Do(t.Context(), http.MethodGet, "/meshes/default/dataplanes", nil, nil, &list); err != nil {
			return err
		}
		if len(list.Items) != 1 {
			return fmt.Errorf("%d proxies", len(list.Items))
		}
		name = list.Items[0].Name
		return nil
	})
	for _, at := range []struct {
		*plane
		name string
	}{{east, "web-1"}, {g, name}} {
		eventually(t, "configuration", func() error {
			dump, err := at.see(t, at.name+"/xds?include_eds=true")
			if err != nil {
				return err
			}
			var configs struct {
				Configs []struct {
					Type string `json:"@type"`
				}
			}
			if err := json.Unmarshal([]byte(dump), &configs); err != nil {
				return err
			}
			for _, want := range []string{"system_envoy_admin", "self_inbound_dp_http", "EndpointsConfigDump", `"[redacted]"`} {
				if !strings.Contains(dump, want) {
					return fmt.Errorf("the configuration does not have %s", want)
				}
			}
			for _, secret := range []string{web.token, "PRIVATE KEY"} {
				if strings.Contains(dump, secret) {
					t.Errorf("the configuration shows a secret: %.20s…", secret)
				}
			}
			return nil
		})
		for path, want := range map[string]string{
			"/stats":                          "cluster_manager.active_clusters: ",
			"/stats?format=json":              `{"stats":[`,
			"/stats?usedonly=false":           "cluster_manager.cluster_removed: ",
			"/clusters":                       "self_inbound_dp_http::",
			"/clusters?format=json":           `"cluster_statuses"`,
			"/xds":                            "BootstrapConfigDump",
			"/stats?format=text&usedonly=yes": "error: 400",
		} {
			text, err := at.see(t, at.name+path)
			if err != nil {
				text = "error: " + err.Error()
			}
			if !strings.Contains(text, want) {
				t.Errorf("%s answered %.200q, want %q", path, text, want)
			}
		}
		if _, err := at.see(t, "nobody/stats"); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("about a proxy that is not there: %v", err)
		}
		if _, err := fetch("http://" + at.value(t, "API") + "/meshes/default/dataplanes/" + at.name + "/stats"); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("anonymous: %v", err)
		}
	}
	if used, err := east.see(t, "web-1/stats"); err != nil || strings.Contains(used, "cluster_manager.cluster_removed: ") {
		t.Errorf("statistics without use are shown (%v)", err)
	}

	// The listener itself: readiness for everybody, the rest for the control plane.
	at := net.JoinHostPort(web.address, "9901")
	plain, stranger := &http.Client{Timeout: 5 * time.Second}, &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	for _, c := range []struct {
		client *http.Client
		url    string
		want   string // in the error: of Envoy, or of TLS with the address; empty: none
	}{
		{plain, "http://" + at + "/ready", ""},
		{plain, "http://" + at + "/stats", "404"},
		{plain, "http://" + at + "/config_dump", "404"},
		{stranger, "https://" + at + "/stats", at},
		{stranger, "https://" + at + "/ready", at},
	} {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch _, err = answerTo(q, c.client); {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.url, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %s", c.url, err, c.want)
		}
	}

	// The authority is the zone's own: it never leaves.
	var p *client.Problem
	if _, err := g.client.Do(t.Context(), http.MethodGet, "/globalsecrets/envoy-admin-ca", nil, nil, nil); !errors.As(err, &p) || p.Status != http.StatusNotFound {
		t.Errorf("global has the zone's authority (%v)", err)
	}
	if _, err := east.client.Do(t.Context(), http.MethodGet, "/globalsecrets/envoy-admin-ca", nil, nil, nil); err != nil {
		t.Errorf("the zone's authority: %v", err)
	}

	east.stop()
	eventually(t, "the zone is away", func() error {
		began := time.Now()
		_, err := g.see(t, name+"/stats")
		if took := time.Since(began); took > time.Second {
			t.Errorf("the answer took %v", took)
		}
		if err == nil || !strings.Contains(err.Error(), "400") || !strings.Contains(err.Error(), "zone east is offline") {
			return fmt.Errorf("global answered: %v", err)
		}
		return nil
	})
}
