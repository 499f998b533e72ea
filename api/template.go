package api

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"
)

// Templates come from users of every zone and run in every control plane, so
// what could make a short text long or slow (loops, templates that call each
// other, widths of printf, js that doubles each backslash) is not available:
// names, labels, conditions and comparisons are.

// render executes a template over named texts; `label "k"` is a label, and an
// error when it is absent, as is a name that does not exist.
func render(text string, labels, vars map[string]string) (string, error) {
	t, err := parseTemplate(text)
	if err != nil {
		return "", err
	}
	return execute(t, labels, vars)
}

// execute renders a template that was parsed before, for one thing.
func execute(t *template.Template, labels, vars map[string]string) (string, error) {
	t.Funcs(template.FuncMap{"label": func(key string) (string, error) {
		if v, ok := labels[key]; ok {
			return v, nil
		}
		return "", fmt.Errorf("there is no label %q", key)
	}})
	var out strings.Builder
	if err := t.Execute(&out, vars); err != nil {
		return "", err
	}
	return out.String(), nil
}

// parseTemplate accepts any label: which there are is known when it is executed.
func parseTemplate(text string) (*template.Template, error) {
	if len(text) > 1024 {
		return nil, errors.New("longer than 1024 bytes")
	}
	anyLabel := func(string) string { return "x" }
	t, err := template.New("").Option("missingkey=error").Funcs(template.FuncMap{"label": anyLabel}).Parse(text)
	if err != nil {
		return nil, err
	}
	if t.Tree == nil {
		return nil, errors.New("there is no text")
	}
	return t, checkNode(t.Root)
}

func checkNode(n parse.Node) error {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil { // an if without else
			return nil
		}
		return checkNodes(n.Nodes)
	case *parse.ActionNode:
		return checkNode(n.Pipe)
	case *parse.IfNode:
		return errors.Join(checkNode(n.Pipe), checkNode(n.List), checkNode(n.ElseList))
	case *parse.PipeNode:
		if len(n.Decl) > 0 {
			return errors.New("variables are not available")
		}
		return checkNodes(n.Cmds)
	case *parse.CommandNode:
		return checkNodes(n.Args)
	case *parse.IdentifierNode:
		switch n.Ident {
		case "label", "eq", "ne", "and", "or", "not":
			return nil
		}
	case *parse.TextNode, *parse.CommentNode, *parse.FieldNode, *parse.StringNode, *parse.BoolNode:
		return nil
	}
	return fmt.Errorf("%s is not available", n)
}

func checkNodes[N parse.Node](nodes []N) error {
	for _, n := range nodes {
		if err := checkNode(n); err != nil {
			return err
		}
	}
	return nil
}

// checkTemplate notes why a template cannot work: its syntax, and names that it
// will not be given. Labels are not known yet, so that any is accepted.
func checkTemplate(text string, vars []string, r *Report) (rendered string, ok bool) {
	t, err := parseTemplate(text)
	if err != nil {
		r.Add("must be a Go template: %v", err)
		return "", false
	}
	stub := map[string]string{}
	for _, name := range vars {
		stub[name] = "x"
	}
	var out strings.Builder
	if err := t.Execute(&out, stub); err != nil {
		r.Add("cannot be rendered: %v; known here: .%s and label \"key\"", err, strings.Join(vars, ", ."))
		return "", false
	}
	return out.String(), true
}
