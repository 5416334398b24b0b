package rollup

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// Kind is a kind of sums of an hour.
type Kind string

// The kinds. They are stored separately, because Totals are small and kept for RetentionHours, and Proxies are large and kept for
// ProxyHours.
const (
	Totals  Kind = "totals"
	Proxies Kind = "proxies"
)

// errKind means that a kind is neither Totals nor Proxies.
var errKind = errors.New("unknown kind of sums")

// Sum adds up parts of one hour, all of one kind. Make one with NewSum; one goroutine uses it. Its size is bounded
// by the closed lists of labels and by maxTracks, whatever parts say.
type Sum struct {
	kind   Kind
	totals Hour
	// every has the sums of all proxies, those without a row included. rows has at most maxTracks proxies, by id.
	every proxyCounts
	rows  map[string]*proxyCounts
}

// NewSum makes an empty sum.
func NewSum(kind Kind) *Sum { return &Sum{kind: kind, rows: map[string]*proxyCounts{}} }

// Add adds the Data of a Part. If Data is malformed, Add returns an error and the sum stays as it was. Names that the sum does
// not know are skipped: a newer worker may count more.
func (s *Sum) Add(data []byte) error {
	if s.kind != Totals && s.kind != Proxies {
		return fmt.Errorf("%q: %w", string(s.kind), errKind)
	}
	err := s.merge(data, 1)
	if err != nil {
		// The records before the malformed one were added. The same records are subtracted again.
		_ = s.merge(data, -1)
		s.dropZeros()
	}
	return err
}

// merge adds the records of data if sign is 1, and subtracts them if sign is -1.
func (s *Sum) merge(data []byte, sign int64) error {
	return eachRecord(data, func(name []byte, values []int64) {
		switch {
		case len(values) == 0:
		case s.kind == Totals:
			s.totals.merge(string(name), values, sign)
		default:
			s.mergeRow(name, values, sign)
		}
	})
}

// mergeRow merges the record of one proxy, or of everyProxy. If there are too many proxies, it ignores the record, because the
// sum of all proxies includes it.
func (s *Sum) mergeRow(name []byte, values []int64, sign int64) {
	row := s.rows[string(name)] // the compiler copies no name here
	switch {
	case row != nil:
	case string(name) == everyProxy:
		row = &s.every
	case len(s.rows) >= maxTracks || !jobs.ValidProxyID(string(name)):
		return
	default:
		row = &proxyCounts{}
		s.rows[string(name)] = row
	}
	for i := range min(len(values), proxyFields) {
		row[i] += sign * values[i]
	}
}

// addProxy adds the counts of an attempt or a breaker event to a proxy. An invalid id has no row, and counts only in the sum of
// all proxies.
func (s *Sum) addProxy(id string, c *proxyCounts) {
	s.every.merge(c)
	row := s.rows[id]
	if row == nil && len(s.rows) < maxTracks && jobs.ValidProxyID(id) {
		row = &proxyCounts{}
		s.rows[id] = row
	}
	if row != nil {
		row.merge(c)
	}
}

// subtract subtracts the result of an earlier encode. If that encode left out rows, subtract forgets these rows, because data
// does not have their counts. The counts since then stay in the sum of all proxies.
func (s *Sum) subtract(data []byte) {
	named := map[string]bool{}
	_ = eachRecord(data, func(name []byte, _ []int64) { named[string(name)] = true })
	if len(named) > maxNamed { // named includes everyProxy, so encode had maxNamed proxies and may have left out others
		maps.DeleteFunc(s.rows, func(id string, _ *proxyCounts) bool { return !named[id] })
	}
	_ = s.merge(data, -1) // cannot fail, because encode wrote data
	s.dropZeros()
}

// dropZeros removes counters that a subtraction has left at zero.
func (s *Sum) dropZeros() {
	maps.DeleteFunc(s.rows, func(_ string, c *proxyCounts) bool { return *c == proxyCounts{} })
	maps.DeleteFunc(s.totals.counts, func(_ key, n int64) bool { return n == 0 })
}

// isEmpty reports whether nothing is counted.
func (s *Sum) isEmpty() bool {
	return len(s.totals.counts) == 0 && s.totals.Latency == Histogram{} && s.every == proxyCounts{}
}

// encode returns the sum as records. It has no more than the maxNamed busiest proxies.
func (s *Sum) encode() []byte {
	if s.kind == Totals {
		return s.totals.encode()
	}
	out := appendRecord(nil, everyProxy, s.every[:]...)
	for _, id := range s.busiest() {
		out = appendRecord(out, id, s.rows[id][:]...)
	}
	return out
}

// busiest returns the ids of the maxNamed proxies with the most attempts, as ranking orders them.
func (s *Sum) busiest() []string {
	ids := slices.Sorted(maps.Keys(s.rows))
	if len(ids) <= maxNamed {
		return ids
	}
	var list ranking
	for at, id := range ids {
		list.offer(at, s.rows[id][proxyAttempts])
	}
	named := make([]string, 0, maxNamed)
	for _, rank := range list.cut() {
		named = append(named, ids[rank.at])
	}
	return named
}

// forgetIdle keeps only the rows of the busiest proxies. The sum of all proxies does not change.
func (s *Sum) forgetIdle() {
	if len(s.rows) <= maxNamed {
		return
	}
	kept := make(map[string]*proxyCounts, maxNamed)
	for _, id := range s.busiest() {
		kept[id] = s.rows[id]
	}
	s.rows = kept
}

// encode returns the sums of the hour as records.
func (h *Hour) encode() (out []byte) {
	for k, n := range h.counts {
		name := k.metric
		if k.label != "" {
			name += "." + k.label
		}
		out = appendRecord(out, name, n)
	}
	used := len(h.Latency.counts)
	for used > 0 && h.Latency.counts[used-1] == 0 {
		used--
	}
	if used > 0 {
		out = appendRecord(out, metricLatency, h.Latency.counts[:used]...)
	}
	if h.Latency.sum > 0 {
		out = appendRecord(out, metricLatencySum, h.Latency.sum)
	}
	return out
}

// merge adds the numbers of a record if sign is 1, and subtracts them if sign is -1. It ignores unknown names.
func (h *Hour) merge(name string, values []int64, sign int64) {
	switch name {
	case metricLatency:
		for i, n := range values {
			h.Latency.counts[i] += sign * n
		}
	case metricLatencySum:
		h.Latency.sum += sign * values[0]
	default:
		metric, label, _ := strings.Cut(name, ".")
		if isKnown(metric, label) {
			h.add(key{metric, label}, sign*values[0])
		}
	}
}

// isKnown reports whether a metric exists and has the label. Without this check, whoever may write to the stream could make a
// book grow.
func isKnown(metric, label string) bool {
	switch metric {
	case metricAttempts, metricRetries, metricBytes:
		return label == ""
	case metricJob:
		return label == jobs.Succeeded || oneOf(JobErrors(), label) == label
	case metricClass:
		return slices.Contains(jobs.Classes(), label)
	case metricSuccess:
		n, err := strconv.Atoi(label)
		return err == nil && attemptLabel(n) == label
	case metricFailure:
		return oneOf(Reasons(), label) == label
	case metricPolicy, metricPolicySucceeded:
		return policyLabel(label) == label
	case metricBreaker:
		return breakerState(label) == label
	}
	return false
}
