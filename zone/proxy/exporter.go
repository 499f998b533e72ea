package proxy

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	gzipcodec "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/atoll-mesh/atoll/xds/bootstrap"
)

// exporter sends one signal to one collector. What the resource of the collector
// says and what the environment says is merged as the resource wants it; a value
// that only one of the two has counts in any case.
// https://opentelemetry.io/docs/specs/otel/protocol/exporter/
type exporter struct {
	http    *http.Client
	url     string
	grpc    *grpc.ClientConn
	headers map[string]string
	timeout time.Duration
	gzip    bool
}

// Environment is the variables of a process that concern OpenTelemetry: HOST_IP, where
// collectors without a host are, and OTEL_EXPORTER_OTLP_…, each without that beginning.
type Environment map[string]string

const (
	hostKey    = "HOST_IP"
	otelPrefix = "OTEL_EXPORTER_OTLP_"
)

func environmentOf(values map[string]string) Environment {
	out := Environment{hostKey: values[hostKey]}
	for name, value := range values {
		if rest, ok := strings.CutPrefix(name, otelPrefix); ok {
			out[rest] = value
		}
	}
	return out
}

// exporter makes one. It opens no connection yet.
func (env Environment) exporter(b bootstrap.CollectorBackend, signal string) (*exporter, error) {
	host := cmp.Or(env[hostKey], "127.0.0.1")
	if b.Env.Mode == "Disabled" {
		env = nil
	}
	get := func(name string) (value string, own bool) {
		if v := env[strings.ToUpper(signal)+"_"+name]; v != "" && b.Env.AllowSignalOverrides {
			return v, true
		}
		return env[name], false
	}
	endpoint, ownEndpoint := get("ENDPOINT")
	if b.Env.Mode == "Required" && endpoint == "" {
		return nil, fmt.Errorf("the collector needs %sENDPOINT in the environment of this program", otelPrefix)
	}
	protocol, _ := get("PROTOCOL")
	explicit := !strings.HasPrefix(b.Endpoint, ":") // the resource says where
	if b.Env.Precedence == "ExplicitFirst" {
		protocol = ""
		if explicit {
			endpoint, ownEndpoint = "", false
		}
	}
	e := &exporter{timeout: 10 * time.Second, headers: map[string]string{}}
	if text, _ := get("TIMEOUT"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil || ms == 0 {
			return nil, fmt.Errorf("%sTIMEOUT is %q; it must be milliseconds", otelPrefix, text)
		}
		e.timeout = time.Duration(ms) * time.Millisecond
	}
	compression, _ := get("COMPRESSION")
	e.gzip = compression == "gzip"
	text, _ := get("HEADERS")
	for _, pair := range strings.Split(text, ",") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			if plain, err := url.QueryUnescape(strings.TrimSpace(value)); err == nil {
				value = plain
			}
			e.headers[strings.ToLower(strings.TrimSpace(name))] = value
		}
	}
	asHTTP := b.UseHTTP
	switch protocol {
	case "":
	case "grpc":
		asHTTP = false
	case "http/protobuf":
		asHTTP = true
	default:
		return nil, fmt.Errorf("%sPROTOCOL is %q; it must be grpc or http/protobuf", otelPrefix, protocol)
	}
	to := &url.URL{Scheme: "http", Host: b.Endpoint, Path: "/" + strings.Trim(b.Path, "/")}
	if !explicit {
		to.Host = net.JoinHostPort(host, strings.TrimPrefix(b.Endpoint, ":"))
	}
	if b.UseHTTPS {
		to.Scheme = "https"
	}
	if endpoint != "" {
		var err error
		if to, err = endpointOf(endpoint, get); err != nil {
			return nil, err
		}
	}
	if !ownEndpoint {
		to = to.JoinPath("v1", signal)
	}
	config, err := tlsFrom(get)
	if err != nil {
		return nil, err
	}
	if asHTTP {
		e.url = to.String()
		e.http = &http.Client{Timeout: e.timeout, Transport: &http.Transport{TLSClientConfig: config, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}}
		return e, nil
	}
	secure := insecure.NewCredentials()
	if to.Scheme == "https" {
		secure = credentials.NewTLS(config)
	}
	e.grpc, err = grpc.NewClient("passthrough:///"+to.Host, grpc.WithTransportCredentials(secure), grpc.WithDefaultCallOptions(grpc.ForceCodec(asIs{})))
	return e, err
}

