package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/rest"
	"github.com/atoll-mesh/atoll/xds/plan"
)

// document is a resource that the user wrote, and where.
type document struct {
	// Origin is file:line.
	Origin string
	// Body is the document as JSON.
	Body []byte
	api.Document
	Kind api.AnyKind
	// broken says why it is no YAML.
	broken error
}

func (d *document) String() string {
	if d.Mesh != "" {
		return fmt.Sprintf("%s %s/%s", d.Type, d.Mesh, d.Name)
	}
	return d.Type + " " + d.Name
}

// source is a text with documents.
type source struct{ name, text string }

const (
	maxSource    = 64 << 20
	fetchTimeout = 30 * time.Second
)

// written is what the user names as documents.
type written struct {
	paths     []string
	variables map[string]string
	recursive bool
	// input names what - reads; empty: standard input.
	input string
}

// bind adds the flags; usage says what becomes of the documents.
func (w *written) bind(command *cobra.Command, usage string) {
	fs := command.Flags()
	fs.StringArrayVarP(&w.paths, "file", "f", nil, usage+": file, directory, URL, or - for standard input (repeatable)")
	fs.BoolVarP(&w.recursive, "recursive", "R", true, "of a directory read also what is below it")
	pairs(fs, &w.variables, "var", "v", "`name=value` for {{ name }} in the documents (repeatable)")
}

// read reads all documents of files, directories, URLs and standard input (-),
// what others refer to first. The error holds every fault of every document.
func (w *written) read(ctx context.Context, in io.Reader) ([]document, error) {
	paths, variables := w.paths, w.variables
	var sources []source
	var faults []error
	for _, path := range paths {
		found, err := w.sources(ctx, path, in)
		if err != nil {
			faults = append(faults, err)
		}
		sources = append(sources, found...)
	}
	used := map[string]bool{}
	var documents []document
	for _, s := range sources {
		documents = append(documents, split(source{s.name, replaceVariables(s.text, variables, used)})...)
	}
	if len(documents) == 0 && len(faults) == 0 {
		faults = append(faults, fmt.Errorf("there is no document in %s", strings.Join(paths, ", ")))
	}
	seen := map[string]string{}
	for i := range documents {
		d := &documents[i]
		faults = append(faults, d.faults()...)
		key := d.Type + "\x00" + d.Mesh + "\x00" + d.Name
		if other, twice := seen[key]; twice && d.Name != "" {
			faults = append(faults, fmt.Errorf("%s: %s: is also in %s; only one of them can be meant", d.Origin, d, other))
		}
		seen[key] = d.Origin
	}
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		if !used[name] {
			faults = append(faults, fmt.Errorf("variable %q (-v) is used nowhere: documents refer to it as {{ %s }}", name, name))
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	arrange(documents)
	return documents, nil
}

// arrange puts what others refer to first, and the keys of user tokens last, the
// oldest at the very end: with them ends the right of the token in use, which a
// control plane that is restored signed with its first key.
func arrange(documents []document) {
	order := map[string]int{}
	for i, k := range api.Kinds {
		order[k.Info().Name] = i
	}
	key := func(d document) int {
		serial, is := strings.CutPrefix(d.Name, "user-token-signing-key-")
		if !is || d.Type != api.GlobalSecrets.Name {
			return -math.MaxInt
		}
		n, _ := strconv.Atoi(serial) // of another make: 0
		return -n
	}
	slices.SortStableFunc(documents, func(a, b document) int {
		return cmp.Or(cmp.Compare(key(a), key(b)), order[a.Type]-order[b.Type])
	})
}

func (w *written) sources(ctx context.Context, path string, in io.Reader) ([]source, error) {
	if path == "-" {
		body, err := io.ReadAll(in)
		return []source{{cmp.Or(w.input, "standard input"), string(body)}}, err
	}
	if strings.HasPrefix(path, "http://") || strings.HasPrefix(path, "https://") {
		body, err := fetch(ctx, path)
		return []source{{path, body}}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		body, err := os.ReadFile(path)
		return []source{{path, string(body)}}, err
	}
	var found []source
	err = filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if at != path && (!w.recursive || strings.HasPrefix(e.Name(), ".")) {
				return fs.SkipDir // .git and the like
			}
			return nil
		}
		switch filepath.Ext(at) {
		case ".yaml", ".yml", ".json":
			body, err := os.ReadFile(at)
			found = append(found, source{at, string(body)})
			return err
		}
		return nil
	})
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s: no *.yaml, *.yml or *.json in this directory", path)
		if !w.recursive {
			err = fmt.Errorf("%w; what is below it is not read without --recursive", err)
		}
	}
	return found, err
}

