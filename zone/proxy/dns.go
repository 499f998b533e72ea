package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

const (
	// dnsPatience is how long the proxy is not ready because it has no names yet.
	dnsPatience = 15 * time.Second
	// lookupTime limits what others are asked.
	lookupTime = 5 * time.Second
)

// names answers what is asked on a host whose lookups are redirected here: names of
// services by itself, all else by asking the nameserver of the host.
type names struct {
	log        *slog.Logger
	nameserver string // host:port; "": the first of /etc/resolv.conf
	known      atomic.Pointer[knownNames]
	first      chan struct{} // closed when there are names
	once       sync.Once
	servers    []*dns.Server
	serving    sync.WaitGroup
}

// knownNames is the names of services, in lower case and without the dot at the end.
type knownNames struct {
	ttl       uint32
	addresses map[string][]netip.Addr
}

// redirected says whether the host redirects connections; a Pod does, as far as is
// known here.
func (r *runner) redirected() bool {
	return !r.BindOutbounds && (r.subject.redirected || r.PodName != "")
}

// openNames listens where the host redirects lookups to; nil where it does not
// redirect.
func (r *runner) openNames() (*names, error) {
	if !r.DNS || !r.redirected() {
		return nil, nil
	}
	n := &names{log: r.log, nameserver: r.Nameserver, first: make(chan struct{})}
	n.known.Store(new(knownNames))
	fail := func(err error) (*names, error) {
		n.close()
		return nil, fmt.Errorf("%w: DNS: %w (another proxy on this host? choose by --dns-proxy-port)", ErrConfig, err)
	}
	port := r.DNSPort
	for _, host := range []string{"127.0.0.1", "::1"} {
		at := net.JoinHostPort(host, strconv.Itoa(int(port)))
		packets, err := net.ListenPacket("udp", at)
		if err != nil {
			if host == "::1" {
				break // a host without IPv6 asks nobody there
			}
			return fail(err)
		}
		port = uint32(packets.LocalAddr().(*net.UDPAddr).Port)
		n.serve(&dns.Server{PacketConn: packets, Handler: n})
		streams, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			return fail(err)
		}
		n.serve(&dns.Server{Listener: streams, Handler: n})
	}
	r.dnsPort = port
	return n, nil
}

func (n *names) serve(s *dns.Server) {
	started := make(chan struct{})
	s.NotifyStartedFunc = func() { close(started) }
	n.servers = append(n.servers, s)
	n.serving.Go(func() { _ = s.ActivateAndServe() }) // always without an error after Shutdown
	<-started
}

func (n *names) close() {
	if n == nil {
		return
	}
	for _, s := range n.servers {
		_ = s.Shutdown()
	}
	n.serving.Wait()
}

// apply takes the names of services. That there are none at all keeps the old ones:
// connections to them still work while Envoy knows them.
func (n *names) apply(body []byte) error {
	if body == nil {
		return nil
	}
	var config bootstrap.DNSConfig
	if err := json.Unmarshal(body, &config); err != nil {
		return err
	}
	known := &knownNames{ttl: config.TTL, addresses: make(map[string][]netip.Addr, len(config.Records))}
	var errs []error
	for _, record := range config.Records {
		name := strings.ToLower(strings.TrimSuffix(record.Name, "."))
		for _, text := range record.IPs {
			ip, err := netip.ParseAddr(text)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			known.addresses[name] = append(known.addresses[name], ip)
		}
	}
	n.known.Store(known)
	n.once.Do(func() { close(n.first) })
	return errors.Join(errs...)
}

// ready waits for the first names, but not for ever: a control plane that has none
// to tell keeps nobody from working.
func (n *names) ready(ctx context.Context) {
	if n == nil {
		return
	}
	late := time.NewTimer(dnsPatience)
	defer late.Stop()
	select {
	case <-n.first:
	case <-late.C:
		n.log.Warn("the control plane tells no names of services", "waited", dnsPatience)
	case <-ctx.Done():
	}
}

// ServeDNS answers one message.
func (n *names) ServeDNS(w dns.ResponseWriter, asked *dns.Msg) {
	answer := n.answer(asked)
	if answer == nil {
		answer = n.ask(w, asked)
	}
	_ = w.WriteMsg(answer) // who asked may be gone
}

// answer is nil for what others know.
func (n *names) answer(asked *dns.Msg) *dns.Msg {
	if len(asked.Question) != 1 || asked.Question[0].Qclass != dns.ClassINET {
		return nil
	}
	q, known := asked.Question[0], n.known.Load()
	addresses, ok := known.addresses[strings.ToLower(strings.TrimSuffix(q.Name, "."))]
	if !ok {
		return nil
	}
	out := new(dns.Msg).SetReply(asked)
	out.Authoritative, out.RecursionAvailable = true, true
	for _, ip := range addresses {
		head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: known.ttl}
		switch {
		case q.Qtype == dns.TypeA && ip.Is4():
			out.Answer = append(out.Answer, &dns.A{Hdr: head, A: ip.AsSlice()})
		case q.Qtype == dns.TypeAAAA && ip.Is6():
			out.Answer = append(out.Answer, &dns.AAAA{Hdr: head, AAAA: ip.AsSlice()})
		}
	}
	return out
}

// ask asks the nameserver of the host, in the way in which it was asked itself.
func (n *names) ask(w dns.ResponseWriter, asked *dns.Msg) *dns.Msg {
	refuse := func(err error) *dns.Msg {
		n.log.Debug("a name was not looked up", "error", err)
		return new(dns.Msg).SetRcode(asked, dns.RcodeServerFailure)
	}
	server := n.nameserver
	if server == "" {
		config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return refuse(err)
		}
		if len(config.Servers) == 0 {
			return refuse(errors.New("no nameserver in /etc/resolv.conf"))
		}
		server = net.JoinHostPort(config.Servers[0], config.Port)
	}
	client := &dns.Client{Net: w.LocalAddr().Network(), Timeout: lookupTime, UDPSize: dns.MaxMsgSize}
	answer, _, err := client.Exchange(asked, server)
	if err != nil {
		return refuse(err)
	}
	return answer
}
