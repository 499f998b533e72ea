package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
)

func open(t *testing.T, change func(*server.Config)) (*server.Server, *bytes.Buffer) {
	t.Helper()
	c := server.Default()
	c.DataDir, c.Store.Type = t.TempDir(), "memory"
	change(&c)
	said := &bytes.Buffer{}
	s, err := server.Open(c, api.Site{Env: "universal"}, "test", said)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, said
}

// clientPair makes an authority and a client certificate that it signed.
func clientPair(t *testing.T) (authority []byte, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestHTTPSWithClientCertificates(t *testing.T) {
	authority, pair := clientPair(t)
	for name, one := range map[string]struct {
		change func(*server.HTTPSConfig, string)
		with   []tls.Certificate
		ok     bool
	}{
		"no authorities":       {func(*server.HTTPSConfig, string) {}, nil, true},
		"not required":         {func(c *server.HTTPSConfig, ca string) { c.ClientCAFile = ca }, nil, true},
		"required and lacking": {func(c *server.HTTPSConfig, ca string) { c.ClientCAFile, c.RequireClientCert = ca, true }, nil, false},
		"required and shown": {func(c *server.HTTPSConfig, ca string) { c.ClientCAFile, c.RequireClientCert = ca, true },
			[]tls.Certificate{pair}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, func(c *server.Config) {
				ca := filepath.Join(c.DataDir, "clients.pem")
				if err := os.WriteFile(ca, authority, 0o600); err != nil {
					t.Fatal(err)
				}
				c.API.Address, c.API.HTTPS.Address = "127.0.0.1:0", "127.0.0.1:0"
				one.change(&c.API.HTTPS, ca)
			})
			apis, err := s.ListenAPI()
			if err != nil || len(apis) != 2 {
				t.Fatalf("%v, %v", apis, err)
			}
			go func() {
				_ = http.Serve(apis[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
			}()
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(s.Cert.Chain)
			client := http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: one.with}}}
			res, err := client.Get("https://" + apis[1].Addr().String())
			if (err == nil) != one.ok {
				t.Fatalf("%v", err)
			}
			if err != nil {
				return
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != "HTTP/2.0" {
				t.Errorf("%s %v", body, err)
			}
		})
	}
}

func TestHTTPSAddress(t *testing.T) {
	for _, c := range []struct{ http, https string }{{"127.0.0.1:0", "auto"}, {"127.0.0.1:0", ""}} {
		s, said := open(t, func(o *server.Config) { o.API.Address, o.API.HTTPS.Address = c.http, c.https })
		if apis, err := s.ListenAPI(); err != nil || len(apis) != 1 || strings.Contains(said.String(), "TLS") {
			t.Errorf("%v: %v %v", c, apis, err)
		}
	}
	s, _ := open(t, func(o *server.Config) { o.Diagnostics.Address, o.Diagnostics.TLS = "127.0.0.1:0", true })
	l, err := s.ListenDiagnostics()
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = http.Serve(l, s.Diagnostics()) }()
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	res, err := client.Get("https://" + l.Addr().String() + "/healthy")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}

func TestValidateNamesFaultsOfTheAPI(t *testing.T) {
	c := server.Default()
	c.API.HTTPS.CertFile, c.API.HTTPS.RequireClientCert = "x", true
	c.API.CORSAllowedDomains, c.API.BasePath = []string{"(["}, "api"
	c.Tokens.User.Validator.PublicKeys = []server.PublicKeyConfig{{Key: "x", KeyFile: "y", Mesh: "m"}}
	var r api.Report
	c.Validate(&r)
	for _, field := range []string{
		"api.https: ", "api.https.clientCaFile: ", "api.corsAllowedDomains: ", "api.basePath: ", "tokens.user.validator.publicKeys[0].kid: ",
		"tokens.user.validator.publicKeys[0]: ", "tokens.user.validator.publicKeys[0].mesh: ",
	} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%snot named in %v", field, err)
		}
	}
	c = server.Default()
	c.DataDir, c.Store.Type = t.TempDir(), "memory"
	c.Tokens.Zone.Validator.PublicKeys = []server.PublicKeyConfig{{KID: "1", Key: "no key"}}
	if _, err := server.Open(c, api.Site{}, "test", io.Discard); err == nil || !strings.Contains(err.Error(), "tokens.zone.validator.publicKeys[0]") {
		t.Errorf("%v", err)
	}
}

