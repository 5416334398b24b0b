package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/worker/control"
)

// maxNamed is how many workers or sites a finding names. It keeps a finding on about one
// line of a terminal.
const maxNamed = 5

// some names the first of a list, and how many there are beside them.
func some(list []string) string {
	if len(list) <= maxNamed {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:maxNamed], ", "), len(list)-maxNamed)
}

// by groups the names of workers by what each of them has.
func by(list []control.Status, what func(*control.Status) string) map[string][]string {
	// The loop takes the address of each status, for a status holds slices and maps of some hundred bytes.
	groups := map[string][]string{}
	for i := range list {
		groups[what(&list[i])] = append(groups[what(&list[i])], list[i].Worker)
	}
	return groups
}

// Unready names the workers that are not ready, together those that have the same reasons. A worker that drains is about to end.
func Unready(list []control.Status) (out []Finding) {
	// The empty key gathers the workers that are fine, and is dropped below. A worker that is not ready has a reason at least:
	// the check that failed.
	groups := by(list, func(w *control.Status) string {
		if w.Ready || w.Draining {
			return ""
		}
		return strings.Join(append(slices.Clone(w.Reasons), ""), "; ")
	})
	delete(groups, "")
	for _, reasons := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, Finding{"worker " + some(groups[reasons]), false, "not ready: " + strings.TrimSuffix(reasons, "; ")})
	}
	if draining := by(list, func(w *control.Status) string { return fmt.Sprint(w.Draining) })["true"]; len(draining) > 0 {
		out = append(out, Finding{"worker " + some(draining), true, "draining: it ends when its jobs have"})
	}
	return out
}

// lists names the workers that cannot read a list of proxies, together those with the same reason.
func lists(list []control.Status) (out []Finding) {
	groups := by(list, func(w *control.Status) string { return w.ProxiesError })
	delete(groups, "")
	for _, reason := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, Finding{"worker " + some(groups[reason]), false, "a list of proxies cannot be read, and the last good one holds: " + reason +
			"; once it is repaired, the worker reads it by itself"})
	}
	return out
}

// fewProxies is up to how many proxies a worker's pool says nothing by its breakers.
const fewProxies = 4

// breakers looks for workers most of whose breakers are open.
func breakers(list []control.Status) (out []Finding) {
	// Only the state open counts. A half-open breaker is being tested, so the worker recovers already.
	for _, w := range list {
		all := 0
		for _, n := range w.Proxies {
			all += n
		}
		if open := w.Proxies["open"]; all >= fewProxies && 2*open > all {
			out = append(out, Finding{"worker " + w.Worker, false, fmt.Sprintf(
				"the breakers of %d of its %d proxies are open: gofer breakers ls names them; look at this worker's network and at the seller of the proxies, and when they work again, gofer breakers reset --all tests them at once", open, all)})
		}
	}
	// A fault of the network common to the fleet gives one finding a worker; the first of them suffice.
	if len(out) > maxNamed {
		rest := len(out) - maxNamed
		out = append(out[:maxNamed], Finding{"workers", false, fmt.Sprintf("most breakers are open on %d more", rest)})
	}
	return out
}

// versions looks for workers of different versions, as during an update.
func versions(list []control.Status) []Finding {
	groups := by(list, func(w *control.Status) string { return w.Version })
	// One version, or no worker at all, is no finding. Two versions are a normal state during an update, so the
	// finding names both groups rather than a culprit.
	if len(groups) < 2 {
		return nil
	}
	return []Finding{{"versions", false, "the workers have different versions: " + describeGroups(groups) + "; restart the older ones with the newer version: gofer drain WORKER ends one"}}
}

// configurations looks for workers that serve the same queues with different settings. Workers of different queues may differ.
func configurations(list []control.Status) (out []Finding) {
	classes := map[string][]control.Status{}
	for _, w := range list {
		if w.ConfigHash == "" {
			continue // of an earlier version
		}
		// The set of queues decides who is compared with whom: sorted and joined it is a key, whatever order
		// the workers list their queues in.
		var queues []string
		for _, q := range w.Queues {
			queues = append(queues, q.Queue)
		}
		slices.Sort(queues)
		class := strings.Join(queues, ", ")
		classes[class] = append(classes[class], w)
	}
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		groups := by(classes[class], func(w *control.Status) string { return w.ConfigHash })
		if len(groups) > 1 {
			out = append(out, Finding{"configurations", false, fmt.Sprintf("the workers that serve %s have different ones, by hash: %s; compare what gofer config show prints in the environment of each worker", class, describeGroups(groups))})
		}
	}
	return out
}

// describeGroups names each value with its workers. Values are sorted, so that two runs print the same text and
// a script can compare them.
func describeGroups(groups map[string][]string) string {
	var parts []string
	for _, value := range slices.Sorted(maps.Keys(groups)) {
		parts = append(parts, fmt.Sprintf("%s (%s)", value, some(groups[value])))
	}
	return strings.Join(parts, ", ")
}
