package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// changeTimeout bounds a change, which is a round trip to NATS. It is well below the server's WriteTimeout, so the client gets an
// error and not a closed connection.
const changeTimeout = 5 * time.Second

// policyDocument is the policy, and the time from which the fleet has it; null for the policy of the environment. The fields of
// the policy are embedded, so that a client can send the document back as it was read.
type policyDocument struct {
	jobs.Policy
	UpdatedAt *time.Time `json:"updated_at"`
}

// policy answers with the current policy.
func (a *admin) policy(w http.ResponseWriter, _ *http.Request) error {
	policy, at := a.Policy()
	return reply(w, policyDocument{policy, timeOrNull(at)})
}

// setPolicy replaces the fleet's policy and answers with the new one. A field that the document lacks takes its
// default. The answer is what Policy returns after the change, not the request: SetPolicy waits until this worker has
// the new policy. Other workers follow within a second.
func (a *admin) setPolicy(w http.ResponseWriter, r *http.Request) error {
	policy, err := readPolicy(r.Body)
	if err != nil {
		return err
	}
	if a.SetPolicy == nil {
		return notHere("the policy cannot be changed here")
	}
	if err := change(r, func(ctx context.Context) error { return a.SetPolicy(ctx, policy) }); err != nil {
		return fmt.Errorf("store policy: %w", err)
	}
	a.Log.Info("retry policy changed", "policy", policy.Name(), "peer", r.RemoteAddr)
	return a.policy(w, r)
}

// readPolicy also accepts the document that policy writes, and ignores its updated_at. Its error is always a
// failure with status 400.
func readPolicy(body io.Reader) (jobs.Policy, error) {
	data, err := readDocument(body)
	if err != nil {
		return jobs.Policy{}, err
	}
	var fields map[string]json.RawMessage
	isObject := json.Unmarshal(data, &fields) == nil
	if isObject && fields == nil {
		// null decodes into an empty policy without an error, which would silently set all defaults.
		return jobs.Policy{}, badRequest("null is no policy; DELETE returns to the one of the environment")
	}
	if isObject && fields["updated_at"] != nil {
		delete(fields, "updated_at")
		data, _ = json.Marshal(fields) // never fails: it was just decoded
	}
	policy, err := jobs.DecodePolicy(data, jobs.DefaultPolicy())
	// Each reason is a detail of its own with its field, so that a form can show the reason beside the field.
	if invalid, ok := errors.AsType[*jobs.InvalidError](err); ok {
		return jobs.Policy{}, failure{status: http.StatusBadRequest, code: "invalid_policy", message: "the policy is not valid", details: invalid.Reasons}
	}
	return policy, err
}

// readDocument reads the text of a request's body.
func readDocument(body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(body)
	if tooLarge(err) {
		return nil, failure{status: http.StatusRequestEntityTooLarge, code: "too_large", message: fmt.Sprintf("the document is larger than %d bytes", maxBody)}
	}
	if err != nil {
		return nil, badRequest("the body could not be read")
	}
	// Document refuses what is not UTF-8 and removes a byte order mark, which editors add to files.
	if data, err = text.Document(data); err != nil {
		return nil, badRequest(err.Error())
	}
	return data, nil
}

