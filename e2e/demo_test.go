package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestDemo plays the demonstration with the built executable, as a first user
// would: a global, two zones, a shop of real Envoys, and every step asserted.
func TestDemo(t *testing.T) {
	bin, err := filepath.Abs(filepath.Join("..", "bin", "atoll"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Skip("no bin/atoll: run `make build`")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "demo", "--check", "--envoy", envoy(t))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