// endpointOf reads an endpoint of the environment: a URL, or for gRPC host:port, with
// TLS unless INSECURE says other.
func endpointOf(text string, get func(string) (string, bool)) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		plain, _ := get("INSECURE")
		scheme := "https://"
		if strings.EqualFold(plain, "true") {
			scheme = "http://"
		}
		text = scheme + text
	}
	to, err := url.Parse(text)
	if err != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		return nil, fmt.Errorf("%sENDPOINT is no URL such as http://collector:4317", otelPrefix)
	}
	return to, nil
}

// tlsFrom reads the files that the environment names.
func tlsFrom(get func(string) (string, bool)) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file, _ := get("CERTIFICATE"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("%sCERTIFICATE: %w", otelPrefix, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%sCERTIFICATE: no PEM certificate in %s", otelPrefix, file)
		}
	}
	chain, _ := get("CLIENT_CERTIFICATE")
	key, _ := get("CLIENT_KEY")
	if chain != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(chain, key)
		if err != nil {
			return nil, fmt.Errorf("%sCLIENT_CERTIFICATE and CLIENT_KEY: %w", otelPrefix, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (e *exporter) close() {
	switch {
	case e == nil:
	case e.http != nil:
		e.http.CloseIdleConnections()
	default:
		_ = e.grpc.Close()
	}
}

// deliver sends items one by one.
func (e *exporter) deliver(ctx context.Context, method string, items [][]byte) (int, error) {
	for n, item := range items {
		ctx, cancel := context.WithTimeout(ctx, e.timeout)
		err := e.send(ctx, method, item)
		cancel()
		if err != nil {
			return n, err
		}
	}
	return len(items), nil
}

func (e *exporter) send(ctx context.Context, method string, item []byte) error {
	var answer []byte
	var err error
	if e.http != nil {
		answer, err = e.post(ctx, item)
	} else {
		answer, err = e.invoke(ctx, method, item)
	}
	if err != nil {
		return err
	}
	if rejected, why := partial(answer); rejected > 0 {
		return fmt.Errorf("%w: the collector refused %d: %s", ErrUndeliverable, rejected, why)
	}
	return nil
}

// partial reads how much of what was sent a collector refused, and why. The answers
// of all signals have one form, partial_success = 1 of rejected = 1 and
// error_message = 2; the packages for them would bring a gateway along.
func partial(answer []byte) (rejected uint64, why string) {
	each := func(message []byte, f func(protowire.Number, []byte)) {
		for len(message) > 0 {
			field, kind, n := protowire.ConsumeTag(message)
			if n < 0 {
				return
			}
			size := protowire.ConsumeFieldValue(field, kind, message[n:])
			if size < 0 {
				return
			}
			f(field, message[n:n+size])
			message = message[n+size:]
		}
	}
	each(answer, func(field protowire.Number, value []byte) {
		inner, n := protowire.ConsumeBytes(value)
		if field != 1 || n < 0 {
			return
		}
		each(inner, func(field protowire.Number, value []byte) {
			switch field {
			case 1:
				rejected, _ = protowire.ConsumeVarint(value)
			case 2:
				text, _ := protowire.ConsumeBytes(value)
				why = string(text)
			}
		})
	})
	return rejected, why
}

func (e *exporter) invoke(ctx context.Context, method string, item []byte) (answer []byte, err error) {
	var options []grpc.CallOption
	if e.gzip {
		options = append(options, grpc.UseCompressor(gzipcodec.Name))
	}
	err = e.grpc.Invoke(metadata.NewOutgoingContext(ctx, metadata.New(e.headers)), method, &item, &answer, options...)
	switch status.Code(err) { // https://opentelemetry.io/docs/specs/otlp/#failures
	case codes.OK, codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss, codes.ResourceExhausted:
		return answer, err
	}
	return nil, fmt.Errorf("%w: %w", ErrUndeliverable, err)
}

func (e *exporter) post(ctx context.Context, item []byte) ([]byte, error) {
	body := item
	if e.gzip {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		_, err := w.Write(item)
		if err = errors.Join(err, w.Close()); err != nil {
			return nil, err
		}
		body = out.Bytes()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUndeliverable, err)
	}
	for name, value := range e.headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("content-type", "application/x-protobuf")
	if e.gzip {
		req.Header.Set("content-encoding", "gzip")
	}
	res, err := e.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	switch res.StatusCode { // https://opentelemetry.io/docs/specs/otlp/#failures-1
	case http.StatusOK:
		return answer, err
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return nil, fmt.Errorf("%s answered %s", e.url, res.Status)
	}
	return nil, fmt.Errorf("%w: %s answered %s: %.200q", ErrUndeliverable, e.url, res.Status, answer)
}
