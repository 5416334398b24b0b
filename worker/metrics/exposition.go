package metrics

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// page is a metrics page while it is written, in the Prometheus text format, version 0.0.4. One goroutine writes it. families has
// every metric by name. A metric that is missing in families would get an empty HELP line; a test finds such a metric.
type page struct {
	families map[string]Family
	out      []byte
}

// family writes the HELP and TYPE lines, which come before the first sample of a metric.
func (p *page) family(name string) {
	f := p.families[name]
	p.out = append(p.out, "# HELP "+name+" "+f.Help+"\n# TYPE "+name+" "+f.Type+"\n"...)
}

// sample writes one line. labels alternates names and values.
func (p *page) sample(name string, value float64, labels ...string) {
	p.out = append(p.out, name...)
	separator := byte('{')
	for i := 0; i+1 < len(labels); i += 2 {
		p.out = append(p.out, separator)
		separator = ','
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

// appendSamples appends a page of the metrics library, and adds the HELP and TYPE lines, which the library does not have. The
// library writes the samples of a family one after the other, so each family gets its lines once.
func (p *page) appendSamples(samples []byte) {
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

// familyOf returns the name of the family that a line belongs to. The samples of a histogram have three suffixes, which are cut
// off.
func (p *page) familyOf(line []byte) string {
	name := string(line[:bytes.IndexAny(line, "{ ")])
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && p.families[base].Type == "histogram" {
			return base
		}
	}
	return name
}

// appendValue appends a number in the Prometheus format, which has infinity and NaN too. Whole numbers have no fraction.
func appendValue(out []byte, v float64) []byte {
	// Up to 2^53 a float64 holds each whole number exactly.
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(out, int64(v), 10)
	}
	return strconv.AppendFloat(out, v, 'g', -1, 64)
}

// appendLabel appends text.Printable of a value, and escapes backslashes and quotes. Printable is necessary because the format
// has no escape for a control character, and because readers refuse a whole page for one byte that is not UTF-8.
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

// boolToInt returns 1 for true, as gauges show states.
func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
