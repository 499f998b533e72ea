package server_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/atoll-mesh/atoll/api/server"
)

func TestSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s server.Said
		heard := make(chan string, 1)
		go func() {
			value, err := s.Value(t.Context(), "API")
			if err != nil {
				t.Error(err)
			}
			heard <- value
		}()
		for _, part := range []string{"starting\ndiag", "nostics: d\nAP", "I: 127.0.0.1:", "5681"} {
			if _, err := io.WriteString(&s, part); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if len(heard) > 0 {
				t.Fatalf("heard before the line ended, after %q", part)
			}
		}
		if _, err := io.WriteString(&s, "\n"); err != nil {
			t.Fatal(err)
		}
		if value := <-heard; value != "127.0.0.1:5681" {
			t.Errorf("API: %q", value)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if value, err := s.Value(short, "diagnostics"); value != "d" || err != nil {
			t.Errorf("diagnostics: %q, %v", value, err)
		}
		if _, err := s.Value(short, "KDS"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("what was never said: %v", err)
		}
		broken := errors.New("exit status 1")
		time.AfterFunc(time.Second, func() { s.End(broken) })
		if _, err := s.Value(t.Context(), "KDS"); !errors.Is(err, broken) || !strings.Contains(err.Error(), "KDS") {
			t.Errorf("after the end: %v", err)
		}
		if value, err := s.Value(t.Context(), "API"); value != "127.0.0.1:5681" || err != nil {
			t.Errorf("after the end, what was said: %q, %v", value, err)
		}
	})
}