// resetPolicy removes the fleet's policy, so that each worker's environment applies. It answers 204.
func (a *admin) resetPolicy(w http.ResponseWriter, r *http.Request) error {
	if a.ResetPolicy == nil {
		return notHere("the policy cannot be changed here")
	}
	if err := change(r, a.ResetPolicy); err != nil {
		return fmt.Errorf("remove policy: %w", err)
	}
	a.Log.Info("retry policy reset", "peer", r.RemoteAddr)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Breaker is one proxy's breaker as the API shows it. Durations are strings such as "30s". The times are of the
// worker that answers, by its clock.
type Breaker struct {
	ProxyID          string        `json:"proxy_id"`
	State            string        `json:"state"`
	FailureCount     int           `json:"failure_count"`
	FailureThreshold int           `json:"failure_threshold"`
	WindowDuration   jobs.Duration `json:"window_duration"`
	TimeoutDuration  jobs.Duration `json:"timeout_duration"`
	// NextTestTime is null unless the breaker is open; LastStateChange until the first change.
	NextTestTime    *time.Time `json:"next_test_time"`
	LastStateChange *time.Time `json:"last_state_change"`
	// AvoidedUntil and AvoidedBy are set while a finding of another worker makes the proxy avoided: the end of the finding, and
	// the worker that found the proxy dead.
	AvoidedUntil *time.Time `json:"avoided_until,omitempty"`
	AvoidedBy    string     `json:"avoided_by,omitempty"`
	// Reason is why the breaker left the closed state, if this worker remembers it; only live snapshots have it.
	Reason string `json:"reason,omitempty"`
}

// BreakerOf returns the breaker of a proxy's status in the form of the API.
func BreakerOf(s rotation.Status) Breaker {
	return Breaker{
		ProxyID: s.ID, State: s.State.String(), FailureCount: s.Failures, FailureThreshold: s.Threshold,
		WindowDuration: jobs.Duration(s.Window), TimeoutDuration: jobs.Duration(s.OpenTimeout),
		NextTestTime: timeOrNull(s.NextTest), LastStateChange: timeOrNull(s.LastChange),
		AvoidedUntil: timeOrNull(s.AvoidedUntil), AvoidedBy: s.AvoidedBy,
	}
}

// breakers answers with every proxy of this worker's pool, in the order of the list.
func (a *admin) breakers(w http.ResponseWriter, _ *http.Request) error {
	status := a.Pool.Status()
	list := make([]Breaker, len(status))
	for i, s := range status {
		list[i] = BreakerOf(s)
	}
	return reply(w, map[string]any{"circuit_breakers": list})
}

// breaker answers with one proxy, or 404.
func (a *admin) breaker(w http.ResponseWriter, r *http.Request) error {
	status, found := a.Pool.StatusOf(r.PathValue("id"))
	if !found {
		return unknownProxy()
	}
	return reply(w, BreakerOf(status))
}

// resetBreaker closes a breaker in every worker, and answers with this worker's view of it.
func (a *admin) resetBreaker(w http.ResponseWriter, r *http.Request) error {
	// The pool is asked first, so that an unknown id, a mistake of the client, causes no message to NATS.
	id := r.PathValue("id")
	if _, found := a.Pool.StatusOf(id); !found {
		return unknownProxy()
	}
	if a.ResetBreaker == nil {
		return notHere("breakers cannot be reset here")
	}
	if err := change(r, func(ctx context.Context) error { return a.ResetBreaker(ctx, id) }); err != nil {
		return fmt.Errorf("reset breaker of %s: %w", id, err)
	}
	a.Log.Info("circuit breaker reset", "proxy", id, "peer", r.RemoteAddr)
	return a.breaker(w, r)
}

// breakerEvents answers with the breaker changes of some hours, oldest first.
func (a *admin) breakerEvents(w http.ResponseWriter, r *http.Request) error {
	return a.query(r, func(book *rollup.Book, hours int) error {
		since := time.Now().Add(-time.Duration(hours) * time.Hour)
		return reply(w, map[string]any{"events": book.BreakerEvents(since)})
	})
}

// retries answers with the sums over all hours that are kept.
func (a *admin) retries(w http.ResponseWriter, r *http.Request) error {
	book, err := a.bookOf(r)
	if err != nil {
		return err
	}
	return reply(w, book.Retries())
}

// series answers with one point for each hour, also for hours in which nothing happened.
func (a *admin) series(w http.ResponseWriter, r *http.Request) error {
	return a.query(r, func(book *rollup.Book, hours int) error {
		return reply(w, map[string]any{"data_points": book.Series(hours)})
	})
}

// byProxy answers with the sums of some hours by proxy.
func (a *admin) byProxy(w http.ResponseWriter, r *http.Request) error {
	// The keys are ids of proxies, which hold no credentials.
	return a.query(r, func(book *rollup.Book, hours int) error {
		proxies := map[string]rollup.Proxy{}
		for _, p := range book.ByProxy(hours) {
			proxies[p.ProxyID] = p
		}
		return reply(w, map[string]any{"proxies": proxies})
	})
}

// byPolicy answers with the sums of some hours by retry policy.
func (a *admin) byPolicy(w http.ResponseWriter, r *http.Request) error {
	return a.query(r, func(book *rollup.Book, hours int) error {
		return reply(w, map[string]any{"policies": book.ByPolicy(hours)})
	})
}

// query reads the parameters hours and scope, and calls answer with their values.
func (a *admin) query(r *http.Request, answer func(*rollup.Book, int) error) error {
	hours, err := hoursOf(r)
	if err != nil {
		return err
	}
	book, err := a.bookOf(r)
	if err != nil {
		return err
	}
	return answer(book, hours)
}

// change runs a change within changeTimeout. If the client goes away, the change is cancelled, but NATS may have done it already.
func change(r *http.Request, verb func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	return verb(ctx)
}

// unknownProxy is 404 for a proxy that this worker's pool does not have.
func unknownProxy() error {
	return failure{status: http.StatusNotFound, code: "unknown_proxy", message: "no proxy of the pool has this id"}
}

// notHere is 501: the program that embeds this handler did not provide the function.
func notHere(message string) error {
	return failure{status: http.StatusNotImplemented, code: "not_implemented", message: message}
}

// timeOrNull returns nil for the zero time, which is null in JSON.
func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