// Tokens may be signed elsewhere: then no key is made, and only the public one counts.
func TestTokensSignedElsewhere(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	elsewhere := server.TokenConfig{Validator: server.ValidatorConfig{PublicKeys: []server.PublicKeyConfig{{KID: "mine", KeyFile: file}}}}
	r := run(t, t.TempDir(), api.Site{Env: "universal"}, func(c *server.Config) {
		c.Store.Type = "memory"
		c.Tokens.User, c.Tokens.Dataplane, c.Tokens.Zone = elsewhere, elsewhere, elsewhere
	})
	if got := rows(r.Server); got["Mesh"] != 1 || got["Secret"]+got["GlobalSecret"] != 0 {
		t.Errorf("%v", got)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"Name": "ada", "Groups": []string{"mesh-system:admin"}})
	token.Header["kid"] = "mine"
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"GET /meshes": 200, "POST /tokens/user": 400, "POST /tokens/dataplane": 400, "POST /tokens/zone": 400} {
		method, path, _ := strings.Cut(path, " ")
		q, err := http.NewRequestWithContext(t.Context(), method, r.url+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+signed)
		q.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != want || want == 400 && !strings.Contains(string(body), "issuing tokens using the control plane is disabled.") {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

func TestConfigIsShownWithoutSecrets(t *testing.T) {
	type whole struct {
		server.Config
		Database struct {
			Password     string `json:"password"`
			PasswordFile string `json:"passwordFile"`
			URL          string `json:"url"`
			Broken       string `json:"broken"`
			Tokens       []string
			Empty        struct {
				Secret string `json:"secret"`
			} `json:"empty"`
		} `json:"database"`
	}
	s, _ := open(t, func(*server.Config) {})
	c := whole{Config: s.Config}
	c.Database.Password, c.Database.PasswordFile = "hunter2", "/run/password"
	c.Database.URL, c.Database.Tokens = "postgres://atoll:hunter3@db/atoll", []string{"hunter4"}
	c.Database.Broken = "postgres://atoll:hunter5%zz/@hunter6@db:port/atoll"
	h, err := s.REST(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := httptest.NewRequest("GET", "/config", nil)
	w := httptest.NewRecorder()
	s.Config.API.LocalhostIsAdmin = true
	q.RemoteAddr, q.Host = "127.0.0.1:1", "localhost"
	h.ServeHTTP(w, q)
	if w.Code != 401 {
		t.Errorf("anonymous: %d", w.Code)
	}
	s, _ = open(t, func(c *server.Config) { c.API.LocalhostIsAdmin = true })
	if h, err = s.REST(c, nil); err != nil {
		t.Fatal(err)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, q)
	text := w.Body.String()
	if w.Code != 200 || strings.Contains(text, "hunter") {
		t.Errorf("%d %s", w.Code, text)
	}
	for _, want := range []string{`"password": "*****"`, `"passwordFile": "/run/password"`, `"secret": ""`, "postgres://atoll@db/atoll (password *****)", `"broken": "postgres://*****@db:port/atoll"`, `"localhostIsAdmin"`, `"enableIssuer": true`} {
		if !strings.Contains(text, want) {
			t.Errorf("without %s: %s", want, text)
		}
	}
}

func TestLogLevelsAtRunTime(t *testing.T) {
	s, _ := open(t, func(c *server.Config) { c.Log.Level = "error" })
	h := s.Diagnostics()
	do := func(method, path, body string, want int) string {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
		if w.Code != want {
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		return strings.Join(strings.Fields(w.Body.String()), "")
	}
	xds, kds := s.Component("xds").With("stream", 1), s.Component("kds")
	enabled := func() string {
		return fmt.Sprintf("%v %v %v", xds.Enabled(t.Context(), -4), kds.Enabled(t.Context(), -4), kds.Enabled(t.Context(), 8))
	}
	for _, step := range []struct{ method, path, body, answer, enabled string }{
		{"GET", "/logging", "", `{"components":{}}`, "false false true"},
		{"PUT", "/logging", `{"component":"xds","level":"debug"}`, `{"components":{"xds":"debug"}}`, "true false true"},
		{"PUT", "/logging", `{"component":"kds","level":"off"}`, `{"components":{"kds":"off","xds":"debug"}}`, "true false false"},
		{"DELETE", "/logging/xds", "", `{"components":{"kds":"off"}}`, "false false false"},
		{"DELETE", "/logging", "", `{"components":{}}`, "false false true"},
	} {
		if got := do(step.method, step.path, step.body, 200); got != step.answer || enabled() != step.enabled {
			t.Errorf("%s %s: %s %s", step.method, step.path, got, enabled())
		}
	}
	for body, want := range map[string]string{
		`{"component":"xds","level":"debgu"}`:                     `level:is"debgu";allowed:debug,info,warn,error,off;didyoumean"debug"?`,
		`{"level":"info"}`:                                        "component:cannotbeempty",
		`{"component":"` + strings.Repeat("x", 5000) + `"}`:       "atmost4096bytes",
		`{"component":"a","level":"info","more":1}`:               "unknownfield",
		`{"component":"a","level":"` + fmt.Sprint(5) + `"} extra`: "level:",
	} {
		if got := do("PUT", "/logging", body, 400); !strings.Contains(got, want) {
			t.Errorf("%.60s: %s", body, got)
		}
	}
}
