package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// misspelt names every GOFER_ variable that gofer does not know, and the one that was probably meant. Kubernetes puts a
// service's address into GOFER_…SERVICE_HOST and the like; those are not ours.
func misspelt(env Environment) (reasons []string) {
	known := knownNames()
	// Kubernetes makes such names from a service that is called gofer.
	serviceLink := regexp.MustCompile(`^GOFER_([A-Z0-9_]*_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[A-Z0-9_]+)?)$`)
	for name := range env {
		if !strings.HasPrefix(name, "GOFER_") || slices.Contains(known, name) || serviceLink.MatchString(name) {
			continue
		}
		reason := name + ": no such variable"
		if near := nearest(name, known); near != "" {
			reason += ", did you mean " + near + "?"
		}
		reasons = append(reasons, reason)
	}
	// A map has no order, and the same mistakes must give the same text.
	slices.Sort(reasons)
	return reasons
}

// knownNames returns the names of all variables and of their _FILE twins.
func knownNames() (names []string) {
	for _, v := range Variables() {
		names = append(names, v.Name)
		if twin := v.Twin(); twin != "" {
			names = append(names, twin)
		}
	}
	return names
}

// nearest is the known name with the fewest edits, at most four, or "". With more edits a guess would be wrong more often than
// right. A variable that names a file has no twin, so for its name with _FILE the answer is the variable itself.
func nearest(name string, known []string) string {
	if base, filed := strings.CutSuffix(name, "_FILE"); filed && slices.Contains(known, base) {
		return base
	}
	return text.Nearest(name, known, 4)
}
