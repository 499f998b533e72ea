package metrics

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

var errCut = errors.New("OpenMetrics without # EOF at its end: it was cut")

// maxLine is the longest line that is read.
const maxLine = 1 << 20

// plainText is OpenMetrics text in Prometheus's older format, the one that
// libraries read. What that cannot say is left out: units, exemplars, and when
// something was created.
// https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
func plainText(body io.Reader) (io.Reader, error) {
	t := translation{types: map[string]string{}}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		line := lines.Text()
		if line == "# EOF" {
			return &t.out, nil
		}
		if err := t.line(line); err != nil {
			return nil, err
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return nil, errCut
}

// translation is what has been read so far.
type translation struct {
	out   bytes.Buffer
	types map[string]string // of the families
	// help is what was said of the family described, which is written once its type
	// is known.
	described, help string
}

func (t *translation) line(line string) error {
	rest, ok := strings.CutPrefix(line, "# ")
	if !ok {
		return t.sample(line)
	}
	keyword, rest, _ := strings.Cut(rest, " ")
	name, text, _ := strings.Cut(rest, " ")
	if name != t.described {
		t.writeHelp(t.described)
		t.described = name
	}
	switch keyword {
	case "HELP":
		t.help = unquote(text)
	case "TYPE":
		t.types[name] = text
		older, known := map[string]string{"counter": "counter", "gauge": "gauge", "histogram": "histogram", "summary": "summary", "info": "gauge", "stateset": "gauge"}[text]
		name += map[string]string{"counter": "_total", "info": "_info"}[text]
		if known { // a gauge histogram is single series there
			fmt.Fprintf(&t.out, "# TYPE %s %s\n", name, older)
		}
		t.writeHelp(name)
	}
	return nil
}

func (t *translation) writeHelp(name string) {
	if t.help != "" {
		fmt.Fprintf(&t.out, "# HELP %s %s\n", name, t.help)
	}
	t.help = ""
}

// unquote: the older format escapes no quotes in a help.
func unquote(help string) string {
	return strings.NewReplacer(`\\`, `\\`, `\"`, `"`).Replace(help)
}

func (t *translation) sample(line string) error {
	series, rest := cutSeries(line)
	name, _, _ := strings.Cut(series, "{")
	if family, ok := strings.CutSuffix(name, "_created"); ok && t.types[family] != "" && t.types[name] == "" {
		return nil
	}
	rest, _, _ = strings.Cut(rest, " # ")
	fields := strings.Fields(rest)
	if len(fields) < 1 || len(fields) > 2 || series == "" {
		return fmt.Errorf("OpenMetrics: no sample: %.100q", line)
	}
	fmt.Fprintf(&t.out, "%s %s", series, fields[0])
	if len(fields) == 2 {
		seconds, err := strconv.ParseFloat(fields[1], 64)
		if err != nil {
			return fmt.Errorf("OpenMetrics: time of a sample: %w", err)
		}
		fmt.Fprintf(&t.out, " %d", int64(math.Round(seconds*1000)))
	}
	t.out.WriteByte('\n')
	return nil
}

// cutSeries is the name and the labels of a sample, and what follows.
func cutSeries(line string) (series, rest string) {
	quoted, labels := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{':
			labels = true
		case c == '}':
			labels = false
		case c == ' ' && !labels:
			return line[:i], line[i+1:]
		}
	}
	return line, ""
}
