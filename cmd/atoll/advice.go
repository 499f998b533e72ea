package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/atoll-mesh/atoll/api/client"
)

// advice is what the user can do about an error, or "".
func (c *connection) advice(err error) string {
	var problem *client.Problem
	if errors.As(err, &problem) {
		return c.refused(problem)
	}
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		expired   x509.CertificateInvalidError
		plain     tls.RecordHeaderError
		dns       *net.DNSError
	)
	switch {
	case errors.Is(err, client.ErrNoTrial):
		return "`atoll apply --dry-run=client` judges documents without a control plane."
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "Is the control plane running? `atoll zone` starts one on this machine; --address, ATOLL_ADDRESS or `atoll config` name another."
	case errors.As(err, &dns):
		return "Check the host name in --address, ATOLL_ADDRESS, or `atoll config view`."
	case errors.As(err, &authority):
		return "Name the authority of the control plane by --ca-file (ATOLL_CA_FILE), or do not verify it: --skip-verify."
	case errors.As(err, &host):
		return "The certificate is for other names: use one of them in --address, or do not verify it: --skip-verify."
	case errors.As(err, &expired):
		return "The control plane needs a new certificate, or one of the two clocks is wrong; --skip-verify does without."
	case errors.As(err, &plain), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "There is no TLS at this port: use http:// in the address, or the port of HTTPS (5682)."
	case errors.Is(err, syscall.EADDRINUSE):
		return "Another program has the port: choose a different one (flags --*-address, see --help), or port 0 for any."
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "The control plane did not answer in time; --request-timeout allows more."
	}
	return ""
}

// refused is what to do about an answer that is an error.
func (c *connection) refused(p *client.Problem) string {
	from := c.used.token
	switch p.Status {
	case http.StatusUnauthorized:
		if from == "" {
			return "No user token was sent. Show one: --token-file FILE, or ATOLL_TOKEN_FILE. On the machine of the control plane it is found in its\n" +
				"data directory (~/.atoll/admin.token; name another directory by ATOLL_DATA_DIR). `atoll generate user-token` makes more."
		}
		return fmt.Sprintf("The token of %s is not accepted at %s: it has expired, was revoked, or is of another control plane.\n", from, c.used.address) +
			"Show another one by --token-file or ATOLL_TOKEN_FILE; an administrator makes one by `atoll generate user-token`."
	case http.StatusForbidden:
		if from == "" {
			return "No user token was sent: show one that may do this, by --token-file FILE or ATOLL_TOKEN_FILE."
		}
		return fmt.Sprintf("The token of %s is valid, but its user may not do this: use an administrator's token,\n", from) +
			"or change `access` in the control plane's configuration."
	case http.StatusMethodNotAllowed:
		return "`atoll config view` shows which control planes you know; --control-plane or --address choose another."
	case http.StatusConflict:
		return "Somebody else changed it at the same time: look at it and try again."
	case http.StatusServiceUnavailable:
		return "The control plane is starting, stopping or without its store: try again soon."
	case http.StatusBadRequest:
		if strings.Contains(p.Detail, "HTTP request to an HTTPS server") {
			return "There is TLS at this port: use https:// in the address."
		}
	}
	return ""
}
