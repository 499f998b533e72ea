package rest_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/auth"
	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/rest"
)

// A trial judges as the write does, tells what it would do, and writes nothing.
func TestDryRun(t *testing.T) {
	p := newPlane(t, atZone)
	p.mesh("default")
	c := p.client(p.token)
	longer := strings.Replace(timeout("default", "t"), "30m", "40m", 1)
	writes := p.store.applied.Load()
	created, err := c.TryApply(t.Context(), []byte(timeout("default", "t")))
	if err != nil || created.Result != client.Created {
		t.Fatalf("%+v, %v", created, err)
	}
	if _, err := c.Get(t.Context(), api.MeshTimeouts, "default", "t"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if p.store.applied.Load() != writes {
		t.Error("a trial wrote")
	}

	p.want(201, "PUT", "/meshes/default/meshtimeouts/t?dryRun=false", timeout("default", "t"))
	stored, err := c.Get(t.Context(), api.MeshTimeouts, "default", "t")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, stored), tree(t, created.Document)); diff != "" {
		t.Errorf("what would be is not what is:\n%s", diff)
	}
	same, err := c.TryApply(t.Context(), []byte(timeout("default", "t")))
	if err != nil || same.Result != client.Unchanged || !cmp.Equal(tree(t, stored), tree(t, same.Document)) {
		t.Errorf("%+v, %v", same, err)
	}
	writes = p.store.applied.Load()
	updated, err := c.TryApply(t.Context(), []byte(longer))
	if err != nil || updated.Result != client.Updated || !strings.Contains(string(updated.Document), "40m") {
		t.Errorf("%+v, %v", updated, err)
	}
	deleted, err := c.TryDelete(t.Context(), api.MeshTimeouts, "default", "t")
	if err != nil || deleted.Result != client.Deleted || deleted.Also != 0 || !strings.Contains(string(deleted.Document), "30m") {
		t.Errorf("%+v, %v", deleted, err)
	}
	if whole, err := c.TryDelete(t.Context(), api.Meshes, "", "default"); err != nil || whole.Also == 0 {
		t.Errorf("%+v, %v", whole, err)
	}
	if p.store.applied.Load() != writes {
		t.Error("a trial wrote")
	}
	p.want(200, "GET", "/meshes/default/meshtimeouts/t", "")

	for _, refused := range []struct {
		status                   int
		method, path, body, want string
	}{
		{400, "PUT", "/meshes/default/meshtimeouts/t?dryRun=server", timeout("default", "t"), "dryRun"},
		{400, "DELETE", "/meshes/default/meshtimeouts/t?dryRun=server", "", "dryRun"},
		{400, "DELETE", "/meshes/default/meshtimeouts/t?dryRun", "", "dryRun"},
		{400, "DELETE", "/meshes/default/meshtimeouts/t?dryRun=false&dryRun=true", "", "dryRun"},
		{400, "DELETE", "/meshes/default/meshtimeouts/t?dryRun=true;x=y", "", "query"},
		{400, "PUT", "/meshes/default/meshtimeouts/t?dryRun=true", strings.Replace(longer, "spec", "spek", 1), "spek"},
		{404, "PUT", "/meshes/none/meshtimeouts/t?dryRun=true", timeout("none", "t"), "Mesh"},
		{404, "DELETE", "/meshes/default/meshtimeouts/none?dryRun=true", "", "Not found"},
	} {
		if r := p.want(refused.status, refused.method, refused.path, refused.body); !strings.Contains(r.text, refused.want) {
			t.Errorf("%s %s: %s", refused.method, refused.path, r.text)
		}
	}
	p.want(401, "PUT", "/meshes/default/meshtimeouts/t?dryRun=true", longer, anonymous)
}

// Who may write and not read learns from a trial no more than from a write.
func TestDryRunShowsNothingToWhoMayNotRead(t *testing.T) {
	readers := auth.Grant{Users: []string{auth.AdminName}}
	p := newPlane(t, atZone, writesForAll, func(o *rest.Options) { o.Access.ReadResources = readers })
	p.mesh("default")
	p.want(201, "PUT", "/meshes/default/meshtimeouts/t", timeout("default", "t"))
	for _, r := range []reply{
		p.want(200, "DELETE", "/meshes/default/meshtimeouts/t?dryRun=true", "", anonymous),
		p.want(200, "PUT", "/meshes/default/meshtimeouts/t?dryRun=true", timeout("default", "t"), anonymous),
	} {
		if strings.Contains(r.text, "document") || !strings.Contains(r.text, `"result"`) {
			t.Error(r.text)
		}
	}
}

// A control plane that does not know of trials would make the change.
func TestDryRunAsksOnlyThoseWhoKnowIt(t *testing.T) {
	other := newPlane(t, atZone, func(o *rest.Options) { o.Version = "" })
	other.mesh("default")
	if _, err := other.client(other.token).TryApply(t.Context(), []byte(timeout("default", "t"))); !errors.Is(err, client.ErrNoTrial) {
		t.Errorf("%v", err)
	}
	other.want(404, "GET", "/meshes/default/meshtimeouts/t", "")
}

func tree(t *testing.T, body json.RawMessage) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatal(err)
	}
	return out
}
