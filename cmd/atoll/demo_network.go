package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// loopback is the addresses of the demonstration. Every proxy has an IP address
// of its own in 127.0.0.0/8, which needs no privilege on Linux, so that all
// instances of a service have the same ports, as they would on machines.
type loopback struct {
	prefix string // three bytes and their dots
	last   int
	ports  demoPorts
}

// demoPorts are free on all loopback addresses.
type demoPorts struct {
	// Inbound is where a proxy takes calls for its service, Service where the
	// service listens. The others are where a proxy takes its service's own calls.
	Inbound, Service, Catalog, Cart, Payments int
}

func newLoopback() (*loopback, error) {
	n := &loopback{prefix: fmt.Sprintf("127.%d.%d.", 1+rand.IntN(254), rand.IntN(256))}
	probe, err := net.Listen("tcp", n.prefix+"1:0")
	if err != nil {
		return nil, fmt.Errorf("the demonstration gives each proxy a loopback address of its own, which this system does not allow (Linux does): %w", err)
	}
	_ = probe.Close()
	// All are held open until the last is found, so that they differ.
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	p := &n.ports
	for _, port := range []*int{&p.Inbound, &p.Service, &p.Catalog, &p.Cart, &p.Payments} {
		l, err := net.Listen("tcp4", ":0")
		if err != nil {
			return nil, fmt.Errorf("no free port: %w", err)
		}
		held = append(held, l)
		*port = l.Addr().(*net.TCPAddr).Port
	}
	return n, nil
}

// address returns an address that nobody has yet.
func (n *loopback) address() (string, error) {
	if n.last == 254 {
		return "", errors.New("all loopback addresses of the demonstration are taken")
	}
	n.last++
	return n.prefix + strconv.Itoa(n.last), nil
}

// variables are the ports by the names that deploy/demo has for them.
func (p demoPorts) variables() map[string]string {
	return map[string]string{
		"port": strconv.Itoa(p.Inbound), "servicePort": strconv.Itoa(p.Service),
		"catalogPort": strconv.Itoa(p.Catalog), "cartPort": strconv.Itoa(p.Cart), "paymentsPort": strconv.Itoa(p.Payments),
	}
}
