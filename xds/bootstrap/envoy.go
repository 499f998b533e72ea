package bootstrap

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	grpccredentialv3 "github.com/envoyproxy/go-control-plane/envoy/config/grpc_credential/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	fileaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	re2v3 "github.com/envoyproxy/go-control-plane/envoy/extensions/regex_engines/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"sigs.k8s.io/yaml"

	"github.com/atoll-mesh/atoll/xds/envoy"
)

// Params is what the control plane adds to a request.
type Params struct {
	// XDSHost and XDSPort are where Envoy reaches discovery. The host is an IP
	// address or a DNS name and in the server's certificate.
	XDSHost string
	XDSPort uint32
	// XDSConnectTimeout is the time to connect; 1 s when zero.
	XDSConnectTimeout time.Duration
	// XDSMaxMessageBytes limits a discovery message (reloadable tokens only);
	// 4 MiB when zero.
	XDSMaxMessageBytes uint32
	// XDSIPv4Only: XDSHost is a name without an IPv6 address.
	XDSIPv4Only bool
	// ReloadableTokens makes Envoy read the token file for every stream, so that
	// a new token needs no restart. Requests without a path get the token as is.
	ReloadableTokens bool

	// AdminUnixSocket puts Envoy's administration on a socket in the work
	// directory; otherwise, and for proxies without one, it is on TCP.
	AdminUnixSocket bool
	// AdminAddress and AdminPort are used on TCP; 127.0.0.1 and 9901 when empty.
	AdminAddress string
	AdminPort    uint32
	// AdminAccessLog is a file; /dev/null when empty.
	AdminAccessLog string

	// CA is PEM: what Envoy verifies discovery with.
	CA string
	// Workload is the workload of the Dataplane, Address its address: what Envoy
	// can say of itself in logs.
	Workload, Address string
}

// DefaultParams are the parameters of a control plane that sets none.
func DefaultParams() Params {
	return Params{
		XDSConnectTimeout: time.Second, XDSMaxMessageBytes: 4 << 20,
		AdminUnixSocket: true, AdminAddress: "127.0.0.1", AdminPort: 9901, AdminAccessLog: "/dev/null",
	}
}

const (
	adsCluster       = "system_ads"
	accessLogCluster = "system_access_log_sink"
	validationSecret = "cp_validation_ctx"
)

// Build makes the Envoy bootstrap as YAML with sorted lowerCamelCase keys.
func Build(req Request, p Params) ([]byte, error) {
	p = p.withDefaults()
	b := &bootstrapv3.Bootstrap{
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "kuma",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				// Without it a server that speaks first is heard by callers who may not.
				envoy.DelayRouteSelection:          structpb.NewBoolValue(true),
				"re2.max_program_size.error_level": structpb.NewNumberValue(4294967295),
				"re2.max_program_size.warn_level":  structpb.NewNumberValue(1000),
			}}},
		}}},
		StatsConfig: &metricsv3.StatsConfig{StatsTags: []*metricsv3.TagSpecifier{
			statsTag("name", `^grpc\.((.+)\.)`),
			statsTag("status", `^grpc.*streams_closed(_([0-9]+))`),
			statsTag("worker", `(worker_([0-9]+)\.)`),
			statsTag("listener", `((.+?)\.)rbac\.`),
		}},
	}
	w := &writer{}
	b.DefaultRegexEngine = &corev3.TypedExtensionConfig{
		Name: "envoy.regex_engines.google_re2", TypedConfig: w.any(&re2v3.GoogleRE2{}),
	}
	metadata, err := nodeMetadata(req, p)
	if err != nil {
		return nil, err
	}
	b.Node = &corev3.Node{Id: req.Mesh + "." + req.Name, Cluster: p.Workload, Metadata: metadata}
	b.Admin = w.admin(req, p)
	b.DynamicResources = w.discovery(req, p, b.StaticResources)
	if req.Workdir != "" {
		b.StaticResources.Clusters = append(b.StaticResources.Clusters, w.accessLogSink(req, p))
	}
	if w.err != nil {
		return nil, fmt.Errorf("bootstrap: %w", w.err)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	return yaml.JSONToYAML(text)
}

func (p Params) withDefaults() Params {
	d := DefaultParams()
	if p.XDSConnectTimeout <= 0 {
		p.XDSConnectTimeout = d.XDSConnectTimeout
	}
	if p.XDSMaxMessageBytes == 0 {
		p.XDSMaxMessageBytes = d.XDSMaxMessageBytes
	}
	if p.AdminAddress == "" {
		p.AdminAddress = d.AdminAddress
	}
	if p.AdminPort == 0 {
		p.AdminPort = d.AdminPort
	}
	if p.AdminAccessLog == "" {
		p.AdminAccessLog = d.AdminAccessLog
	}
	if p.Workload == "" {
		p.Workload = "unknown"
	}
	return p
}

