package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/db"
)

var errNoAddress = errors.New("it has no address")

// lookupTime bounds one look-up.
const lookupTime = 5 * time.Second

// Resolve looks up the host names that rows use as addresses, until the context ends.
func Resolve(ctx context.Context, o Options) error {
	if o.Lookup == nil {
		o.Lookup = net.DefaultResolver.LookupHost
	}
	if o.Interval == 0 {
		o.Interval = 10 * time.Second
	}
	wake := make(chan struct{}, 1)
	stop := o.DB.OnCommit(func(c db.Commit) {
		for _, ch := range c.Changes {
			if len(hostsOf(ch.New)) > 0 {
				select {
				case wake <- struct{}{}:
				default:
				}
				return
			}
		}
	})
	defer stop()
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for {
		resolve(ctx, o)
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
		}
	}
}

// hostsOf lists the host names that a row uses as addresses.
func hostsOf(row any) []string {
	var hosts []string
	add := func(address string) {
		if _, err := netip.ParseAddr(address); err != nil && address != "" {
			hosts = append(hosts, address)
		}
	}
	switch row := row.(type) {
	case *api.Object[api.Dataplane]:
		if row != nil {
			add(row.Spec.Networking.Address)
		}
	case *api.Object[api.MeshZoneAddress]:
		if row != nil {
			add(row.Spec.Address)
		}
	}
	return hosts
}

// resolve looks up every name in use and writes what changed.
func resolve(ctx context.Context, o Options) {
	snap := o.DB.Snapshot()
	wanted := map[string]bool{}
	for dp := range api.Dataplanes.All(snap) {
		for _, h := range hostsOf(dp) {
			wanted[h] = true
		}
	}
	for a := range api.MeshZoneAddresses.All(snap) {
		for _, h := range hostsOf(a) {
			wanted[h] = true
		}
	}
	answers := lookup(ctx, o, wanted)
	var puts []*api.Resolution
	for host, addresses := range answers {
		if have, ok := api.Resolutions.Get(snap, host); !ok || !slices.Equal(have.Addresses, addresses) {
			puts = append(puts, &api.Resolution{Host: host, Addresses: addresses})
		}
	}
	var gone []string
	for r := range api.Resolutions.All(snap) {
		if !wanted[r.Host] {
			gone = append(gone, r.Host)
		}
	}
	if len(puts)+len(gone) == 0 {
		return
	}
	_, err := o.DB.Write(func(tx *db.Tx) error {
		for _, p := range puts {
			api.Resolutions.Put(tx, p)
		}
		for _, host := range gone {
			api.Resolutions.Delete(tx, host)
		}
		return nil
	})
	if err != nil {
		o.Log.Error("addresses of host names cannot be entered", "error", err)
	}
}

// parallel bounds the look-ups under way.
const parallel = 16

func lookup(ctx context.Context, o Options, hosts map[string]bool) map[string][]string {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
		slots = make(chan struct{}, parallel)
		out   = map[string][]string{}
	)
	for host := range hosts {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, lookupTime)
			defer cancel()
			addresses, err := o.Lookup(ctx, host)
			if err == nil && len(addresses) == 0 {
				err = errNoAddress
			}
			if err != nil {
				o.Log.Warn("a host name does not resolve; its last answer stays", "host", host, "error", err)
				return
			}
			slices.Sort(addresses)
			mu.Lock()
			out[host] = addresses
			mu.Unlock()
		})
	}
	group.Wait()
	return out
}
