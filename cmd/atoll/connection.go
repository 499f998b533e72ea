package main

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/atoll-mesh/atoll/api/client"
	"github.com/atoll-mesh/atoll/api/server"
)

// defaultAddress is where a control plane of this machine serves its API.
const defaultAddress = "http://localhost:5681"

// connection says which control plane a command talks to, and as whom.
type connection struct {
	address, controlPlane string
	token, tokenFile      string
	caFile                string
	skipVerify            bool
	timeout               time.Duration
	configFile            string
	// used is what options found, for advice.
	used used
}

// used says which control plane was asked, and with whose words.
type used struct {
	address string
	// token names where the token came from; empty: none was sent.
	token string
}

// bind adds the flags of the connection to a command and those below it.
func (c *connection) bind(command *cobra.Command) *cobra.Command {
	command.Flags().SortFlags = false
	fs := command.PersistentFlags()
	fs.SortFlags = false
	fs.StringVar(&c.address, "address", "", "API of the control plane, http(s)://host:port (env ATOLL_ADDRESS; default "+defaultAddress+")")
	fs.StringVar(&c.controlPlane, "control-plane", "", "one of those that config control-planes list shows, instead of the current one")
	fs.StringVar(&c.token, "token", "", "user token (env ATOLL_TOKEN); others on this machine can see arguments: prefer a file")
	fs.StringVar(&c.tokenFile, "token-file", "", "file with the user token (env ATOLL_TOKEN_FILE; on this machine admin.token of the data directory is found)")
	fs.StringVar(&c.caFile, "ca-file", "", "authorities (PEM) that verify the control plane (env ATOLL_CA_FILE)")
	fs.BoolVar(&c.skipVerify, "skip-verify", false, "do not verify the control plane")
	fs.DurationVar(&c.timeout, "request-timeout", time.Minute, "how long one request may take")
	fs.StringVar(&c.configFile, "config-file", "", "file with the control planes (env ATOLL_CONFIG_FILE; default ~/.atoll/config)")
	_ = command.RegisterFlagCompletionFunc("control-plane", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return c.controlPlanes(), cobra.ShellCompDirectiveNoFileComp
	})
	return command
}

// options finds the control plane and the token: flags, then the environment,
// then the current control plane of the user's list, then this machine's own. A
// token goes only to the address that it was given for.
func (c *connection) options() (client.Options, error) {
	o := client.Options{
		URL:    first(c.address, os.Getenv("ATOLL_ADDRESS")),
		CAFile: first(c.caFile, os.Getenv("ATOLL_CA_FILE")), SkipVerify: c.skipVerify,
		Timeout: c.timeout, UserAgent: "atoll/" + version,
	}
	credentials := []credential{
		{"--token", c.token, "--token-file", c.tokenFile},
		{"ATOLL_TOKEN", os.Getenv("ATOLL_TOKEN"), "ATOLL_TOKEN_FILE", os.Getenv("ATOLL_TOKEN_FILE")},
	}
	switch {
	case c.controlPlane != "" && c.address != "":
		return o, wrongUsage("--address and --control-plane exclude each other")
	case c.controlPlane != "" || o.URL == "":
		known, err := loadPlanes(c.planesFile())
		if err != nil {
			return o, err
		}
		plane, ok, err := known.find(c.controlPlane)
		if err != nil {
			return o, err
		}
		if ok {
			o.URL, o.CAFile, o.SkipVerify = plane.Address, first(o.CAFile, plane.CAFile), o.SkipVerify || plane.SkipVerify
			place := len(credentials)
			if c.controlPlane != "" {
				place = 1 // chosen by a flag, which is stronger than variables
			}
			of := fmt.Sprintf("control plane %q of config", plane.Name)
			credentials = slices.Insert(credentials, place, credential{of, plane.Token, of + ",", plane.TokenFile})
		}
	}
	o.URL = first(o.URL, defaultAddress)
	c.used = used{address: o.URL}
	for _, one := range credentials {
		token, from, err := one.read()
		if token != "" || err != nil {
			o.Token, c.used.token = token, from
			return o, err
		}
	}
	if onThisMachine(o.URL) {
		o.Token, c.used.token = ownToken()
	}
	return o, nil
}

// credential is a token or the file that holds it, and who named them.
type credential struct{ tokenOf, token, fileOf, file string }

func (c credential) read() (token, from string, err error) {
	if c.token != "" || c.file == "" {
		return strings.TrimSpace(c.token), c.tokenOf, nil
	}
	body, err := os.ReadFile(c.file)
	if err != nil {
		return "", "", fmt.Errorf("user token (%s): %w", strings.TrimSuffix(c.fileOf, ","), err)
	}
	return strings.TrimSpace(string(body)), c.fileOf + " " + c.file, nil
}

// in is the mesh that a command is about: the flag, the environment, that of
// the control plane in the user's list, or where a first user's services are.
func (c *connection) in(flag string) (string, error) {
	if mesh := first(flag, os.Getenv("ATOLL_MESH")); mesh != "" {
		return mesh, nil
	}
	if c.address != "" || c.controlPlane == "" && os.Getenv("ATOLL_ADDRESS") != "" {
		return defaultMesh, nil // of another control plane than those of the list
	}
	known, err := loadPlanes(c.planesFile())
	if err != nil {
		return "", err
	}
	plane, _, err := known.find(c.controlPlane)
	return first(plane.Mesh, defaultMesh), err
}

// defaultMesh is where a first user's services are.
const defaultMesh = "default"

// meshFlag adds --mesh.
func (c *connection) meshFlag(command *cobra.Command, mesh *string, usage string) {
	command.Flags().StringVarP(mesh, "mesh", "m", "", usage+" (env ATOLL_MESH; default: that of the control plane in config, or "+defaultMesh+")")
	completeMesh(c, command)
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// ownToken is the administrator's token that a control plane of this machine
// left in its data directory. Without it the server says whether one is needed.
func ownToken() (token, file string) {
	dir := first(os.Getenv("ATOLL_DATA_DIR"), server.Default().DataDir)
	file = filepath.Join(dir, server.TokenFile)
	body, err := os.ReadFile(file)
	if err != nil {
		return "", ""
	}
	return strings.TrimSpace(string(body)), file
}

// onThisMachine keeps the administrator's token away from other machines.
func onThisMachine(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *connection) open() (*client.Client, error) {
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	return client.New(o)
}

// quick is a client for what must not keep anybody waiting.
func (c *connection) quick() (*client.Client, error) {
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	o.Timeout = 2 * time.Second
	return client.New(o)
}

// pairs adds a flag of name=value pairs.
func pairs(fs *pflag.FlagSet, into *map[string]string, name, short, usage string) {
	fs.StringToStringVarP(into, name, short, nil, usage)
	fs.Lookup(name).DefValue = "" // help would show an empty list
}