// nodeMetadata holds flat keys: the dots in them are part of the name.
func nodeMetadata(req Request, p Params) (*structpb.Struct, error) {
	number := func(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
	version := map[string]any{}
	body, err := json.Marshal(req.Version)
	if err == nil {
		err = json.Unmarshal(body, &version)
	}
	if err != nil {
		return nil, fmt.Errorf("bootstrap: version: %w", err)
	}
	dependencies := map[string]any{}
	dynamic := map[string]any{}
	for key, value := range req.DynamicMetadata {
		dynamic[key] = value
		if name, ok := strings.CutPrefix(key, "version.dependencies."); ok {
			dependencies[name] = value
		}
	}
	if len(dependencies) > 0 {
		version["dependencies"] = dependencies
	}
	features := []any{}
	for _, f := range req.Features {
		features = append(features, f)
	}
	out := map[string]any{
		"version":                 version,
		"features":                features,
		"workdir":                 req.Workdir,
		"metricsCertPath":         req.MetricsResources.CertPath,
		"metricsKeyPath":          req.MetricsResources.KeyPath,
		"systemCaPath":            req.SystemCAPath,
		"spireAgent.socketPath":   req.SpireResources.SocketPath,
		"dataplane.proxyType":     cmp.Or(req.ProxyType, "dataplane"),
		"dataplane.admin.port":    number(p.AdminPort),
		"dataplane.admin.address": p.AdminAddress,
	}
	if p.Address != "" {
		out[envoy.NodeAddress] = p.Address
	}
	if req.IPv6Enabled != nil {
		out["ipv6Enabled"] = *req.IPv6Enabled
	}
	if adminOnSocket(req, p) {
		out["dataplane.admin.socketPath"] = AdminSocket(req.Workdir)
	}
	if req.DataplaneResource != "" {
		out["dataplane.resource"] = req.DataplaneResource
	}
	if req.DNSPort != 0 {
		out["dataplane.dns.port"] = number(req.DNSPort)
	}
	if req.ReadinessPort != 0 {
		out["dataplane.readinessReporter.port"] = number(req.ReadinessPort)
	}
	if req.AppProbeProxyEnabled {
		out["dataplane.appProbeProxy.enabled"] = "true"
	}
	if len(dynamic) > 0 {
		out["dynamicMetadata"] = dynamic
	}
	for key, raw := range map[string]json.RawMessage{"transparentProxy": req.DataplaneConfig, "otelEnvInventory": req.OTelEnv} {
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		object := map[string]any{}
		if err := json.Unmarshal(raw, &object); err != nil {
			return nil, fmt.Errorf("bootstrap: %s: %w", key, err)
		}
		out[key] = object
	}
	return structpb.NewStruct(out)
}

func adminOnSocket(req Request, p Params) bool { return p.AdminUnixSocket && req.Workdir != "" }

// writer remembers the first message that could not be packed, so that building
// reads as the configuration does.
type writer struct{ err error }

func (w *writer) any(m proto.Message) *anypb.Any {
	out, err := anypb.New(m)
	if err != nil && w.err == nil {
		w.err = err
	}
	return out
}

func (w *writer) admin(req Request, p Params) *bootstrapv3.Admin {
	address := socketAddress(p.AdminAddress, p.AdminPort)
	if adminOnSocket(req, p) {
		address = pipeAddress(AdminSocket(req.Workdir), 0o600)
	}
	return &bootstrapv3.Admin{
		Address: address,
		AccessLog: []*accesslogv3.AccessLog{{
			Name:       "envoy.access_loggers.file",
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: w.any(&fileaccesslogv3.FileAccessLog{Path: p.AdminAccessLog})},
		}},
	}
}

// discovery adds what the aggregated stream needs to the static resources.
func (w *writer) discovery(req Request, p Params, static *bootstrapv3.Bootstrap_StaticResources) *bootstrapv3.Bootstrap_DynamicResources {
	var service *corev3.GrpcService
	if p.ReloadableTokens && req.DataplaneTokenPath != "" {
		service = w.fileTokenService(req, p)
	} else {
		service = &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: adsCluster},
		}}
		if req.DataplaneToken != "" {
			service.InitialMetadata = []*corev3.HeaderValue{{Key: "authorization", Value: req.DataplaneToken}}
		}
		static.Secrets = append(static.Secrets, validation(p))
		static.Clusters = append(static.Clusters, w.adsCluster(p))
	}
	over := func() *corev3.ConfigSource {
		return &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   durationpb.New(0),
		}
	}
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: over(),
		CdsConfig: over(),
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices:              []*corev3.GrpcService{service},
		},
	}
}

