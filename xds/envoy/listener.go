package envoy

import (
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/atoll-mesh/atoll/xds/ir"
)

// tagsKey is where a listener's tags are found in its metadata.
const tagsKey = "io.kuma.tags"

// silence is how long a client may say nothing until it is taken for one that speaks plainly. A client of TLS speaks at
// once; the span leaves it time to send again what was lost.
const silence = 5 * time.Second

// Listener is the Envoy listener of l.
// https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/listener/v3/listener.proto
func Listener(l ir.Listener) (*listenerv3.Listener, error) {
	w := new(work)
	out := &listenerv3.Listener{
		Name:       l.Name,
		StatPrefix: l.Name,
		Address:    address(l.Address),
	}
	switch l.Direction {
	case ir.Inbound:
		out.TrafficDirection = corev3.TrafficDirection_INBOUND
	case ir.Outbound:
		out.TrafficDirection = corev3.TrafficDirection_OUTBOUND
	case "":
	default:
		w.fail("direction %q", l.Direction)
	}
	if l.Unbound {
		out.BindToPort = wrapperspb.Bool(false)
	}
	switch l.ReusePort {
	case ir.On, ir.Off:
		out.EnableReusePort = wrapperspb.Bool(l.ReusePort == ir.On)
	case ir.Unset:
	default:
		w.fail("reuse port %q", l.ReusePort)
	}
	if len(l.Tags) > 0 {
		out.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{tagsKey: textStruct(l.Tags)}}
	}
	if l.Transparent {
		out.UseOriginalDst = wrapperspb.Bool(true)
	}
	out.ListenerFilters = w.inspectors(l)
	if slices.ContainsFunc(l.Chains, func(c ir.Chain) bool { return c.Match.Transport == "raw_buffer" }) {
		// A client that waits for the server to speak first would else be closed after 15 s.
		out.ListenerFiltersTimeout = durationpb.New(silence)
		out.ContinueOnListenerFiltersTimeout = true
	}
	if len(l.Chains) == 0 {
		w.fail("no chain")
	}
	for _, c := range l.Chains {
		out.FilterChains = append(out.FilterChains, w.chain(l, c))
	}
	if l.Ordered {
		out.FilterChainMatcher = w.firstMatch(l.Chains)
	}
	return finish(w, l.Name, l.Patches, out)
}

// looksIntoTLS reports whether c needs to know what the client said when it opened the connection, in which case Envoy
// must read that before it chooses a chain.
func looksIntoTLS(c ir.Chain) bool {
	if c.Match.Transport != "" || len(c.Match.SNI) > 0 || len(c.Match.ALPN) > 0 {
		return true
	}
	if p := c.Permissions; p != nil {
		asks := func(p ir.Permission) bool { return p.Peer.SNI != "" }
		if slices.ContainsFunc(p.Deny, asks) || slices.ContainsFunc(p.Allow, asks) || slices.ContainsFunc(p.AllowShadowDeny, asks) {
			return true
		}
	}
	if slices.ContainsFunc(c.Logs, func(l ir.AccessLog) bool { return l.Peer.SNI != "" }) {
		return true
	}
	for f := range forwards(c) {
		if slices.ContainsFunc(f.Peers, func(p ir.PeerTimeout) bool { return p.Peer.SNI != "" }) {
			return true
		}
	}
	for callers := range callersOf(c) {
		for _, one := range callers {
			if slices.ContainsFunc(append([]ir.PeerMatch{one.Peer}, one.Except...), func(p ir.PeerMatch) bool { return p.SNI != "" }) {
				return true
			}
		}
	}
	return false
}

// chain orders the network filters: what the connection is, whether it may, what it gets.
func (w *work) chain(l ir.Listener, c ir.Chain) *listenerv3.FilterChain {
	out := &listenerv3.FilterChain{Name: c.Name}
	if !c.Match.IsZero() && !l.Ordered {
		if len(c.Match.Ranges) > 0 {
			w.fail("chain %q: address ranges in a listener that is not ordered", c.Name)
		}
		out.FilterChainMatch = &listenerv3.FilterChainMatch{
			TransportProtocol:    c.Match.Transport,
			ServerNames:          c.Match.SNI,
			ApplicationProtocols: c.Match.ALPN,
			DestinationPort:      number(c.Match.Port),
		}
	}
	if c.TLS != nil {
		out.TransportSocket = w.serverTLS(*c.TLS)
	}
	if c.Connections != nil {
		out.Filters = append(out.Filters, w.limitConnections(*c.Connections))
	}
	if comparesPeers(c) {
		out.Filters = append(out.Filters, w.notePeer())
	}
	switch {
	case (c.HTTP == nil) == (c.TCP == nil):
		w.fail("chain %q: exactly one of http and tcp must be set", c.Name)
	case c.HTTP != nil:
		out.Filters = append(out.Filters, w.http(l, c))
	default:
		if c.Permissions != nil {
			for _, b := range c.TCP.Backends {
				out.Filters = append(out.Filters, w.admit(*c.Permissions, b.Cluster))
			}
			if len(c.TCP.Backends) > 1 {
				// The TCP proxy ignores the cluster noted for a connection where it splits.
				w.fail("chain %q: TCP permissions with more than one backend", c.Name)
			}
			out.Filters = append(out.Filters, w.permitConnections(l.Name, *c.Permissions))
		}
		out.Filters = append(out.Filters, w.tcp(l, c))
	}
	return out
}

// tcp is https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto.
func (w *work) tcp(l ir.Listener, c ir.Chain) *listenerv3.Filter {
	var sole string
	if len(c.TCP.Backends) == 1 {
		sole = c.TCP.Backends[0].Cluster
	}
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix:         statName(orElse(c.TCP.StatName, l.Name)),
		IdleTimeout:        span(c.TCP.IdleTimeout),
		MaxConnectAttempts: number(c.TCP.Connects),
		HashPolicy:         w.connectionHash(c.TCP.Hash),
		AccessLog:          w.accessLogs(l.Name, c, connectionDenied(sole)),
	}
	if c.TCP.LogConnect {
		proxy.AccessLogOptions = &tcpproxyv3.TcpProxy_TcpAccessLogOptions{FlushAccessLogOnConnected: true}
	}
	if c.Permissions != nil {
		// Only then is it known who calls. What the caller says meanwhile waits in Envoy: at most one read of it.
		proxy.UpstreamConnectMode = tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE
		proxy.MaxEarlyDataBytes = wrapperspb.UInt32(0)
	}
	switch backends := weighted(c.TCP.Backends); len(backends) {
	case 0:
		w.fail("chain %q: no backend", c.Name)
		return nil
	case 1:
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: backends[0].Cluster}
	default:
		split := new(tcpproxyv3.TcpProxy_WeightedCluster)
		for _, b := range backends {
			split.Clusters = append(split.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: b.Cluster, Weight: b.Weight})
		}
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: split}
	}
	return w.networkFilter("envoy.filters.network.tcp_proxy", proxy)
}

func (w *work) networkFilter(name string, config message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: w.pack(config)}}
}

// weighted leaves out the backends that get nothing of a split. A sole backend needs no weight.
func weighted(all []ir.Backend) []ir.Backend {
	if len(all) == 1 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(b ir.Backend) bool { return b.Weight == 0 })
}

// textStruct is m as Envoy's metadata holds it.
func textStruct(m map[string]string) *structpb.Struct {
	out := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(m))}
	for k, v := range maps.All(m) {
		out.Fields[k] = structpb.NewStringValue(v)
	}
	return out
}

func orElse(s, other string) string {
	if s != "" {
		return s
	}
	return other
}
