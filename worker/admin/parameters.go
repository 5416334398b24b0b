package admin

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// parameters are the query parameters of each operation, by method and path, as the document of the API has them. The names of
// the variables are left out of a path.
type parameters map[string][]string

// readParameters reads them from the document, so that the check never refuses what the document promises.
func readParameters() parameters {
	type parameter struct {
		Ref      string `json:"$ref"`
		Name, In string
	}
	var doc struct {
		Paths      map[string]map[string]struct{ Parameters []parameter }
		Components struct{ Parameters map[string]parameter }
	}
	data, _ := files.ReadFile("openapi.json") // it is part of the program, and tests read it
	_ = json.Unmarshal(data, &doc)
	all := parameters{}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			key := operationKey(method, path)
			all[key] = []string{}
			for _, p := range operation.Parameters {
				if name, isRef := strings.CutPrefix(p.Ref, "#/components/parameters/"); isRef {
					p = doc.Components.Parameters[name]
				}
				if p.In == "query" {
					all[key] = append(all[key], p.Name)
				}
			}
		}
	}
	return all
}

// variable is a variable in a path. A route takes the end of a name, too.
var variable = regexp.MustCompile(`\{[^}]*\}(\.json)?`)

// operationKey is the key of an operation in parameters.
func operationKey(method, path string) string {
	return strings.ToUpper(method) + " " + variable.ReplaceAllString(path, "{}")
}

// check refuses a request with a query parameter whose name is nearly that of one of its operation: it would be ignored, and the
// answer be of more than was asked for. A request that changes something is refused for every parameter that its operation does
// not have. Other unknown parameters are ignored, and a route that is in no document is not checked.
func (p parameters) check(found route, r *http.Request) error {
	known, documented := p[operationKey(found.method, found.path)]
	if !documented {
		return nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badRequest("the query cannot be read: write & between parameters, and percent-encode what their values have")
	}
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if slices.Contains(known, name) {
			continue
		}
		reason := strconv.Quote(clip(name)) + ": no such parameter"
		// Short names are near to very much.
		if near := text.Nearest(strings.ToLower(name), known, min(2, len(name)/3)); near != "" {
			reasons = append(reasons, reason+", did you mean "+near+"?")
		} else if found.method != http.MethodGet {
			reasons = append(reasons, reason)
		}
	}
	if len(reasons) > 0 {
		return badRequest(reasons...)
	}
	return nil
}
