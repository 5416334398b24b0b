package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// maxBreakers is how many breakers are in one answer. With ids of 64 letters the answer stays well below the megabyte that a
// message may have.
const maxBreakers = 2000

// maxSites is how many sites are in one answer. With names of 260 letters and errors of 300 the answer stays below that megabyte.
const maxSites = 1000

// errSilent keeps a worker from answering a request to another worker.
var errSilent = errors.New("not for this worker")

// badRequest is an error in a request. The sender gets it with the code 400.
type badRequest struct{ reason string }

func (e *badRequest) Error() string { return e.reason }

// verb is one endpoint.
type verb struct {
	name, does string
	all        bool // every worker gets the request; otherwise one of them does
	answer     func(data []byte) (any, error)
}

// verbs lists the verbs. "nats micro info" shows what each does.
func (s *Service) verbs() []verb {
	return []verb{
		{Workers, "how each worker stands", true, s.workers},
		{Breakers, "each worker's circuit breakers", true, s.breakers},
		{Proxies, `each worker's pool, or of {"worker"} the proxies {"from"} a place of its list on`, true, s.proxies},
		{ResetBreakers, `close the breaker of {"proxy_id"} in every worker, or all`, true, s.resetBreakers},
		{Sites, `the sites that each worker remembers, or {"site"}`, true, s.sites},
		{ResetSite, `end the rest of {"site"} in every worker`, true, s.resetSite},
		{Drain, `let {"worker"} finish its jobs and end`, true, s.drain},
		{Policy, "the retry policy", false, s.policy},
		{Rollups, `hours of {"hours", "scope"}`, false, s.rollups},
		{Pause, `stop taking jobs of {"queue"}`, false, s.pause},
		{Resume, `take jobs of {"queue"} again`, false, s.resume},
	}
}

// addVerbs registers every verb as an endpoint. After an error the caller stops the service.
func (s *Service) addVerbs() error {
	for _, v := range s.verbs() {
		opts := []micro.EndpointOpt{
			micro.WithEndpointSubject(Subject(s.cfg.Names, v.name)), micro.WithEndpointMetadata(map[string]string{"does": v.does}),
		}
		if v.all {
			opts = append(opts, micro.WithEndpointQueueGroupDisabled())
		}
		// The name of an endpoint may hold no dot.
		if err := s.micro.AddEndpoint(strings.ReplaceAll(v.name, ".", "-"), s.handler(v), opts...); err != nil {
			return err
		}
	}
	return nil
}

// handler answers with JSON, or with the error headers of the micro protocol. It also acts on a request without a reply subject.
func (s *Service) handler(v verb) micro.HandlerFunc {
	return func(r micro.Request) {
		answer, err := v.answer(r.Data())
		switch {
		case errors.Is(err, errSilent), err == nil && r.Reply() == "":
			return
		case err == nil:
			err = r.RespondJSON(answer)
		case r.Reply() != "":
			err = r.Error(code(err), err.Error(), nil)
		}
		if err != nil {
			s.cfg.Log.Warn("control request not answered", "verb", v.name, "error", err)
		}
	}
}

// code returns the code of an error for the answer's headers. The codes are those of HTTP.
func code(err error) string {
	if _, ok := errors.AsType[*badRequest](err); ok {
		return "400"
	}
	return "500"
}

// read reads a request's JSON. An empty request has no fields. It refuses unknown fields: without a misspelt field, a request
// could mean all proxies in place of one.
func read[T any](data []byte) (T, error) {
	var out T
	if len(bytes.TrimSpace(data)) == 0 {
		return out, nil
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&out); err != nil {
		return out, &badRequest{"the request is not valid: " + err.Error()}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return out, &badRequest{"the request is not valid: something follows its JSON"}
	}
	return out, nil
}

// workers takes a request that it does not understand for one without fields: whoever asks has to see every worker.
func (s *Service) workers(data []byte) (any, error) {
	r, _ := read[WorkersRequest](data)
	status := s.status()
	if r.Recent > 0 {
		status.Recent = s.cfg.Steps(rollup.ShortStep, r.Recent)
	}
	if r.Minutes > 0 {
		status.Minutes = s.cfg.Steps(rollup.LongStep, r.Minutes)
	}
	return status, nil
}

// status is this worker's state with its name and version.
func (s *Service) status() Status {
	status := s.cfg.Status()
	status.Worker, status.Version = s.cfg.Worker, s.cfg.Version
	return status
}

// breakers answers with this worker's breakers, as many as fit into a message or as the request says. It ignores a request that
// it cannot read, as workers of earlier versions ignore every one.
func (s *Service) breakers(data []byte) (any, error) {
	r, _ := read[BreakersRequest](data)
	list, total := s.cfg.Breakers(bounded(r.Limit, maxBreakers))
	return struct {
		Worker   string `json:"worker"`
		Total    int    `json:"total"`
		Breakers any    `json:"circuit_breakers"`
	}{s.cfg.Worker, total, list}, nil
}

// maxProxies is how many proxies are in one answer, and maxProxiesBytes how large they are together in JSON: tags have no bound.
const (
	maxProxies      = 1000
	maxProxiesBytes = 512 << 10
)

