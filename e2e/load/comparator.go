package main

import (
	"context"
	"crypto/tls"
	"encoding/gob"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/atoll-mesh/atoll/xds/wire"
)

// capture is what the proxies of a zone hold and how it changes, as a file.
type capture struct {
	Resources []captured
	Nodes     []node
}

// captured is a resource as it was on the wire.
type captured struct {
	Type          wire.Type
	Name, Version string
	Body          []byte
}

// node is a proxy: positions in Resources.
type node struct {
	ID   string
	Held []int32
	// Changes is the messages of each change: made, and undone.
	Changes [][2][]batch
}

type batch struct {
	Type  wire.Type
	Items []int32
}

// recorded is the messages of the proxies of a fleet, by change and direction.
type recorded [][2]map[*proxy][]message

// writeCapture writes what the proxies of a zone hold and got.
func (f *fleet) writeCapture(path string, zone int, r recorded) error {
	var c capture
	index := map[*resource]int32{}
	at := func(r *resource) int32 {
		i, ok := index[r]
		if !ok {
			i = int32(len(c.Resources))
			index[r] = i
			c.Resources = append(c.Resources, captured{r.typ, r.name, r.version, r.body})
		}
		return i
	}
	for _, p := range f.proxies {
		if p.zone != zone {
			continue
		}
		n := node{ID: p.node.GetId(), Changes: make([][2][]batch, len(r))}
		for _, t := range wire.Types() {
			for _, r := range p.held[t] {
				n.Held = append(n.Held, at(r))
			}
		}
		for i := range r {
			for back := range 2 {
				for _, m := range r[i][back][p] {
					b := batch{Type: m.typ}
					for _, r := range m.resources {
						b.Items = append(b.Items, at(r))
					}
					n.Changes[i][back] = append(n.Changes[i][back], b)
				}
			}
		}
		c.Nodes = append(c.Nodes, n)
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := gob.NewEncoder(out).Encode(c); err != nil {
		return err
	}
	return out.Close()
}

// comparatorConfig configures a comparator's process.
type comparatorConfig struct {
	Address, Capture, CertFile, KeyFile string
}

// comparator is one of the two.
type comparator interface {
	Register(grpc.ServiceRegistrar)
	// apply makes a change, or undoes it, for all proxies it concerns.
	apply(change, back int) error
}

// serveComparator serves the captured resources until the context ends.
// A command is the number of a change and 0 to make, 1 to undo it.
func serveComparator(ctx context.Context, kind string, c comparatorConfig, commands <-chan string, out io.Writer) error {
	listener, err := net.Listen("tcp", c.Address)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "dp-server: %s\n", listener.Addr())
	in, err := os.Open(c.Capture)
	if err != nil {
		return err
	}
	var state capture
	if err := gob.NewDecoder(in).Decode(&state); err != nil {
		return err
	}
	in.Close()
	var s comparator
	if kind == "floor" {
		s = newFloor(&state)
	} else if s, err = newMinimal(ctx, &state); err != nil {
		return err
	}
	g := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})),
		grpc.ForceServerCodecV2(wire.Codec()), grpc.MaxConcurrentStreams(1<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 15 * time.Second, Timeout: 15 * time.Second}),
	)
	s.Register(g)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	fmt.Fprintln(out, "ready: yes")
	go func() {
		for {
			select {
			case line := <-commands:
				change, back, _ := strings.Cut(line, " ")
				i, _ := strconv.Atoi(change)
				j, _ := strconv.Atoi(back)
				if err := s.apply(i, j); err != nil {
					fmt.Fprintln(os.Stderr, "change:", err)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return g.Serve(listener)
}

// ads refuses what a comparator does not serve.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
}
