package main

import (
	"cmp"
	"slices"

	"go.yaml.in/yaml/v2"
)

// shownOnly are members that the API adds to what was written: they are read,
// never written.
var shownOnly = []string{"creationTime", "modificationTime", "kri", "snis", "status"}

// firstMembers begin a document, in this order.
var firstMembers = []string{"type", "mesh", "name", "labels"}

// normal renders a resource as it would be written: without what the API adds,
// members in one order, so that texts can be compared.
func normal(body []byte) (string, error) {
	var tree yaml.MapSlice // JSON is YAML
	if err := yaml.Unmarshal(body, &tree); err != nil {
		return "", err
	}
	return normalTree(tree)
}

func normalTree(tree yaml.MapSlice) (string, error) {
	tree = slices.DeleteFunc(tree, func(m yaml.MapItem) bool {
		name, _ := m.Key.(string)
		return slices.Contains(shownOnly, name)
	})
	for i := range tree {
		order(tree[i].Value)
	}
	slices.SortStableFunc(tree, func(a, b yaml.MapItem) int {
		return cmp.Or(cmp.Compare(place(a.Key), place(b.Key)), byName(a, b))
	})
	text, err := yaml.Marshal(tree)
	return string(text), err
}

// place is the place of a member among those that come first.
func place(key any) int {
	name, _ := key.(string)
	if i := slices.Index(firstMembers, name); i >= 0 {
		return i
	}
	return len(firstMembers)
}

func byName(a, b yaml.MapItem) int {
	x, _ := a.Key.(string)
	y, _ := b.Key.(string)
	return cmp.Compare(x, y)
}

// order sorts the members of all objects below a value by name.
func order(value any) {
	switch value := value.(type) {
	case yaml.MapSlice:
		for i := range value {
			order(value[i].Value)
		}
		slices.SortStableFunc(value, byName)
	case []any:
		for i := range value {
			order(value[i])
		}
	}
}
