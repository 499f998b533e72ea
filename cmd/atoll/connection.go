package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	credentials := []credential{{c.token, c.tokenFile}, {os.Getenv("ATOLL_TOKEN"), os.Getenv("ATOLL_TOKEN_FILE")}}
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
			credentials = slices.Insert(credentials, place, credential{plane.Token, plane.TokenFile})
		}
	}
	o.URL = first(o.URL, defaultAddress)
	for _, one := range credentials {
		token, err := one.read()
		if token != "" || err != nil {
			o.Token = token
			return o, err
		}
	}
	if onThisMachine(o.URL) {
		o.Token = ownToken()
	}
	return o, nil
}

// credential is a token or the file that holds it.
type credential struct{ token, file string }

func (c credential) read() (string, error) {
	if c.token != "" || c.file == "" {
		return strings.TrimSpace(c.token), nil
	}
	body, err := os.ReadFile(c.file)
	if err != nil {
		return "", fmt.Errorf("user token: %w", err)
	}
	return strings.TrimSpace(string(body)), nil
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
func ownToken() string {
	dir := first(os.Getenv("ATOLL_DATA_DIR"), server.Default().DataDir)
	body, err := os.ReadFile(filepath.Join(dir, server.TokenFile))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(body))
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

// advice is what the user can do about an error, or "".
func advice(err error) string {
	var problem *client.Problem
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.As(err, &problem) && problem.Status == http.StatusUnauthorized:
		return "Show a user token: --token-file FILE, or ATOLL_TOKEN_FILE. On the machine of the control plane it is found in its data directory\n" +
			"(~/.atoll/admin.token; name another directory by ATOLL_DATA_DIR). `atoll generate user-token` makes more."
	case errors.As(err, &problem) && problem.Status == http.StatusForbidden:
		return "The token is valid, but its user may not do this: use an administrator's token, or change `access` in the control plane's configuration."
	case errors.Is(err, syscall.ECONNREFUSED):
		return "Is the control plane running? `atoll zone` starts one on this machine; --address or ATOLL_ADDRESS name another."
	case errors.As(err, &dns):
		return "Check the host name in --address, ATOLL_ADDRESS, or `atoll config view`."
	case errors.As(err, &authority), errors.As(err, &host):
		return "Name the authority of the control plane by --ca-file, or do not verify it: --skip-verify."
	case errors.Is(err, syscall.EADDRINUSE):
		return "Another program has the port: choose a different one (flags --*-address, see --help), or port 0 for any."
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "The control plane did not answer in time; --request-timeout allows more."
	}
	return ""
}
