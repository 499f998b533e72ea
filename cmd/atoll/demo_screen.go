package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen shows the story: plain lines, and on a terminal also a last line that
// moves and says what is being waited for.
type screen struct {
	out      io.Writer
	terminal bool
	file     *os.File
	stopped  chan struct{}
	done     chan struct{}

	mu    sync.Mutex
	note  string // what is being waited for; empty: no moving line
	shown bool   // whether the moving line is on the terminal
	frame int
	began time.Time // of the step
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, stopped: make(chan struct{}), done: make(chan struct{})}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.file, s.terminal = f, true
	}
	go s.spin()
	return s
}

func (s *screen) close() {
	close(s.stopped)
	<-s.done
}

func (s *screen) spin() {
	defer close(s.done)
	if !s.terminal {
		return
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-s.stopped:
			s.mu.Lock()
			s.erase()
			s.mu.Unlock()
			return
		case <-ticker.C:
			s.mu.Lock()
			s.frame++
			s.draw()
			s.mu.Unlock()
		}
	}
}

// draw repaints the moving line, cut to the terminal's width.
func (s *screen) draw() {
	s.erase()
	if s.note == "" {
		return
	}
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	text := []rune(fmt.Sprintf("  %c %4.1f s  %s", frames[s.frame%len(frames)], time.Since(s.began).Seconds(), s.note))
	if width, _, err := term.GetSize(int(s.file.Fd())); err == nil && len(text) >= width {
		text = text[:max(0, width-1)]
	}
	fmt.Fprint(s.out, string(text))
	s.shown = true
}

func (s *screen) erase() {
	if s.shown {
		fmt.Fprint(s.out, "\r\x1b[2K")
		s.shown = false
	}
}

// line prints a line that stays.
func (s *screen) line(format string, args ...any) {
	s.erase()
	fmt.Fprintf(s.out, format+"\n", args...)
}

// style is a colour on a terminal of somebody who did not refuse colours.
func (s *screen) style(code, text string) string {
	if !s.terminal || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// say prints a line.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(format, args...)
}

// begin starts a step.
func (s *screen) begin(number, of int, title string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = time.Now()
	s.line("%s", s.style("1", fmt.Sprintf("%d/%d  %s", number, of, title)))
}

// waiting says what is being waited for.
func (s *screen) waiting(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = fmt.Sprintf(format, args...)
}

// fact prints what a step found.
func (s *screen) fact(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line("     "+format, args...)
}

// end ends a step.
func (s *screen) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note = ""
	took := fmt.Sprintf("%.1f s", time.Since(s.began).Seconds())
	if err != nil {
		s.line("     %s after %s", s.style("31", "✗ failed"), took)
		return
	}
	s.line("     %s %s", s.style("32", "✓"), took)
}
