//go:build unix

package bolt_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/atoll-mesh/atoll/api/store"
	"github.com/atoll-mesh/atoll/api/store/bolt"
)

// Some tests need a process of their own: to be killed, or to have no room on
// the disk. The test binary is started again and plays the role in this variable.
const role = "ATOLL_BOLT_TEST_ROLE"

func TestMain(m *testing.M) {
	switch path := os.Getenv("ATOLL_BOLT_TEST_PATH"); os.Getenv(role) {
	case "writer":
		os.Exit(writeForEver(path))
	case "full":
		os.Exit(writeUntilFull(path))
	}
	os.Exit(m.Run())
}

func child(t *testing.T, name, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), role+"="+name, "ATOLL_BOLT_TEST_PATH="+path)
	return cmd
}

// writeForEver says which writes were acknowledged.
func writeForEver(path string) int {
	s, err := bolt.Open(path)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	start := len(firstBatch(s).Puts)
	for i := start; ; i++ {
		if _, err := s.Apply(context.Background(), []store.Op{mesh(fmt.Sprint("m", i), strings.Repeat(" ", 500)+"{}")}); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("ack", i)
	}
}

func firstBatch(s store.Store) store.Batch {
	for b, err := range s.Follow(context.Background()) {
		if err != nil {
			panic(err)
		}
		return b
	}
	panic("no batch")
}

func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	acked := -1
	for round := range 5 {
		cmd := child(t, "writer", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		killAt := acked + 7 + 5*round
		for lines.Scan() {
			n, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "ack "))
			if err != nil {
				t.Fatal(lines.Text())
			}
			acked = n
			if acked == killAt {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("the writer was not killed: %v", err)
		}
		s, err := bolt.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		b := firstBatch(s)
		// One more may be stored than was heard of.
		if len(b.Puts) <= acked || len(b.Puts) > acked+2 || int(b.Revision) != len(b.Puts) {
			t.Errorf("round %d: %d rows at revision %d, acknowledged up to %d", round, len(b.Puts), b.Revision, acked)
		}
		acked = len(b.Puts) - 1
		s.Close()
	}
}

// writeUntilFull has a file system that takes no byte beyond a limit.
func writeUntilFull(path string) int {
	signal.Ignore(syscall.SIGXFSZ)
	limit := func(n uint64) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: 1 << 40}); err != nil {
			panic(err)
		}
	}
	fail := func(format string, args ...any) int {
		fmt.Printf(format+"\n", args...)
		return 1
	}
	full := func(err error) bool {
		// bbolt does not wrap all errors of the file system.
		return err != nil && strings.Contains(err.Error(), syscall.EFBIG.Error()) && strings.Contains(err.Error(), path)
	}
	limit(4096)
	if _, err := bolt.Open(path); !full(err) {
		return fail("created on a full disk: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return fail("left by a start on a full disk: %v", err)
	}
	limit(128 << 10)
	s, err := bolt.Open(path)
	if err != nil {
		return fail("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	acked := 0
	for ; ; acked++ {
		if _, err = s.Apply(ctx, []store.Op{mesh(fmt.Sprint("m", acked), strings.Repeat(" ", 5000)+"{}")}); err != nil {
			break
		}
	}
	if !full(err) {
		return fail("writing to a full disk: %v", err)
	}
	if n := len(firstBatch(s).Puts); acked == 0 || n != acked {
		return fail("%d rows after a full disk, %d acknowledged", n, acked)
	}
	// The file cannot be written at all: a start says so.
	if err := s.Close(); err != nil {
		return fail("%v", err)
	}
	limit(8192)
	if _, err = bolt.Open(path); !full(err) {
		return fail("a start on a full disk: %v", err)
	}
	// There is room again.
	limit(1 << 30)
	if s, err = bolt.Open(path); err != nil {
		return fail("after there is room again: %v", err)
	}
	if _, err = s.Apply(ctx, []store.Op{mesh("last", `{}`)}); err != nil {
		return fail("after there is room again: %v", err)
	}
	if n := len(firstBatch(s).Puts); n != acked+1 {
		return fail("%d rows in the end, want %d", n, acked+1)
	}
	return 0
}

func TestFullDisk(t *testing.T) {
	out, err := child(t, "full", filepath.Join(t.TempDir(), "store")).CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
