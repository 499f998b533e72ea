package server

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
)

// Said takes what a control plane says to people (see [Server.Say]), for programs
// that start one and need to know where it listens: it notes lines "label: value".
// The zero value is ready for use.
type Said struct {
	mu     sync.Mutex
	line   []byte // that has not ended yet
	values map[string]string
	more   chan struct{} // closed when there is more, or the end
	end    error
}

// Write implements io.Writer.
func (s *Said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = append(s.line, p...)
	for {
		line, rest, whole := bytes.Cut(s.line, []byte{'\n'})
		if !whole {
			return len(p), nil
		}
		if label, value, ok := strings.Cut(string(line), ": "); ok {
			if s.values == nil {
				s.values = map[string]string{}
			}
			s.values[label] = value
			s.wake()
		}
		s.line = rest
	}
}

// End says that nothing more will be said, and why.
func (s *Said) End(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = why
	s.wake()
}

func (s *Said) wake() {
	if s.more != nil {
		close(s.more)
		s.more = nil
	}
}

// Value waits until the value of a label is said, and returns the newest.
func (s *Said) Value(ctx context.Context, label string) (string, error) {
	for {
		s.mu.Lock()
		value, ok := s.values[label]
		end := s.end
		if s.more == nil {
			s.more = make(chan struct{})
		}
		more := s.more
		s.mu.Unlock()
		switch {
		case ok:
			return value, nil
		case end != nil:
			return "", fmt.Errorf("it did not say its %q: %w", label, end)
		}
		select {
		case <-more:
		case <-ctx.Done():
			return "", fmt.Errorf("it does not say its %q: %w", label, context.Cause(ctx))
		}
	}
}
