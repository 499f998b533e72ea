// Command gen writes what is generated from the sources: the comments that
// package api shows, custom resource definitions, JSON schemas, and the
// reference of kinds, commands and configuration.
//
// It is the only generator, run as `make generate`, and the only thing that
// reads Go sources as data. Nothing imports it; its test fails when a generated
// file is not what it would write.
//
//	api/*.go ─▶ api/docs.json ─▶ api.Kinds ─┬▶ deploy/crds/*.yaml
//	                                        ├▶ deploy/reference/kinds.md, openapi.json, schema/*.json
//	{zone,global,api/server}/config.go ─────┼▶ deploy/reference/configuration.md
//	atoll reference ────────────────────────┴▶ deploy/reference/commands.md
//
// # Why
//
// Comments are lost in a binary, so they are kept in one small file that is
// embedded; everything else follows from values of the running program. A
// change of comments therefore takes effect at the second step: gen writes
// docs.json first and builds itself anew for the rest.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	root := flag.String("root", ".", "the module's directory")
	rest := flag.Bool("rest", false, "all but the comments, which are in this program already")
	flag.Parse()
	if err := run(*root, *rest); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(root string, rest bool) error {
	if !rest {
		docs, err := comments(filepath.Join(root, "api"))
		if err != nil {
			return err
		}
		if err := write(root, map[string][]byte{"api/docs.json": docs}); err != nil {
			return err
		}
		again := exec.Command("go", "run", "./cmd/gen", "-rest")
		again.Dir, again.Stdout, again.Stderr = root, os.Stdout, os.Stderr
		return again.Run()
	}
	files, err := generated(root)
	if err != nil {
		return err
	}
	for _, dir := range []string{"deploy/crds", "deploy/reference"} {
		if err := os.RemoveAll(filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	return write(root, files)
}

// generated is every file but docs.json, by its path in the module.
func generated(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	if err := definitions(files); err != nil {
		return nil, err
	}
	files["deploy/reference/kinds.md"] = kindReference()
	paths, err := description()
	if err != nil {
		return nil, err
	}
	files["deploy/reference/openapi.json"] = paths
	settings, err := settingReference(root)
	if err != nil {
		return nil, err
	}
	files["deploy/reference/configuration.md"] = settings
	commands := exec.Command("go", "run", "./cmd/atoll", "reference")
	commands.Dir, commands.Stderr = root, os.Stderr
	if files["deploy/reference/commands.md"], err = commands.Output(); err != nil {
		return nil, fmt.Errorf("atoll reference: %w", err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	for _, page := range []string{"commands.md", "configuration.md"} { // defaults are below whoever's home
		page = "deploy/reference/" + page
		files[page] = bytes.ReplaceAll(files[page], []byte(filepath.Join(home, ".atoll")), []byte("~/.atoll"))
	}
	return files, nil
}

// write writes the files, except those that are as they should be.
func write(root string, files map[string][]byte) error {
	for path, content := range files {
		path = filepath.Join(root, filepath.FromSlash(path))
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
