package proxy_test

import (
	"strings"
	"testing"
)

// Control planes are told which variables there are, and none of what they say.
func TestInventory(t *testing.T) {
	cp := newControlPlane(t, 0, onSocket)
	c, log := config(t, cp, fakeEnvoy(t, "exit 0"))
	if err := c.Environment([]string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=https://secret.example/secret", "OTEL_EXPORTER_OTLP_HEADERS=key=secret", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
	}); err != nil {
		t.Fatal(err)
	}
	run(t, c, log).wait()
	got := string(cp.asked()[0].OTelEnv)
	for _, want := range []string{
		`"pipeEnabled":true`, `"shared":{"signal":"shared","endpointPresent":true,"endpointParsedAsURL":true,"endpointHasPath":true,`,
		`"effectiveProtocol":"grpc","effectiveAuthMode":"none","overrideKinds":["protocol"]`, `"effectiveAuthMode":"headers"`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if strings.Contains(got, "secret") {
		t.Errorf("tells a value: %s", got)
	}
}
