package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/atoll-mesh/atoll"

// layers are the packages from the bottom up: an import may only go down, or to
// what is listed beside it.
var layers = []struct {
	name     string
	packages []string // a trailing * stands for what is below
}{
	{"foundations", []string{"api/db", "kds/delta", "xds/ir"}},
	{"model", []string{"api", "api/store", "api/incr", "xds/wire", "kds/kdspb", "kds/kdspb/*"}},
	{"meaning", []string{"xds/envoy", "xds/plan", "xds/bootstrap", "api/policy", "api/store/*", "api/auth", "api/lease", "api/client", "api/hostname", "api/openapi", "kds/peers", "deploy/*"}},
	{"services", []string{"kds", "xds", "api/rest", "api/inspect", "api/server", "zone/*", "global/*"}},
	{"assembly", []string{"global", "zone"}},
	{"binaries", []string{"cmd/*", "e2e", "e2e/*"}},
}

// beside lists imports within one layer that are meant.
var beside = map[string][]string{
	"api/store":     {"api"},
	"api/incr":      {"api"},
	"kds/kdspb":     {"api", "kds/kdspb/systempb"},
	"xds/plan":      {"xds/envoy", "xds/bootstrap", "api/policy"}, // bootstrap: where sockets are
	"api/inspect":   {"api/rest"},
	"api/server":    {"api/rest"},
	"xds/bootstrap": {"xds/envoy"}, // the name of the runtime flag that permissions rely on
	"zone/status":   {"xds"},       // it enters what the discovery server reports
	"zone/derive":   {"zone/duty"}, // its loop
	"zone/identity": {"zone/duty"},
	"zone/proxy":    {"zone/proxy/metrics"}, // a part of it that stands alone
}

func layerOf(pkg string) int {
	best, at := -1, -1
	for i, l := range layers {
		for _, p := range l.packages {
			base, wild := strings.CutSuffix(p, "/*")
			switch {
			case p == pkg:
				return i
			case wild && strings.HasPrefix(pkg, base+"/") && len(base) > best:
				best, at = len(base), i
			}
		}
	}
	return at
}

// source is one Go file of the module.
type source struct {
	path, pkg string
	test      bool
	file      *ast.File
	fset      *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	root := ".."
	var out []source
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			name := d.Name()
			if rel != "." && strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && rel != "." {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, source{rel, filepath.ToSlash(filepath.Dir(rel)), strings.HasSuffix(path, "_test.go"), f, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func imports(f *ast.File) []string {
	var out []string
	for _, i := range f.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

func TestHouseRules(t *testing.T) {
	all := sources(t)
	t.Run("imports go down", func(t *testing.T) {
		for _, s := range all {
			if s.test {
				continue
			}
			from := layerOf(s.pkg)
			if from < 0 {
				t.Errorf("%s: package %s is in no layer: add it to the table, low", s.path, s.pkg)
				continue
			}
			for _, path := range imports(s.file) {
				pkg, ours := strings.CutPrefix(path, module+"/")
				if !ours {
					continue
				}
				to := layerOf(pkg)
				if to > from || to == from && !slices.Contains(beside[s.pkg], pkg) && layers[from].name != "binaries" {
					t.Errorf("%s (%s) imports %s (%s): move what it needs down, or let the upper one call", s.path, layers[from].name, pkg, layers[max(to, 0)].name)
				}
			}
		}
	})
	t.Run("package comments", func(t *testing.T) {
		said := map[string]bool{}
		for _, s := range all {
			said[s.pkg] = said[s.pkg] || s.file.Doc != nil && !s.test || s.file.Doc != nil && s.pkg == "e2e"
		}
		for pkg, ok := range said {
			if !ok {
				t.Errorf("package %s says nothing: what it owns, who may call it, what it never does, and why", pkg)
			}
		}
	})
	t.Run("Envoy's config types stay in their packages", func(t *testing.T) {
		const config = "github.com/envoyproxy/go-control-plane/envoy/"
		for _, s := range all {
			for _, path := range imports(s.file) {
				rest, ok := strings.CutPrefix(path, config)
				if !ok || s.pkg == "e2e" || strings.HasPrefix(s.pkg, "e2e/") {
					continue
				}
				discovery := strings.HasPrefix(rest, "service/discovery/") || rest == "config/core/v3" // the node of a discovery request
				allowed := []string{"xds/envoy", "xds/wire", "xds/bootstrap"}
				if discovery {
					allowed = append(allowed, "kds", "kds/kdspb", "xds", "zone/status", "zone")
				}
				if !slices.Contains(allowed, s.pkg) && !s.test {
					t.Errorf("%s imports %s: decide in xds/ir and let xds/envoy build it", s.path, path)
				}
			}
		}
	})
	t.Run("no sleep, no init, no alias of ours", func(t *testing.T) {
		bubbles := map[string]bool{}
		for _, s := range all {
			if s.test && slices.Contains(imports(s.file), "testing/synctest") {
				bubbles[s.pkg] = true
			}
		}
		for _, s := range all {
			generated := ast.IsGenerated(s.file)
			// In a bubble of testing/synctest a sleep is how fake time passes.
			fakeTime := s.test && bubbles[s.pkg]
			for _, i := range s.file.Imports {
				if i.Name != nil && strings.HasPrefix(strings.Trim(i.Path.Value, `"`), module) && i.Name.Name != "_" {
					t.Errorf("%s gives %s another name: a package has one", s.path, i.Path.Value)
				}
			}
			ast.Inspect(s.file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Name.Name == "init" && n.Recv == nil && !generated {
						t.Errorf("%s has an init function: write a constructor, or a literal", s.path)
					}
				case *ast.SelectorExpr:
					x, ok := n.X.(*ast.Ident)
					if ok && x.Name == "time" && n.Sel.Name == "Sleep" && !fakeTime {
						t.Errorf("%s sleeps: wait for what happens, or use fake time", s.fset.Position(n.Pos()))
					}
				}
				return true
			})
		}
	})
	t.Run("names", func(t *testing.T) {
		vague := regexp.MustCompile(`(Manager|Helper|Util|Utils|Impl)$|^(Base|Common)[A-Z]?`)
		for _, s := range all {
			if ast.IsGenerated(s.file) {
				continue
			}
			for _, d := range s.file.Decls {
				g, ok := d.(*ast.GenDecl)
				if !ok || g.Tok != token.TYPE {
					continue
				}
				for _, spec := range g.Specs {
					if name := spec.(*ast.TypeSpec).Name.Name; vague.MatchString(name) {
						t.Errorf("%s: type %s says nothing of what it is", s.path, name)
					}
				}
			}
		}
	})
	t.Run("top level", func(t *testing.T) {
		entries, err := os.ReadDir("..")
		if err != nil {
			t.Fatal(err)
		}
		allowed := []string{"cmd", "global", "zone", "kds", "xds", "api", "deploy", "e2e", "go.mod", "go.sum", "README.md", "LICENSE", "Makefile", "CHANGELOG.md", "bin"}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
				t.Errorf("%s does not belong at the top level", e.Name())
			}
		}
	})
	t.Run("nothing left over", func(t *testing.T) {
		left := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
		for _, s := range all {
			for _, c := range s.file.Comments {
				if left.MatchString(c.Text()) {
					t.Errorf("%s: finish it, or say why it is as it is", s.fset.Position(c.Pos()))
				}
			}
		}
	})
}
