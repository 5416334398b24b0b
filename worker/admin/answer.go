package admin

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// maxBody bounds the body of a request, in bytes. The largest body is a policy.
const maxBody = 64 << 10

// failure is an error with its HTTP answer. code is a stable name for programs, message is a sentence for people, and details has
// the single reasons.
type failure struct {
	status        int
	code, message string
	details       []string
	basic         bool // add a challenge that makes a browser ask for the token
}

// Error returns the message that the client gets.
func (f failure) Error() string { return f.message }

// fail answers with an error. An error that is no failure comes from NATS: it is answered with 503 and logged.
func (a *admin) fail(w http.ResponseWriter, r *http.Request, err error) {
	f, known := errors.AsType[failure](err)
	if !known {
		// Such an error may name streams and subjects, which a reader of the API may know. It holds no
		// credentials: jobs/bus leaves them out.
		a.Log.Warn("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		// A deadline that has passed here is always that of a request to NATS.
		message := strings.Replace(err.Error(), context.DeadlineExceeded.Error(), "the NATS server did not answer in time", 1)
		f = failure{status: http.StatusServiceUnavailable, code: "unavailable", message: message}
	}
	writeFailure(w, f)
}

// writeFailure writes an error as JSON, with the challenges that belong to 401 (RFC 9110, 11.6.1). It must be
// the first to write, since it sets the status.
func writeFailure(w http.ResponseWriter, f failure) {
	if f.status == http.StatusUnauthorized {
		w.Header().Add("WWW-Authenticate", `Bearer realm="gofer"`)
		if f.basic {
			w.Header().Add("WWW-Authenticate", `Basic realm="gofer: any name, the token as password", charset="UTF-8"`)
		}
	}
	// Clients may rely on an array, so no details are [] and not null.
	if f.details == nil {
		f.details = []string{}
	}
	writeJSON(w, f.status, struct {
		Error   string   `json:"error"`
		Message string   `json:"message"`
		Details []string `json:"details"`
	}{f.code, f.message, f.details})
}

// writeNotAllowed answers 405 and names the methods of the path (RFC 9110, 15.5.6).
func writeNotAllowed(w http.ResponseWriter, routes map[string]route) {
	// The methods are sorted, so that the header is the same each time.
	allowed := slices.Sorted(maps.Keys(routes))
	if _, ok := routes[http.MethodGet]; ok {
		allowed = append(allowed, http.MethodHead)
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeFailure(w, failure{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "allowed here: " + strings.Join(allowed, ", ")})
}

// reply answers 200 with v.
func reply(w http.ResponseWriter, v any) error {
	writeJSON(w, http.StatusOK, v)
	return nil
}

// writeJSON writes a value as JSON. An error of writing is ignored, because it means that the client went away.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(text.NewJSONWriter(w))
	// The answer is not HTML, so ampersands in URLs need no escape.
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(v)
}

// hoursOf reads the parameter hours; 24 without it. Its error, 400, means that the value is no number from 1 to RetentionHours.
func hoursOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("hours")
	if text == "" && !r.URL.Query().Has("hours") { // an empty value is an error
		return 24, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > rollup.RetentionHours {
		return 0, badRequest("hours: " + strconv.Quote(clip(text)) + " is not a number from 1 to " + strconv.Itoa(rollup.RetentionHours))
	}
	return n, nil
}

// bookOf reads the parameter scope, and returns the book of the fleet (the default) or of this worker. If the book of the fleet
// cannot be read, its error is 503 and suggests the other scope.
func (a *admin) bookOf(r *http.Request) (*rollup.Book, error) {
	// Without Cluster, this worker is the fleet, so that both scopes mean its book.
	switch scope := r.URL.Query().Get("scope"); {
	case scope == "worker", scope == "cluster" && a.Cluster == nil, scope == "" && a.Cluster == nil:
		return a.Book, nil
	case scope == "cluster", scope == "":
		book, err := a.Cluster(r.Context())
		if err != nil {
			// The cause goes into the details, so that a caller sees it without access to the log.
			a.Log.Warn("fleet's rollups not read", "error", err)
			return nil, failure{
				status: http.StatusServiceUnavailable, code: "unavailable",
				message: "the fleet's numbers cannot be read now; scope=worker has this worker's", details: []string{err.Error()},
			}
		}
		return book, nil
	default:
		return nil, badRequest("scope: " + strconv.Quote(clip(scope)) + " is neither cluster nor worker")
	}
}

// badRequest is 400. The first reason is the message.
func badRequest(reasons ...string) error {
	return failure{status: http.StatusBadRequest, code: "invalid_request", message: reasons[0], details: reasons}
}

// clip shortens a text of the client that an error repeats. It may cut a character in two. strconv.Quote then escapes the bytes,
// so the answer stays valid UTF-8.
func clip(text string) string { return text[:min(len(text), 40)] }
