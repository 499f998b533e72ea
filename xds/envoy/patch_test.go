package envoy_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/atoll-mesh/atoll/xds/envoy"
)

func TestParsePatch(t *testing.T) {
	const lua = `{"name":"lua","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua","defaultSourceCode":{"inlineString":"x"}}}`
	for _, c := range []struct {
		target, value string
		whole         bool
		want          string // of the error; empty: none
	}{
		{"cluster", `{"name":"a","connectTimeout":"5s"}`, true, ""},
		{"cluster", `{"name":"a","connect_timeout":"5s"}`, true, ""},
		{"cluster", `{"connectTimeout":"5s"}`, true, "invalid Cluster.Name"},
		{"cluster", `{"connectTimeout":"5s"}`, false, ""},
		{"cluster", `{"nmae":"a"}`, false, `unknown field "nmae"`},
		{"cluster", `{"connectTimeout":5}`, false, "unexpected token"},
		{"listener", `{"name":"a","perConnectionBufferLimitBytes":1024}`, false, ""},
		{"networkFilter", `{"name":"a"}`, true, ""},
		{"networkFilter", `{"name":"tcp","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"}}`, true, "invalid TcpProxy.StatPrefix"},
		{"networkFilter", `{"name":"tcp","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"}}`, false, ""},
		{"httpFilter", lua, true, ""},
		{"httpFilter", `{"name":"a","typedConfig":{"@type":"type.googleapis.com/no.Such"}}`, false, "no.Such"},
		{"virtualHost", `{"name":"a","domains":["*"],"routes":[{"match":{"prefix":"/"},"directResponse":{"status":200},"typedPerFilterConfig":{"x":{"@type":"type.googleapis.com/envoy.config.route.v3.VirtualHost"}}}]}`, true, "invalid VirtualHost.Name"},
		{"secret", `{}`, true, `a patch cannot be of a "secret"`},
	} {
		_, err := envoy.ParsePatch(c.target, []byte(c.value), c.whole)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s %s: %v", c.target, c.value, err)
		case c.want != "" && (err == nil || !errors.Is(err, envoy.ErrInvalid) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s %s: %v, want %s", c.target, c.value, err, c.want)
		}
	}
}
