package auth_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/db"
	"github.com/atoll-mesh/atoll/api/store"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a database that tests put secrets into.
type world struct {
	t *testing.T
	*db.DB
}

func newWorld(t *testing.T) world { return world{t, db.New(api.Schema)} }

func (w world) put(records ...store.Record) {
	w.t.Helper()
	for _, r := range records {
		var body api.Secret
		if err := json.Unmarshal(r.Spec, &body); err != nil {
			w.t.Fatal(err)
		}
		w.secret(r.ID, body.Data, "")
	}
}

func (w world) secret(id api.ID, data []byte, source string) {
	w.t.Helper()
	_, err := w.Write(func(tx *db.Tx) error {
		k := api.Secrets
		if id.Kind == "GlobalSecret" {
			k = api.GlobalSecrets
		}
		k.PutObject(tx, &api.Object[api.Secret]{Meta: api.Meta{ID: id, Core: id.Name, Source: source}, Spec: api.Secret{Data: data}})
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w world) remove(id api.ID) {
	w.t.Helper()
	if _, err := w.Write(func(tx *db.Tx) error { api.Secrets.Remove(tx, id); api.GlobalSecrets.Remove(tx, id); return nil }); err != nil {
		w.t.Fatal(err)
	}
}

// key puts signing key n and returns it.
func (w world) key(token auth.Token, mesh string, n int) *rsa.PrivateKey {
	w.t.Helper()
	record, err := auth.SigningKeyRecord(token, mesh, n, api.Site{}, now)
	if err != nil {
		w.t.Fatal(err)
	}
	w.put(record)
	var body api.Secret
	if err := json.Unmarshal(record.Spec, &body); err != nil {
		w.t.Fatal(err)
	}
	block, _ := pem.Decode(body.Data)
	if block == nil || block.Type != "RSA PRIVATE KEY" {
		w.t.Fatalf("signing key %s is no PKCS#1 PEM", record.Name)
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil || key.N.BitLen() != 2048 {
		w.t.Fatalf("signing key %s: %v", record.Name, err)
	}
	return key
}

func global(name string) api.ID { return api.ID{Kind: "GlobalSecret", Name: name} }
func inMesh(mesh, name string) api.ID {
	return api.ID{Kind: "Secret", Mesh: mesh, Name: name}
}

func dataplane(name string, labels map[string]string) *api.Object[api.Dataplane] {
	return &api.Object[api.Dataplane]{Meta: api.Meta{ID: api.ID{Kind: "Dataplane", Mesh: "default", Name: name}, Labels: labels}}
}

func header(t *testing.T, token string) map[string]any {
	t.Helper()
	return part(t, token, 0)
}

func part(t *testing.T, token string, i int) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestIssuedTokensHaveTheNamesOfTheContract(t *testing.T) {
	w := newWorld(t)
	w.key(auth.UserToken, "", 1)
	w.key(auth.DataplaneToken, "default", 1)
	w.key(auth.ZoneToken, "", 1)
	user, err := auth.IssueUser(w.Snapshot(), now, auth.User{Name: "jane", Groups: []string{"team-a"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	dp, err := auth.IssueDataplane(w.Snapshot(), now, auth.DataplaneClaims{Mesh: "default"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	zone, err := auth.IssueZone(w.Snapshot(), now, auth.ZoneClaims{Zone: "east"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string][]string{
		user: {"Groups", "Name"}, dp: {"Mesh", "Name", "Tags", "Type", "Workload"}, zone: {"Scope", "Zone"},
	} {
		if h := header(t, token); h["alg"] != "RS256" || h["kid"] != "1" || h["typ"] != "JWT" || len(h) != 3 {
			t.Errorf("header %v", h)
		}
		claims := part(t, token, 1)
		var own []string
		for name := range claims {
			if !slices.Contains([]string{"jti", "iat", "nbf", "exp"}, name) {
				own = append(own, name)
			}
		}
		slices.Sort(own)
		if !slices.Equal(own, want) {
			t.Errorf("claims %v, want %v", own, want)
		}
		if claims["iat"] != float64(now.Unix()-5) || claims["nbf"] != claims["iat"] || claims["exp"] != float64(now.Unix()+3600) || claims["jti"] == "" {
			t.Errorf("registered claims %v", claims)
		}
	}
	v := auth.NewValidator(auth.Options{})
	got, err := v.ParseUser(w.Snapshot(), now, user)
	if err != nil || got.Name != "jane" || !slices.Equal(got.Groups, []string{"team-a", "mesh-system:authenticated"}) {
		t.Errorf("user %v, %v", got, err)
	}
	z, err := v.ParseZone(w.Snapshot(), now, zone)
	if err != nil || z.Check("east") != nil || z.Scope != nil {
		t.Errorf("zone %v, %v", z, err)
	}
	for _, other := range []string{"west", "", "East"} {
		if err := z.Check(other); !errors.Is(err, auth.ErrDenied) {
			t.Errorf("zone %q with the token of east: %v", other, err)
		}
	}
	if err := (auth.ZoneClaims{}).Check(""); !errors.Is(err, auth.ErrDenied) {
		t.Error("a token of no zone opened a zone without name")
	}
}

// sign makes any token, right or wrong.
func sign(t *testing.T, method jwt.SigningMethod, header map[string]any, claims map[string]any, key any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	for name, value := range header {
		if token.Header[name] = value; value == nil {
			delete(token.Header, name)
		}
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestHostileTokensAreRefused(t *testing.T) {
	w := newWorld(t)
	key := w.key(auth.DataplaneToken, "default", 1)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	private, _ := api.Secrets.Named(w.Snapshot(), "default", "dataplane-token-signing-key-default-1")
	public := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&key.PublicKey)})
	claims := map[string]any{"Mesh": "default", "exp": now.Unix() + 60, "jti": "a"}
	kid := map[string]any{"kid": "1"}
	with := func(name string, value any) map[string]any {
		out := map[string]any{name: value}
		for k, v := range claims {
			if k != name {
				out[k] = v
			}
		}
		return out
	}
	rs := jwt.SigningMethodRS256
	good := sign(t, rs, kid, claims, key)
	v := auth.NewValidator(auth.Options{})
	if _, err := v.ParseDataplane(w.Snapshot(), now, "default", good); err != nil {
		t.Fatalf("the good token: %v", err)
	}
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	for name, c := range map[string]struct {
		token string
		class error
		text  string
	}{
		"empty":         {"", auth.ErrInvalid, "could not parse token. "},
		"garbage":       {"garbage", auth.ErrInvalid, "could not parse token. "},
		"bearer":        {"Bearer " + good, auth.ErrInvalid, "could not parse token. "},
		"dots":          {"...", auth.ErrInvalid, "could not parse token. "},
		"unsigned":      {parts[0] + "." + parts[1] + ".", auth.ErrInvalid, "could not parse token. "},
		"null parts":    {b64([]byte("null")) + "." + b64([]byte("null")) + ".x", auth.ErrInvalid, "could not parse token. "},
		"list header":   {b64([]byte("[]")) + "." + parts[1] + "." + parts[2], auth.ErrInvalid, "could not parse token. "},
		"alg number":    {b64([]byte(`{"alg":1,"kid":"1"}`)) + "." + parts[1] + "." + parts[2], auth.ErrInvalid, "could not parse token. "},
		"huge":          {strings.Repeat("a", 1<<20), auth.ErrInvalid, "could not parse token. "},
		"alg none":      {sign(t, jwt.SigningMethodNone, kid, claims, jwt.UnsafeAllowNoneSignatureType), auth.ErrInvalid, "could not parse token. "},
		"HS256 private": {sign(t, jwt.SigningMethodHS256, kid, claims, private.Spec.Data), auth.ErrInvalid, "could not parse token. "},
		"HS256 public":  {sign(t, jwt.SigningMethodHS256, kid, claims, public), auth.ErrInvalid, "could not parse token. "},
		"RS512":         {sign(t, jwt.SigningMethodRS512, kid, claims, key), auth.ErrInvalid, "could not parse token. "},
		"PS256":         {sign(t, jwt.SigningMethodPS256, kid, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid absent":    {sign(t, rs, nil, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid number":    {sign(t, rs, map[string]any{"kid": 1}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid list":      {sign(t, rs, map[string]any{"kid": []string{"1"}}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid object":    {sign(t, rs, map[string]any{"kid": map[string]any{}}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid bool":      {sign(t, rs, map[string]any{"kid": true}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid empty":     {sign(t, rs, map[string]any{"kid": ""}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid path":      {sign(t, rs, map[string]any{"kid": "../1"}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid log":       {sign(t, rs, map[string]any{"kid": "1\nroot logged in"}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"kid unknown":   {sign(t, rs, map[string]any{"kid": "7"}, claims, key), auth.ErrNoKey, `there is no signing key with KID 7. Secret of name "dataplane-token-signing-key-default-7" in mesh "default" is not found. If signing key was rotated, regenerate the token`},
		"crit":          {sign(t, rs, map[string]any{"kid": "1", "crit": []string{"b64"}, "b64": false}, claims, key), auth.ErrInvalid, "could not parse token. "},
		"another key":   {sign(t, rs, kid, claims, other), auth.ErrInvalid, "could not parse token. "},
		"expired":       {sign(t, rs, kid, with("exp", now.Unix()-1), key), auth.ErrExpired, "could not parse token. "},
		"exp text":      {sign(t, rs, kid, with("exp", "soon"), key), auth.ErrInvalid, "could not parse token. "},
		"not yet":       {sign(t, rs, kid, with("nbf", now.Unix()+10), key), auth.ErrExpired, "token is not yet valid: "},
		"name number":   {sign(t, rs, kid, with("Name", 1), key), auth.ErrInvalid, "could not parse token. "},
		"tags list":     {sign(t, rs, kid, with("Tags", []string{"a"}), key), auth.ErrInvalid, "could not parse token. "},
		"jti object":    {sign(t, rs, kid, with("jti", map[string]any{}), key), auth.ErrInvalid, "could not parse token. "},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.ParseDataplane(w.Snapshot(), now, "default", c.token)
			if !errors.Is(err, c.class) || !strings.HasPrefix(err.Error(), c.text) {
				t.Errorf("got %v, want %v: %s…", err, c.class, c.text)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("the refusal can forge a log line: %q", err)
			}
		})
	}
	if _, err := v.ParseDataplane(w.Snapshot(), now, "other", good); !errors.Is(err, auth.ErrNoKey) {
		t.Errorf("token of another mesh: %v", err)
	}
	if _, err := v.ParseUser(w.Snapshot(), now, good); !errors.Is(err, auth.ErrNoKey) {
		t.Errorf("dataplane token as a user token: %v", err)
	}
}

func TestTokensWithoutExpOrIDAndWithOtherCaseAreAccepted(t *testing.T) {
	w := newWorld(t)
	key := w.key(auth.DataplaneToken, "default", 1)
	token := sign(t, jwt.SigningMethodRS256, map[string]any{"kid": "1"}, map[string]any{"name": "web", "MESH": "default"}, key)
	c, err := auth.NewValidator(auth.Options{}).ParseDataplane(w.Snapshot(), now, "default", token)
	if err != nil || c.Name != "web" || c.Mesh != "default" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestKeysRotate(t *testing.T) {
	w := newWorld(t)
	w.key(auth.DataplaneToken, "default", 2)
	w.key(auth.DataplaneToken, "default", 10)
	// A key of mesh default-99 would have this name; it is no key of default.
	w.secret(inMesh("default", "dataplane-token-signing-key-default-99-1"), []byte("x"), "")
	v := auth.NewValidator(auth.Options{})
	token, err := auth.IssueDataplane(w.Snapshot(), now, auth.DataplaneClaims{Mesh: "default"}, time.Hour)
	if err != nil || header(t, token)["kid"] != "10" {
		t.Fatalf("signed with %v, %v; want the highest number, 10", header(t, token), err)
	}
	if _, err := v.ParseDataplane(w.Snapshot(), now, "default", token); err != nil {
		t.Fatal(err)
	}
	w.remove(inMesh("default", "dataplane-token-signing-key-default-10"))
	if _, err := v.ParseDataplane(w.Snapshot(), now, "default", token); !errors.Is(err, auth.ErrNoKey) {
		t.Errorf("after the key was deleted: %v", err)
	}
	w.key(auth.DataplaneToken, "default", 10)
	if _, err := v.ParseDataplane(w.Snapshot(), now, "default", token); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("after the key was replaced by another of its number: %v", err)
	}
}

func TestKeyZeroHasNoNumber(t *testing.T) {
	w := newWorld(t)
	record, err := auth.SigningKeyRecord(auth.UserToken, "", 0, api.Site{}, now)
	if err != nil || record.Name != "user-token-signing-key" || record.Kind != "GlobalSecret" {
		t.Fatalf("%s, %v", record.ID, err)
	}
	w.put(record)
	token, err := auth.IssueUser(w.Snapshot(), now, auth.Admin(), time.Hour)
	if err != nil || header(t, token)["kid"] != "0" {
		t.Fatalf("%v, %v", header(t, token), err)
	}
	if _, err := auth.NewValidator(auth.Options{}).ParseUser(w.Snapshot(), now, token); err != nil {
		t.Error(err)
	}
}

func TestFormsOfKeys(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	token := sign(t, jwt.SigningMethodRS256, map[string]any{"kid": "3"}, map[string]any{"Name": "x"}, key)
	for name, c := range map[string]struct {
		data []byte
		ok   bool
	}{
		"PKCS#1 DER": {x509.MarshalPKCS1PrivateKey(key), true},
		"PKCS#8 PEM": {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), false},
		"PKCS#8 DER": {pkcs8, false},
		"empty":      {nil, false},
		"text":       {[]byte("hello"), false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.secret(global("user-token-signing-key-3"), c.data, "")
			_, err := auth.NewValidator(auth.Options{}).ParseUser(w.Snapshot(), now, token)
			if (err == nil) != c.ok || err != nil && !errors.Is(err, auth.ErrInvalid) {
				t.Errorf("%v", err)
			}
			if _, err := auth.IssueUser(w.Snapshot(), now, auth.Admin(), time.Hour); (err == nil) != c.ok {
				t.Errorf("issue: %v", err)
			}
		})
	}
}

func TestPublicKeys(t *testing.T) {
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	token := sign(t, jwt.SigningMethodRS256, map[string]any{"kid": "offline"}, map[string]any{}, key)
	v := auth.NewValidator(auth.Options{NoSecrets: []auth.Token{auth.UserToken, auth.DataplaneToken, auth.ZoneToken}, PublicKeys: []auth.PublicKey{
		{Token: auth.DataplaneToken, Mesh: "default", KID: "offline", Key: &key.PublicKey},
	}})
	if _, err := v.ParseDataplane(w.Snapshot(), now, "default", token); err != nil {
		t.Error(err)
	}
	if _, err := v.ParseDataplane(w.Snapshot(), now, "other", token); !errors.Is(err, auth.ErrNoKey) {
		t.Errorf("key of one mesh in another: %v", err)
	}
	if _, err := v.ParseZone(w.Snapshot(), now, token); !errors.Is(err, auth.ErrNoKey) {
		t.Errorf("key of dataplanes for zones: %v", err)
	}
}

func TestZonesHoldThePublicHalfOfZoneKeys(t *testing.T) {
	w := newWorld(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkix, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	w.secret(global("zone-token-signing-public-key-1"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}), api.Global)
	token := sign(t, jwt.SigningMethodRS256, map[string]any{"kid": "1"}, map[string]any{"Zone": "east"}, key)
	if c, err := auth.NewValidator(auth.Options{}).ParseZone(w.Snapshot(), now, token); err != nil || c.Zone != "east" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestDataplaneTokensHoldInAZoneWithTheKeyOfGlobal(t *testing.T) {
	up, down := newWorld(t), newWorld(t)
	up.key(auth.DataplaneToken, "default", 1)
	secret, _ := api.Secrets.Named(up.Snapshot(), "default", "dataplane-token-signing-key-default-1")
	down.secret(secret.ID, secret.Spec.Data, api.Global)
	token, err := auth.IssueDataplane(up.Snapshot(), now, auth.DataplaneClaims{Mesh: "default"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewValidator(auth.Options{}).ParseDataplane(down.Snapshot(), now, "default", token); err != nil {
		t.Error(err)
	}
}

func TestRevocation(t *testing.T) {
	w := newWorld(t)
	key := w.key(auth.DataplaneToken, "default", 1)
	token := func(id string) string {
		return sign(t, jwt.SigningMethodRS256, map[string]any{"kid": "1"}, map[string]any{"jti": id}, key)
	}
	v := auth.NewValidator(auth.Options{})
	check := func(id string, want error) {
		t.Helper()
		if _, err := v.ParseDataplane(w.Snapshot(), now, "default", token(id)); !errors.Is(err, want) {
			t.Errorf("jti %q: %v, want %v", id, err, want)
		}
	}
	check("a", nil)
	w.secret(global("dataplane-token-revocations-default"), []byte("a,c\n"), "")
	check("a", auth.ErrRevoked)
	check("b", nil)
	check("c", auth.ErrRevoked)
	check("", nil)
	w.secret(global("dataplane-token-revocations-default"), []byte("b"), "")
	check("a", nil)
	check("b", auth.ErrRevoked)
}

func TestDataplaneChecks(t *testing.T) {
	tag := func(values ...string) map[string][]string { return map[string][]string{"k": values} }
	workload := map[string]string{api.LabelWorkload: "a"}
	for _, c := range []struct {
		claims auth.DataplaneClaims
		labels map[string]string
		bound  bool
		want   string
	}{
		{claims: auth.DataplaneClaims{}},
		{claims: auth.DataplaneClaims{Name: "web", Mesh: "default"}},
		{claims: auth.DataplaneClaims{Name: "b"}, want: "proxy name from requestor: web is different than in token: b"},
		{claims: auth.DataplaneClaims{Mesh: "b"}, want: "proxy mesh from requestor: default is different than in token: b"},
		{claims: auth.DataplaneClaims{Tags: tag("a")}, want: `dataplane has no tag "k" required by the token`},
		{claims: auth.DataplaneClaims{Tags: tag("a")}, labels: map[string]string{"k": "v"}, want: `dataplane contains tag "k" with value "v" which is not allowed with this token. Allowed values in token are ["a"]`},
		{claims: auth.DataplaneClaims{Tags: tag("a", "v")}, labels: map[string]string{"k": "v"}},
		{claims: auth.DataplaneClaims{Workload: "a"}, labels: workload, bound: true},
		{claims: auth.DataplaneClaims{Workload: "b"}, labels: workload, want: `dataplane workload "a" is not allowed with this token. Allowed workload in token is "b"`},
		{claims: auth.DataplaneClaims{Name: "web"}, labels: workload, bound: true, want: `dataplane with "kuma.io/workload" label "a" derives its identity from the workload, so it requires a workload-bound token`},
		{claims: auth.DataplaneClaims{Name: "web"}, labels: workload},
	} {
		err := c.claims.Check(dataplane("web", c.labels), c.bound)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !errors.Is(err, auth.ErrDenied)) {
			t.Errorf("%+v: %v, want %q", c.claims, err, c.want)
		}
	}
}

func TestAThousandTokensParseTheirKeyOnce(t *testing.T) {
	w := newWorld(t)
	w.key(auth.DataplaneToken, "default", 1)
	w.secret(global("dataplane-token-revocations-default"), []byte("x"), "")
	token, err := auth.IssueDataplane(w.Snapshot(), now, auth.DataplaneClaims{Mesh: "default"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	v := auth.NewValidator(auth.Options{})
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			for range 100 {
				if _, err := v.ParseDataplane(w.Snapshot(), now, "default", token); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := v.Parsed(); got != 2 {
		t.Errorf("parsed %d times, want 2: the key and the revocation list", got)
	}
}

func TestNoKeyToSignWith(t *testing.T) {
	w := newWorld(t)
	_, err := auth.IssueDataplane(w.Snapshot(), now, auth.DataplaneClaims{Mesh: "nowhere"}, time.Hour)
	if !errors.Is(err, auth.ErrNoKey) || !strings.Contains(err.Error(), `KID 1. Secret of name "dataplane-token-signing-key-nowhere-1" in mesh "nowhere" is not found`) {
		t.Error(err)
	}
}

func TestAccessDefaults(t *testing.T) {
	a := auth.DefaultAccess()
	member := auth.User{Name: "jane", Groups: []string{"team-a", auth.GroupAuthenticated}}
	for _, c := range []struct {
		grant                 auth.Grant
		admin, member, nobody bool
	}{
		{a.ReadResources, true, true, false},
		{a.WriteResources, true, true, false},
		{a.AdminResources, true, false, false},
		{a.GenerateDpToken, true, false, false},
		{a.GenerateUserToken, true, false, false},
		{a.GenerateZoneToken, true, false, false},
		{a.ViewConfigDump, true, true, true},
		{a.ViewStats, true, true, true},
		{a.ViewClusters, true, true, true},
		{a.ControlPlaneMetadata, true, true, true},
	} {
		got := fmt.Sprint(c.grant.Allows(auth.Admin()), c.grant.Allows(member), c.grant.Allows(auth.Anonymous()))
		if want := fmt.Sprint(c.admin, c.member, c.nobody); got != want {
			t.Errorf("%+v: %s, want %s", c.grant, got, want)
		}
	}
	err := a.AdminResources.Resource(auth.User{Name: "name", Groups: []string{"group1", "group2"}}, "Secret")
	if err == nil || err.Error() != `user "name/group1,group2" cannot access the resource of type "Secret"` {
		t.Error(err)
	}
}

// allKeys is a database with one signing key for tokens of each sort.
func allKeys(f *testing.F) (*db.DB, *rsa.PrivateKey) {
	f.Helper()
	d := db.New(api.Schema)
	record, err := auth.SigningKeyRecord(auth.UserToken, "", 1, api.Site{}, now)
	if err != nil {
		f.Fatal(err)
	}
	var body api.Secret
	if err := json.Unmarshal(record.Spec, &body); err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(body.Data)
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		f.Fatal(err)
	}
	_, err = d.Write(func(tx *db.Tx) error {
		for _, id := range []api.ID{
			{Kind: "GlobalSecret", Name: "user-token-signing-key-1"}, {Kind: "GlobalSecret", Name: "zone-token-signing-key-1"},
			{Kind: "Secret", Mesh: "default", Name: "dataplane-token-signing-key-default-1"},
		} {
			kind := api.GlobalSecrets
			if id.Mesh != "" {
				kind = api.Secrets
			}
			kind.PutObject(tx, &api.Object[api.Secret]{Meta: api.Meta{ID: id, Core: id.Name}, Spec: body})
		}
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	return d, key
}

// FuzzToken lets a stranger show anything: without a signature it is no token of
// any sort.
func FuzzToken(f *testing.F) {
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	f.Add("a.b.c")
	f.Add(b64(`{"alg":"RS256","kid":"1"}`) + "." + b64(`{"Name":"x","exp":1e308}`) + ".AAAA")
	f.Add(b64(`{"alg":"RS256","kid":{"a":[1]}}`) + "." + b64(`{"exp":"x"}`) + ".AAAA")
	f.Add(b64(`{"alg":null,"kid":"1"}`) + "." + b64(`[]`) + ".")
	d, _ := allKeys(f)
	v := auth.NewValidator(auth.Options{})
	f.Fuzz(func(t *testing.T, token string) {
		_, user := v.ParseUser(d.Snapshot(), now, token)
		_, zone := v.ParseZone(d.Snapshot(), now, token)
		_, dataplane := v.ParseDataplane(d.Snapshot(), now, "default", token)
		if user == nil || zone == nil || dataplane == nil {
			t.Errorf("accepted %q: %v, %v, %v", token, user, zone, dataplane)
		}
	})
}

// FuzzClaims signs anything with the right key, as an issuer elsewhere may. What
// is taken is good for what it says, and for nothing else.
func FuzzClaims(f *testing.F) {
	for _, seed := range []string{
		`{"Name":"web","Mesh":"default","Tags":{"app":["web"]},"Type":"","Workload":"w"}`, `{"Zone":"east","Scope":["cp"]}`, `{"Name":"jane","Groups":["a"]}`,
		`{"name":"web","MESH":"other","tags":null}`, `{"zone":""}`, `{"exp":1e308,"nbf":-1,"iat":"x"}`, `{"Tags":{"app":[]}}`, `{"Groups":7}`, `[]`, `null`, `{"jti":"\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	d, key := allKeys(f)
	v := auth.NewValidator(auth.Options{})
	head := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"1"}`))
	dp := &api.Object[api.Dataplane]{Meta: api.Meta{ID: api.ID{Kind: "Dataplane", Mesh: "default", Name: "web"}, Labels: map[string]string{"app": "web"}}}
	sign := func(t testing.TB, claims []byte) string {
		text := head + "." + base64.RawURLEncoding.EncodeToString(claims)
		sum := sha256.Sum256([]byte(text))
		signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	if z, err := v.ParseZone(d.Snapshot(), now, sign(f, []byte(`{"zone":"east"}`))); err != nil || z.Check("east") != nil {
		f.Fatalf("%+v, %v", z, err)
	}
	if c, err := v.ParseDataplane(d.Snapshot(), now, "default", sign(f, []byte(`{"name":"web"}`))); err != nil || c.Check(dp, false) != nil {
		f.Fatalf("%+v, %v", c, err)
	}
	f.Fuzz(func(t *testing.T, claims []byte) {
		token := sign(t, claims)
		if u, err := v.ParseUser(d.Snapshot(), now, token); err == nil && !slices.Contains(u.Groups, auth.GroupAuthenticated) {
			t.Errorf("%q: user %+v", claims, u)
		}
		if z, err := v.ParseZone(d.Snapshot(), now, token); err == nil && (z.Check("") == nil || (z.Check("east") == nil) != (z.Zone == "east")) {
			t.Errorf("%q: zone %+v", claims, z)
		}
		c, err := v.ParseDataplane(d.Snapshot(), now, "default", token)
		if err != nil || c.Check(dp, false) != nil {
			return
		}
		if c.Name != "" && c.Name != "web" || c.Mesh != "" && c.Mesh != "default" || c.Workload != "" {
			t.Errorf("%q: admitted with %+v", claims, c)
		}
		for tag, values := range c.Tags {
			if tag != "app" || !slices.Contains(values, "web") {
				t.Errorf("%q: admitted with %+v", claims, c)
			}
		}
	})
}