// fileTokenService is the only client in Envoy that reads a credential again
// from its file.
func (w *writer) fileTokenService(req Request, p Params) *corev3.GrpcService {
	const plugin = "envoy.grpc_credentials.file_based_metadata"
	number := func(n int64) *corev3.GrpcService_GoogleGrpc_ChannelArgs_Value {
		return &corev3.GrpcService_GoogleGrpc_ChannelArgs_Value{
			ValueSpecifier: &corev3.GrpcService_GoogleGrpc_ChannelArgs_Value_IntValue{IntValue: n},
		}
	}
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_GoogleGrpc_{GoogleGrpc: &corev3.GrpcService_GoogleGrpc{
		TargetUri:              net.JoinHostPort(p.XDSHost, strconv.FormatUint(uint64(p.XDSPort), 10)),
		StatPrefix:             "ads",
		CredentialsFactoryName: plugin,
		ChannelCredentials: &corev3.GrpcService_GoogleGrpc_ChannelCredentials{
			CredentialSpecifier: &corev3.GrpcService_GoogleGrpc_ChannelCredentials_SslCredentials{
				SslCredentials: &corev3.GrpcService_GoogleGrpc_SslCredentials{RootCerts: inline(p.CA)},
			},
		},
		CallCredentials: []*corev3.GrpcService_GoogleGrpc_CallCredentials{{
			CredentialSpecifier: &corev3.GrpcService_GoogleGrpc_CallCredentials_FromPlugin{
				FromPlugin: &corev3.GrpcService_GoogleGrpc_CallCredentials_MetadataCredentialsFromPlugin{
					Name: plugin,
					ConfigType: &corev3.GrpcService_GoogleGrpc_CallCredentials_MetadataCredentialsFromPlugin_TypedConfig{
						TypedConfig: w.any(&grpccredentialv3.FileBasedMetadataConfig{SecretData: &corev3.DataSource{
							Specifier: &corev3.DataSource_Filename{Filename: req.DataplaneTokenPath},
						}}),
					},
				},
			},
		}},
		ChannelArgs: &corev3.GrpcService_GoogleGrpc_ChannelArgs{Args: map[string]*corev3.GrpcService_GoogleGrpc_ChannelArgs_Value{
			"grpc.keepalive_time_ms":            number(10_000),
			"grpc.keepalive_timeout_ms":         number(30_000),
			"grpc.http2.max_pings_without_data": number(0),
			"grpc.max_receive_message_length":   number(int64(p.XDSMaxMessageBytes)),
		}},
	}}}
}

// validation is what a control plane has to prove: the authority, and that it
// is the host that was asked.
func validation(p Params) *tlsv3.Secret {
	exactly := func(kind tlsv3.SubjectAltNameMatcher_SanType) *tlsv3.SubjectAltNameMatcher {
		return &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: p.XDSHost},
		}}
	}
	return &tlsv3.Secret{Name: validationSecret, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(p.CA),
			MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{
				exactly(tlsv3.SubjectAltNameMatcher_DNS),
				exactly(tlsv3.SubjectAltNameMatcher_IP_ADDRESS),
			},
		},
	}}
}

func (w *writer) adsCluster(p Params) *clusterv3.Cluster {
	tls := &tlsv3.UpstreamTlsContext{
		Sni: p.XDSHost,
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: validationSecret},
			},
		},
	}
	c := w.systemCluster(adsCluster, p, socketAddress(p.XDSHost, p.XDSPort))
	c.TransportSocket = &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: w.any(tls)},
	}
	if net.ParseIP(p.XDSHost) == nil {
		c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
		// Not AUTO: it takes IPv6 alone where both exist, and "localhost" has an
		// IPv6 address on many hosts that have no IPv6.
		c.DnsLookupFamily = clusterv3.Cluster_ALL
		if p.XDSIPv4Only {
			c.DnsLookupFamily = clusterv3.Cluster_V4_ONLY
		}
	}
	return c
}

func (w *writer) accessLogSink(req Request, p Params) *clusterv3.Cluster {
	return w.systemCluster(accessLogCluster, p, pipeAddress(AccessLogSocket(req.Workdir, req.Name, req.Mesh), 0))
}

// systemCluster speaks HTTP/2 to one address. The keepalive finds a peer that
// vanished within a minute; streams of discovery are silent for hours.
func (w *writer) systemCluster(name string, p Params, address *corev3.Address) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(p.XDSConnectTimeout),
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveProbes:   wrapperspb.UInt32(3),
			KeepaliveTime:     wrapperspb.UInt32(10),
			KeepaliveInterval: wrapperspb.UInt32(10),
		}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": w.any(&httpv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
						},
					},
				},
			}),
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}},
			}}}},
		},
	}
}

func statsTag(name, regex string) *metricsv3.TagSpecifier {
	return &metricsv3.TagSpecifier{TagName: name, TagValue: &metricsv3.TagSpecifier_Regex{Regex: regex}}
}

func inline(pem string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: pem}}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func pipeAddress(path string, mode uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: mode}}}
}