// proxies answers with this worker's pool, as much of it as fits into a message.
func (s *Service) proxies(data []byte) (any, error) {
	r, err := read[ProxiesRequest](data)
	switch {
	case err != nil:
		return nil, err
	case r.From < 0 || r.From > 0 && r.Worker == "":
		return nil, &badRequest{"from is not a place of the list of a worker, from 0 on"}
	case r.Worker != "" && r.Worker != s.cfg.Worker:
		return nil, errSilent
	}
	list, size := []json.RawMessage{}, 0
	answer := s.cfg.Proxies(r, func(p Proxy) bool {
		row, err := json.Marshal(p)
		if size += len(row); err != nil || len(list) == maxProxies || len(list) > 0 && size > maxProxiesBytes {
			return false
		}
		list = append(list, row)
		return true
	})
	answer.Worker = s.cfg.Worker
	return struct {
		ProxiesResponse
		Proxies []json.RawMessage `json:"proxies"`
	}{answer, list}, nil
}

// bounded returns the limit of a request, and maximum if the request has no limit or a higher one.
func bounded(limit, maximum int) int {
	if limit <= 0 {
		return maximum
	}
	return min(limit, maximum)
}

// resetBreakers closes one breaker or all of them in this worker.
func (s *Service) resetBreakers(data []byte) (any, error) {
	r, err := read[ResetRequest](data)
	if err != nil {
		return nil, err
	}
	if r.ProxyID != "" && !jobs.ValidProxyID(r.ProxyID) {
		return nil, &badRequest{"proxy_id is not the id of a proxy"}
	}
	return ResetResponse{Worker: s.cfg.Worker, Proxies: s.cfg.ResetBreaker(r.ProxyID)}, nil
}

// sites answers with the sites that this worker remembers, as many as fit into a message or as the request says.
func (s *Service) sites(data []byte) (any, error) {
	r, err := read[SiteRequest](data)
	if err != nil {
		return nil, err
	}
	names := []string{""} // all
	if r.Site != "" {
		if names, err = namesOf(r.Site); err != nil {
			return nil, err
		}
	}
	var list any
	total := 0
	for _, name := range names {
		if list, total = s.cfg.Sites(name, bounded(r.Limit, maxSites)); total > 0 {
			break
		}
	}
	return struct {
		Worker string `json:"worker"`
		Total  int    `json:"total"`
		Sites  any    `json:"sites"`
	}{s.cfg.Worker, total, list}, nil
}

// resetSite ends the rest of one site in this worker.
func (s *Service) resetSite(data []byte) (any, error) {
	r, err := read[SiteRequest](data)
	if err != nil {
		return nil, err
	}
	if r.Site == "" {
		return nil, &badRequest{"site is missing: the one whose rest ends"}
	}
	names, err := namesOf(r.Site)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if s.cfg.ResetSite(name) {
			return SiteReset{Worker: s.cfg.Worker, Site: name, Known: true}, nil
		}
	}
	return SiteReset{Worker: s.cfg.Worker}, nil
}

// namesOf returns the names in the spelling of the workers that a site stands for. What no site can be called is refused: it
// would find nothing, which looks like an answer.
func namesOf(site string) ([]string, error) {
	names, err := jobs.SiteNames(site)
	if err != nil {
		return nil, &badRequest{fmt.Sprintf("site: %.200q is not HOST or HOST:PORT", site)}
	}
	return names, nil
}

// drain stops this worker if the request names it. Other workers do not respond.
func (s *Service) drain(data []byte) (any, error) {
	r, err := read[DrainRequest](data)
	if err != nil {
		return nil, err
	}
	if r.Worker == "" {
		return nil, &badRequest{"worker is missing: the name of the one to drain"}
	}
	if r.Worker != s.cfg.Worker {
		return nil, errSilent
	}
	s.cfg.Log.Info("drain was asked for over NATS")
	s.cfg.Drain()
	return DrainResponse{Worker: s.cfg.Worker, Draining: true}, nil
}

// policy answers with the fleet's policy and that of this worker's environment.
func (s *Service) policy([]byte) (any, error) {
	policy, at := s.cfg.Policy()
	answer := PolicyResponse{Policy: policy, Environment: &s.cfg.Environment}
	if !at.IsZero() {
		at = at.UTC()
		answer.UpdatedAt = &at
	}
	return answer, nil
}

// rollups answers with hours of the fleet, or of this worker.
func (s *Service) rollups(data []byte) (any, error) {
	r, err := read[RollupRequest](data)
	if err != nil {
		return nil, err
	}
	if r.Hours == 0 {
		r.Hours = 24
	}
	if r.Scope == "" {
		r.Scope = ScopeCluster
	}
	if r.Hours < 1 || r.Hours > rollup.RetentionHours {
		return nil, &badRequest{"hours must be from 1 to 168"}
	}
	if r.Scope != ScopeCluster && r.Scope != ScopeWorker {
		return nil, &badRequest{"scope must be cluster or worker"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), verbTimeout)
	defer cancel()
	points, scope, err := s.cfg.Rollups(ctx, r.Scope, r.Hours)
	return RollupResponse{Worker: s.cfg.Worker, Scope: scope, Points: points}, err
}

func (s *Service) pause(data []byte) (any, error)  { return s.setPaused(data, true) }
func (s *Service) resume(data []byte) (any, error) { return s.setPaused(data, false) }

// setPaused pauses or resumes a queue for the whole fleet. The consumer holds the state, so any worker can do it.
func (s *Service) setPaused(data []byte, paused bool) (any, error) {
	r, err := read[QueueRequest](data)
	if err != nil {
		return nil, err
	}
	if !jobs.ValidQueue(r.Queue) {
		return nil, &badRequest{"queue is not the name of a queue"}
	}
	act := s.cfg.Resume
	if paused {
		act = s.cfg.Pause
	}
	ctx, cancel := context.WithTimeout(context.Background(), verbTimeout)
	defer cancel()
	return PauseResponse{Queue: r.Queue, Paused: paused}, act(ctx, r.Queue)
}