func fetch(ctx context.Context, address string) (string, error) {
	limited, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		// Not wrapped: what helps with a control plane does not help here.
		return "", fmt.Errorf("%s: %v", address, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: the server answers %s", address, answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxSource+1))
	if err == nil && len(body) > maxSource {
		err = fmt.Errorf("larger than %d bytes", maxSource)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", address, err)
	}
	return string(body), nil
}

// replaceVariables replaces {{ name }} of the names that the user gave. What else
// is in braces stays: templates of host names look the same.
func replaceVariables(text string, variables map[string]string, used map[string]bool) string {
	if len(variables) == 0 {
		return text
	}
	braces := regexp.MustCompile(`\{\{\s*([A-Za-z_][\w.-]*)\s*\}\}`)
	return braces.ReplaceAllStringFunc(text, func(all string) string {
		name := braces.FindStringSubmatch(all)[1]
		value, ok := variables[name]
		if !ok {
			return all
		}
		used[name] = true
		return value
	})
}

// split cuts a text into its YAML documents. A line that begins with --- always
// separates documents, also inside of literals (YAML 1.2, 9.1.2).
func split(s source) []document {
	var (
		out   []document
		chunk []string
		start int // lines before the chunk
	)
	lines := strings.Split(strings.TrimPrefix(s.text, "\uFEFF"), "\n")
	flush := func() {
		if !meaningful(chunk) {
			return
		}
		// Empty lines before it make the parser's line numbers those of the file.
		text := strings.Repeat("\n", start) + strings.Join(chunk, "\n")
		origin := fmt.Sprintf("%s:%d", s.name, start+1+leading(chunk))
		body, err := yaml.YAMLToJSONStrict([]byte(text))
		if err != nil {
			reason := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "), "yaml: ")
			out = append(out, document{Origin: origin, broken: fmt.Errorf("%s: not YAML: %s", origin, reason)})
			return
		}
		out = append(out, items(origin, body)...)
	}
	for i, line := range lines {
		line = strings.TrimSuffix(line, "\r")
		rest, marker := strings.CutPrefix(line, "---")
		if marker && (rest == "" || rest[0] == ' ' || rest[0] == '\t') {
			flush()
			chunk, start = []string{rest}, i
			continue
		}
		if line == "..." {
			flush()
			chunk, start = nil, i+1
			continue
		}
		chunk = append(chunk, line)
	}
	flush()
	return out
}

// meaningful reports whether there is more than comments and directives.
func meaningful(lines []string) bool { return leading(lines) < len(lines) }

func leading(lines []string) int {
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && line[0] != '%' {
			return i
		}
	}
	return len(lines)
}

// items are the documents of one: itself, or those of a list as `get -o json`
// prints it.
func items(origin string, body []byte) []document {
	var list struct {
		Type  *string           `json:"type"`
		Items []json.RawMessage `json:"items"`
	}
	if json.Unmarshal(body, &list) != nil || list.Type != nil || list.Items == nil {
		return []document{{Origin: origin, Body: body}}
	}
	var out []document
	for _, item := range list.Items {
		out = append(out, document{Origin: origin, Body: item})
	}
	return out
}

// faults judges the document as far as that is possible without the control
// plane, and fills in what it says.
func (d *document) faults() []error {
	if d.broken != nil {
		return []error{d.broken}
	}
	if len(d.Body) > rest.MaxBody {
		return []error{fmt.Errorf("%s: larger than %d bytes, the most that control planes take", d.Origin, rest.MaxBody)}
	}
	if err := api.CheckJSON(d.Body); err != nil {
		return []error{fmt.Errorf("%s: %w", d.Origin, err)}
	}
	var r api.Report
	var foreign struct{ APIVersion, Kind string }
	if json.Unmarshal(d.Body, &foreign) == nil && foreign.APIVersion != "" && foreign.Kind != "" {
		return []error{fmt.Errorf("%s: is a Kubernetes object (%s %s): apply it with kubectl, or write type, mesh, name and spec", d.Origin, foreign.APIVersion, foreign.Kind)}
	}
	d.Document, d.Kind = api.ParseDocument(d.Body, &r)
	if d.Kind != nil {
		if d.Kind.Info().Scope == api.GlobalScope {
			d.Mesh = ""
		}
		// Which origin and zone are right only the control plane knows.
		local := d.Document
		local.Labels = maps.Clone(d.Labels)
		delete(local.Labels, api.LabelOrigin)
		delete(local.Labels, api.LabelZone)
		site := api.Site{Zone: "local"}
		api.CheckMeta(d.Kind, local, site, &r)
		row := d.Kind.Decode(api.Meta{ID: api.LocalID(d.Kind, d.Mesh, "", d.Name, site), Labels: d.Labels}, d.Spec, true, &r)
		if d.Kind.Info().ReadOnly {
			r.At("type").Add("%s is written by control planes only", d.Type)
		}
		if r.Err() == nil {
			plan.Judge(row, &r)
		}
	}
	out := make([]error, 0, len(r.Faults()))
	for _, f := range r.Faults() {
		what := d.Origin
		if d.Type != "" && d.Name != "" {
			what += ": " + d.String()
		}
		out = append(out, fmt.Errorf("%s: %s", what, f))
	}
	return out
}
