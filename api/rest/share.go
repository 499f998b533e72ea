package rest

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
)

const (
	// maxLasting bounds the requests of one control plane that last: watches, and
	// those that wait.
	maxLasting = 4096
	// maxShare is how many of them one caller may have.
	maxShare = 512
)

// shares counts the requests that last, so that no caller takes them all.
type shares struct {
	mu  sync.Mutex
	all int
	by  map[string]int // caller
}

// enter counts a request until leave is called.
func (s *shares) enter(r *http.Request) (leave func(), err error) {
	who := callerOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[who] >= maxShare {
		return nil, &Problem{
			Status: http.StatusTooManyRequests, Title: "Too many requests",
			Detail: fmt.Sprintf("%s has %d watches and waiting requests open, which is the share of one caller; end some of them", who, maxShare),
		}
	}
	if s.all >= maxLasting {
		return nil, &Problem{
			Status: http.StatusServiceUnavailable, Title: "Service unavailable",
			Detail: fmt.Sprintf("%d watches and waiting requests are open, which is all that this control plane serves", maxLasting),
		}
	}
	s.all++
	s.by[who]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all--
		if s.by[who]--; s.by[who] == 0 {
			delete(s.by, who)
		}
	}, nil
}

// callerOf names whose share a request is of: the user's, or that of the
// address from which somebody unknown calls. Whoever has one IPv6 address has
// a /64 of them (RFC 6177).
func callerOf(r *http.Request) string {
	u := UserOf(r)
	if !u.IsAnonymous() {
		return "user " + u.Name
	}
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "an unknown address"
	}
	at := remote.Addr().Unmap().WithZone("")
	if at.Is6() {
		network, _ := at.Prefix(64) // shorter than the address
		return "address " + network.String()
	}
	return "address " + at.String()
}
