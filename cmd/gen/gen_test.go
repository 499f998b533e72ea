package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/atoll-mesh/atoll/api"
)

// TestCurrent fails when a generated file is not what gen would write now.
func TestCurrent(t *testing.T) {
	const root = "../.."
	docs, err := comments(filepath.Join(root, "api"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := generated(root)
	if err != nil {
		t.Fatal(err)
	}
	files["api/docs.json"] = docs
	for path, want := range files {
		if got, err := os.ReadFile(filepath.Join(root, path)); err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not current: make generate", path)
		}
	}
	for _, dir := range []string{"deploy/crds", "deploy/reference"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if _, made := files[filepath.ToSlash(rel)]; !made {
				t.Errorf("nothing makes %s: make generate", rel)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestComments fails for what people write and no comment explains.
func TestComments(t *testing.T) {
	for _, k := range api.Kinds {
		if !k.Info().ReadOnly {
			explained(t, k.Info().Name, k.Shape())
		}
	}
}

func explained(t *testing.T, path string, s *api.Shape) {
	for s.Elem != nil {
		s = s.Elem
	}
	if s.Fields != nil && s.Doc == "" {
		t.Errorf("%s: the struct has no comment", path)
	}
	for _, f := range s.Fields {
		if f.Doc == "" {
			t.Errorf("%s.%s has no comment", path, f.Name)
		}
		explained(t, path+"."+f.Name, f.Shape)
	}
}
