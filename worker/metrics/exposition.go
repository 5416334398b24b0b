package metrics

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// page is a metrics page while it is written, in the Prometheus text format, version 0.0.4. One goroutine writes it.
// families has every metric by name. A sample of a metric that is not in it would get an empty HELP line; a test
// compares the two.
type page struct {
	families map[string]Family
	out      []byte
}

// family writes the HELP and TYPE lines, which come before the first sample of a metric.
func (p *page) family(name string) {
	f := p.families[name]
	p.out = append(p.out, "# HELP "+name+" "+f.Help+"\n# TYPE "+name+" "+f.Type+"\n"...)
}

// sample writes one line; labels are names and values in turn.
func (p *page) sample(name string, value float64, labels ...string) {
	p.out = append(p.out, name...)
	for i := 0; i+1 < len(labels); i += 2 {
		// The index picks the separator without a branch.
		p.out = append(p.out, ",{"[boolToInt(i == 0)])
		p.out = append(p.out, labels[i]...)
		p.out = append(p.out, '=', '"')
		p.out = appendLabel(p.out, labels[i+1])
		p.out = append(p.out, '"')
	}
	if len(labels) > 1 {
		p.out = append(p.out, '}')
	}
	p.out = append(p.out, ' ')
	p.out = appendValue(p.out, value)
	p.out = append(p.out, '\n')
}

// one writes a family of one sample without labels.
func (p *page) one(name string, value float64) {
	p.family(name)
	p.sample(name, value)
}

// annotated appends a page of the metrics library, and adds the HELP and TYPE lines that the library has no texts for.
// The library writes the samples of a family one after the other, so each family gets its lines once.
func (p *page) annotated(samples []byte) {
	last := ""
	for line := range bytes.Lines(samples) {
		// The library may write comments of its own, such as TYPE lines.
		if line[0] == '#' {
			continue
		}
		// The page of the library is sorted by name, which keeps a family together.
		if name := p.familyOf(line); name != last {
			p.family(name)
			last = name
		}
		p.out = append(p.out, line...)
	}
}

// familyOf returns the name of the family that a line belongs to: a histogram has three kinds of samples.
func (p *page) familyOf(line []byte) string {
	name := string(line[:bytes.IndexAny(line, "{ ")])
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && p.families[base].Type == "histogram" {
			return base
		}
	}
	return name
}

// appendValue appends a number as Prometheus reads it. Whole numbers that a float64 holds exactly are written without a
// fraction. Infinity and NaN are written as the format has them.
func appendValue(out []byte, v float64) []byte {
	// Exact up to 2^53.
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(out, int64(v), 10)
	}
	return strconv.AppendFloat(out, v, 'g', -1, 64)
}

// appendLabel writes a value as text.Printable has it, and escapes what the text format knows: backslash and quote. The
// format has no escape for a control character, and one byte that is no UTF-8 makes its readers refuse the page.
func appendLabel(out []byte, value string) []byte {
	value = text.Printable(value)
	for i := range len(value) {
		if c := value[i]; c == '\\' || c == '"' {
			out = append(out, '\\')
		}
		out = append(out, value[i])
	}
	return out
}

// boolToInt is 1 for true, as gauges show states.
func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
