package metrics

import (
	"cmp"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxBody is more than any Envoy or application gives; beyond it the answer is cut,
// and so refused.
const maxBody = 256 << 20

var errTooMuch = errors.New("more than 256 MiB of metrics")

// read reads families of metrics, sorted by name. What is not understood spoils all
// of the answer: half a histogram would be worse than none.
func read(body io.Reader, openMetrics bool) ([]*dto.MetricFamily, error) {
	limited := &io.LimitedReader{R: body, N: maxBody + 1}
	var text io.Reader = limited
	if openMetrics {
		plain, err := plainText(limited)
		if err != nil {
			return nil, err
		}
		text = plain
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err == nil && limited.N == 0 {
		err = errTooMuch
	}
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(families), byName), nil
}

func byName(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) }

// merge makes one list of what the sources gave, sorted by name.
func merge(sources []source) []*dto.MetricFamily {
	out := map[string]*dto.MetricFamily{}
	seen := map[string]map[string]bool{} // series by family, of those that several sources have
	for _, s := range sources {
		for _, f := range s.families {
			name := f.GetName()
			first, again := out[name]
			if !again {
				out[name] = f
				continue
			}
			if first.GetType() != f.GetType() {
				continue
			}
			if seen[name] == nil {
				seen[name] = map[string]bool{}
				for _, m := range first.Metric {
					seen[name][series(m)] = true
				}
			}
			for _, m := range f.Metric {
				if key := series(m); !seen[name][key] {
					seen[name][key] = true
					first.Metric = append(first.Metric, m)
				}
			}
		}
	}
	return slices.SortedFunc(maps.Values(out), byName)
}

// series is the labels of a metric as one text.
func series(m *dto.Metric) string {
	labels := make([]string, len(m.Label))
	for i, l := range m.Label {
		labels[i] = l.GetName() + "\xff" + l.GetValue()
	}
	slices.Sort(labels)
	return strings.Join(labels, "\xfe")
}

func sameLabels(a, b *dto.Metric) bool { return series(a) == series(b) }

// addLabels adds labels to all metrics of a family. Those that a metric has stay.
func addLabels(f *dto.MetricFamily, labels []*dto.LabelPair) {
	for _, m := range f.Metric {
		for _, l := range labels {
			if !slices.ContainsFunc(m.Label, func(has *dto.LabelPair) bool { return has.GetName() == l.GetName() }) {
				m.Label = append(m.Label, l)
			}
		}
	}
}

// prometheusLabels are labels with names that every Prometheus takes, sorted.
func prometheusLabels(labels map[string]string) (out []*dto.LabelPair) {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, pair(model.EscapeName(name, model.UnderscoreEscaping), labels[name]))
	}
	return out
}
