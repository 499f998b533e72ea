package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/atoll-mesh/atoll/api"
	"github.com/atoll-mesh/atoll/api/rest"
)

// levels is what each component of a control plane logs, which can be changed
// while it runs.
type levels struct {
	base slog.Level
	mu   sync.Mutex // orders changes
	over atomic.Pointer[map[string]slog.Level]
}

// off is above every level that is used.
const off = slog.Level(100)

func newLevels(base slog.Level) *levels {
	l := &levels{base: base}
	l.over.Store(&map[string]slog.Level{})
	return l
}

func (l *levels) of(component string) slog.Level {
	if level, ok := (*l.over.Load())[component]; ok {
		return level
	}
	return l.base
}

// change replaces the overrides with a changed copy.
func (l *levels) change(f func(map[string]slog.Level)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := maps.Clone(*l.over.Load())
	f(next)
	l.over.Store(&next)
}

// componentKey is the attribute that names the component of a logger.
const componentKey = "component"

// leveled is a slog.Handler that asks levels.
type leveled struct {
	slog.Handler
	levels    *levels
	component string
}

// Enabled implements [slog.Handler].
func (h *leveled) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.levels.of(h.component)
}

// WithAttrs implements [slog.Handler].
func (h *leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := &leveled{h.Handler.WithAttrs(attrs), h.levels, h.component}
	for _, a := range attrs {
		if a.Key == componentKey {
			next.component = a.Value.String()
		}
	}
	return next
}

// WithGroup implements [slog.Handler].
func (h *leveled) WithGroup(name string) slog.Handler {
	return &leveled{h.Handler.WithGroup(name), h.levels, h.component}
}

// logger writes to w what levels let through.
func logger(c LogConfig, w io.Writer) (*slog.Logger, *levels) {
	var base slog.Level
	_ = base.UnmarshalText([]byte(c.Level)) // checked by Validate
	levels := newLevels(base)
	o := &slog.HandlerOptions{Level: slog.LevelDebug}
	var h slog.Handler = slog.NewTextHandler(w, o)
	if c.Format == "json" {
		h = slog.NewJSONHandler(w, o)
	}
	return slog.New(&leveled{Handler: h, levels: levels}), levels
}

// Component is the logger of a part of the control plane, whose level can be
// changed by its name.
func (s *Server) Component(name string) *slog.Logger { return s.Log.With(componentKey, name) }

// levelNames are those that a level may have.
var levelNames = []string{"debug", "info", "warn", "error", "off"}

func parseLevel(text string) (slog.Level, bool) {
	if text == "off" {
		return off, true
	}
	var level slog.Level
	return level, slices.Contains(levelNames, text) && level.UnmarshalText([]byte(text)) == nil
}

func levelName(level slog.Level) string {
	if level == off {
		return "off"
	}
	return strings.ToLower(level.String())
}

// maxLevelBody is the size of a request for a level, in bytes.
const maxLevelBody = 4096

// logging serves the overrides of levels: GET and DELETE /logging, PUT
// /logging, DELETE /logging/{component}. All answer with what holds then.
func (s *Server) logging(mux *http.ServeMux) {
	answer := func(w http.ResponseWriter) {
		out := map[string]string{}
		for component, level := range *s.levels.over.Load() {
			out[component] = levelName(level)
		}
		rest.WriteJSON(w, http.StatusOK, map[string]any{"components": out})
	}
	mux.HandleFunc("GET /logging", func(w http.ResponseWriter, _ *http.Request) { answer(w) })
	mux.HandleFunc("DELETE /logging", func(w http.ResponseWriter, _ *http.Request) {
		s.levels.change(func(m map[string]slog.Level) { clear(m) })
		answer(w)
	})
	mux.HandleFunc("DELETE /logging/{component}", func(w http.ResponseWriter, r *http.Request) {
		s.levels.change(func(m map[string]slog.Level) { delete(m, r.PathValue("component")) })
		answer(w)
	})
	mux.HandleFunc("PUT /logging", func(w http.ResponseWriter, r *http.Request) {
		if err := s.setLevel(http.MaxBytesReader(w, r.Body, maxLevelBody)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w)
	})
}

// maxComponents bounds the overrides, whose names come from outside.
const maxComponents = 256

func (s *Server) setLevel(body io.Reader) error {
	var q struct{ Component, Level string }
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&q); err != nil {
		return fmt.Errorf(`want {"component":"…","level":"…"} of at most %d bytes: %w`, maxLevelBody, err)
	}
	var r api.Report
	if q.Component == "" {
		r.At("component").Add("cannot be empty")
	}
	level, ok := parseLevel(q.Level)
	if !ok {
		r.At("level").OneOf(q.Level, levelNames, "is %q; allowed: %s", q.Level, strings.Join(levelNames, ", "))
	}
	if err := r.Err(); err != nil {
		return err
	}
	full := false
	s.levels.change(func(m map[string]slog.Level) {
		if _, has := m[q.Component]; !has && len(m) == maxComponents {
			full = true
			return
		}
		m[q.Component] = level
	})
	if full {
		return fmt.Errorf("there are %d overrides already; delete some first", maxComponents)
	}
	return nil
}
