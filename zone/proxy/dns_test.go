package proxy_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// Names of services are answered from what the control plane tells, all others as
// the nameserver of the host does, over UDP and TCP; and the proxy is not ready
// before it knows any.
func TestNames(t *testing.T) {
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := packets.LocalAddr().(*net.UDPAddr).Port
	streams, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	others := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{"by " + w.LocalAddr().Network()}}}
		w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: others}, {Listener: streams, Handler: others}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}

	cp := newControlPlane(t, 0, `{node: {id: x, cluster: x}}`)
	c, log := config(t, cp, fakeEnvoy(t, "exec sleep 1000"))
	c.Name = ""
	c.Dataplane = `{type: Dataplane, mesh: default, name: web, networking: {address: 10.0.0.1, transparentProxying: {redirectPortInbound: 15006, redirectPortOutbound: 15001}}}`
	c.WorkDir, c.DNSPort, c.Nameserver = shortDir(t), 0, packets.LocalAddr().String()
	p := run(t, c, log)
	p.awaitReady(503, "NOT_READY")
	body, err := json.Marshal(bootstrap.DNSConfig{TTL: 30, Records: []bootstrap.DNSRecord{
		{Name: "api.mesh", IPs: []string{"241.0.0.1", "::ffff:f100:1"}}, {Name: "v4.mesh", IPs: []string{"241.0.0.2"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	tell(t, c.WorkDir, bootstrap.DNSPath, body)
	p.awaitReady(200, "READY")

	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(cp.asked()[0].DNSPort)))
	for _, one := range []struct {
		network, name string
		what          uint16
		want          string
	}{
		{"udp", "api.mesh.", dns.TypeA, "api.mesh. 30 IN A 241.0.0.1"},
		{"tcp", "API.Mesh.", dns.TypeA, "API.Mesh. 30 IN A 241.0.0.1"},
		{"udp", "api.mesh.", dns.TypeAAAA, "api.mesh. 30 IN AAAA ::ffff:241.0.0.1"},
		{"udp", "v4.mesh.", dns.TypeAAAA, ""},
		{"udp", "api.mesh.", dns.TypeMX, ""},
		{"udp", "other.example.", dns.TypeTXT, `other.example. 0 IN TXT "by udp"`},
		{"tcp", "other.example.", dns.TypeTXT, `other.example. 0 IN TXT "by tcp"`},
	} {
		client := dns.Client{Net: one.network, Timeout: patience}
		m, _, err := client.Exchange(new(dns.Msg).SetQuestion(one.name, one.what), at)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, rr := range m.Answer {
			got = append(got, strings.ReplaceAll(rr.String(), "\t", " "))
		}
		if m.Rcode != dns.RcodeSuccess || strings.Join(got, "; ") != one.want || m.Authoritative == strings.HasPrefix(one.name, "other") {
			t.Errorf("%s %s: %s", one.network, one.name, m)
		}
	}
}
