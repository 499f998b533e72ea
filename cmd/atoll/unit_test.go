package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"pgregory.net/rapid"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/server"
	"github.com/atoll-mesh/atoll/zone"
)

// Defaults, file, environment, flags: each is stronger than those before it.
func TestConfigurationOrder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "zone.yaml")
	text := "name: file\nlog: {level: warn}\ndpServer: {address: 'file:1'}\napi: {localhostIsAdmin: true}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ATOLL_NAME", "environment")
	t.Setenv("ATOLL_DP_SERVER_ADDRESS", "environment:1")
	command := zoneOptions(t, "--config", file, "--dp-address", "flag:1", "--localhost-is-admin=false")
	c, err := command()
	if err != nil {
		t.Fatal(err)
	}
	got := []any{c.Store.Type, c.Log.Level, c.Name, c.DPServer.Address, c.API.LocalhostIsAdmin}
	want := []any{"bolt", "warn", "environment", "flag:1", false}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func zoneOptions(t *testing.T, args ...string) func() (zone.Config, error) {
	t.Helper()
	command := &cobra.Command{}
	load := configuration(command, zone.Default, []option[zone.Config]{
		{"dp-address", "", func(c *zone.Config) any { return &c.DPServer.Address }},
		{"localhost-is-admin", "", func(c *zone.Config) any { return &c.API.LocalhostIsAdmin }},
	})
	if err := command.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return load
}

// Every command says what it is for, and every one that runs shows how.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s has no short help", c.CommandPath())
		}
		if c.Runnable() && c.Example == "" && strings.Count(c.CommandPath(), " ") == 1 && c.Name() != "help" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
}

// Examples in help are command lines that parse.
func TestExamples(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		joined := strings.ReplaceAll(c.Example, "\\\n", "")
		for line := range strings.SplitSeq(joined, "\n") {
			for part := range strings.SplitSeq(line, " | ") {
				words := strings.Fields(strings.NewReplacer("<(", " ", ")", " ").Replace(part))
				for len(words) > 0 && words[0] == "source" {
					words = words[1:]
				}
				if len(words) == 0 || words[0] != "atoll" {
					continue
				}
				for i, w := range words {
					if w == ">" || w == "&" {
						words = words[:i]
						break
					}
				}
				found, rest, err := rootCommand().Find(words[1:])
				if err == nil {
					err = found.ParseFlags(rest)
				}
				if err != nil {
					t.Errorf("%s: %s: %v", c.CommandPath(), part, err)
				}
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(rootCommand())
}

func TestSummary(t *testing.T) {
	reach := server.Reach{Revision: 812, Zones: []server.ZoneReach{
		{Zone: "east", Connected: true, Proxies: 600, Behind: 2, Laggards: []api.Laggard{{Mesh: "shop", Name: "web-1", Reason: "slow"}}},
		{Zone: "west", Connected: true, Proxies: 400},
		{Zone: "north"},
	}}
	want := "revision 812: 3 zones, 998 of 1000 proxies; behind: shop/web-1 in east (slow), and 1 more; not connected: north"
	if got := summary(reach); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	p := &printer{now: now}
	for want, since := range map[string]time.Duration{
		"0s": -time.Hour, "59s": 59 * time.Second, "1m": 61 * time.Second, "23h": 24*time.Hour - 1, "400d": 400 * 24 * time.Hour,
	} {
		if got := p.age(now.Add(-since)); got != want {
			t.Errorf("%s ago: %s, want %s", since, got, want)
		}
	}
}

// However documents are put together in a file, each comes out as it went in,
// with the line that it begins at.
func TestSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		var want []string
		line := 1
		write := func(s string) {
			text.WriteString(s)
			line += strings.Count(s, "\n")
		}
		end := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "line end")
		for range rapid.IntRange(0, 5).Draw(t, "documents") {
			write(rapid.SampledFrom([]string{"---", "--- # new", "...", "# only a comment" + end + "---"}).Draw(t, "separator") + end)
			for range rapid.IntRange(0, 2).Draw(t, "empty lines") {
				write(end)
			}
			if rapid.Bool().Draw(t, "empty") {
				continue
			}
			want = append(want, "f:"+strconv.Itoa(line))
			write("a: |" + end + "  -- -" + end + "  ----" + end + "b: '---'" + end)
		}
		var got []string
		for _, d := range split(source{"f", text.String()}) {
			if d.broken != nil {
				t.Fatal(d.broken)
			}
			if string(d.Body) != `{"a":"-- -\n----\n","b":"---"}` {
				t.Fatalf("%s", d.Body)
			}
			got = append(got, d.Origin)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s\n%s", diff, text.String())
		}
	})
}

// YAML keeps the order in which the API shows fields, and numbers as they are.
func TestYAMLKeepsOrder(t *testing.T) {
	text, err := asYAML([]byte(`{"type":"T","mesh":"m","name":"n","spec":{"z":1,"a":[{"y":"yes","b":18446744073709551615}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := "type: T\nmesh: m\nname: \"n\"\nspec:\n  z: 1\n  a:\n  - \"y\": \"yes\"\n    b: 18446744073709551615\n"
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

// The administrator's token of this machine goes to this machine only.
func TestOwnTokenStaysHere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, server.TokenFile), []byte("own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	t.Setenv("ATOLL_DATA_DIR", dir)
	for address, want := range map[string]string{
		"": "own", "http://127.0.0.1:1": "own", "http://localhost:1": "own", "http://[::1]:1": "own",
		"https://global.example:5681": "", "http://10.0.0.1:5681": "", "http://localhost.example:1": "",
	} {
		c := connection{address: address}
		o, err := c.options()
		if err != nil || o.Token != want {
			t.Errorf("%q: token %q, %v; want %q", address, o.Token, err, want)
		}
	}
}

// Nothing that a file holds makes the reader panic, and what it takes for a
// document is one.
func FuzzSplit(f *testing.F) {
	f.Add("type: Mesh\nname: a\n---\n{}\n...\n- 1\n")
	f.Add("--- {a: &x [*x]}\n%YAML 1.2\n---\n\xff")
	f.Fuzz(func(t *testing.T, text string) {
		for _, d := range split(source{"f", text}) {
			d.faults()
			if d.broken == nil && !json.Valid(d.Body) {
				t.Fatalf("%q is no JSON", d.Body)
			}
		}
	})
}
