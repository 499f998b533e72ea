package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// comments returns the comments of the structs in a directory and of their
// fields, by Type and Type.Field, as JSON.
func comments(dir string) ([]byte, error) {
	docs, err := structComments(dir)
	if err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(docs, "", " ")
	return append(out, '\n'), err
}

func structComments(dir string) (map[string]string, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	docs := map[string]string{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				t, ok := s.(*ast.TypeSpec)
				if !ok {
					continue
				}
				st, ok := t.Type.(*ast.StructType)
				if !ok {
					continue
				}
				note(docs, t.Name.Name, t.Doc, g.Doc)
				fieldComments(docs, t.Name.Name, st)
			}
		}
	}
	return docs, nil
}

// fieldComments notes the comments of fields. One that stands above several
// fields without a blank line between them is about the first only.
func fieldComments(docs map[string]string, of string, st *ast.StructType) {
	for _, f := range st.Fields.List {
		if f.Tag == nil || !strings.Contains(f.Tag.Value, `json:"`) {
			continue
		}
		for _, name := range f.Names {
			note(docs, of+"."+name.Name, f.Doc, f.Comment)
		}
	}
}

// note keeps the first comment that says something, as one line a paragraph.
func note(docs map[string]string, name string, groups ...*ast.CommentGroup) {
	for _, g := range groups {
		if g == nil {
			continue
		}
		var paragraphs []string
		for p := range strings.SplitSeq(strings.TrimSpace(g.Text()), "\n\n") {
			paragraphs = append(paragraphs, strings.Join(strings.Fields(p), " "))
		}
		if text := strings.Join(paragraphs, "\n"); text != "" {
			docs[name] = text
			return
		}
	}
}
