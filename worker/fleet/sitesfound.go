package fleet

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/sites"
)

// maxSiteName bounds the name of a site: a host has 253 letters at most, and a port five.
const maxSiteName = 260

// apply takes over changes of the bucket, and passes on what they changed. A bucket that is read afresh needs no special
// handling: findings end with their time.
func (s *Sites) apply(_ bool, changes []change) {
	var events []sites.Event
	for _, c := range changes {
		if key, waits := strings.CutPrefix(c.key, waitsPrefix); waits {
			s.takeWaits(key, c)
		} else {
			events = append(events, s.take(c)...)
		}
	}
	if len(events) > 0 {
		s.cfg.Applied(events)
	}
}

// takeWaits passes on that jobs wait for a site. What is not valid is ignored: a worker writes it again while jobs wait.
func (s *Sites) takeWaits(key string, c change) {
	var w siteWaits
	if c.value != nil && json.Unmarshal(c.value, &w) == nil && len(w.Site) <= maxSiteName && jobs.SiteKey(w.Site) == key {
		s.cfg.NoteWaiting(key, w.Site, c.age)
	}
}

// take applies the value of a key, and returns what that changed in the table. A deleted key ends no rest: a rest ends with its
// time, or with a finding that the site returns.
func (s *Sites) take(c change) []sites.Event {
	if c.value == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forget(c.key)
		return nil
	}
	f, worker, err := s.read(c)
	if err != nil {
		s.cfg.Log.Warn("a site that another worker shared is not valid and is left out", "key", c.key, "error", err)
		return nil
	}
	// The table hears of a finding only if its worker is followed, and after the finding was counted.
	if worker == "" || !s.note(c.key, worker, f) {
		return nil
	}
	events := s.cfg.Table.Apply(f)
	if len(events) > 0 {
		s.mu.Lock()
		s.setKnown(c.key, true)
		s.mu.Unlock()
	}
	return events
}

// read reads a finding; worker is empty if it is this worker's own. The key is a hash of the site's name, so a finding cannot
// name another site. Durations become times of this machine, counted from when the server stored them.
func (s *Sites) read(c change) (f sites.Finding, worker string, err error) {
	var stored SiteFinding
	if err := json.Unmarshal(c.value, &stored); err != nil {
		return f, "", err
	}
	state, known := sites.ParseState(stored.State)
	switch {
	case stored.Worker == "":
		return f, "", errors.New("it names no worker")
	case len(stored.Site) > maxSiteName:
		return f, "", errors.New("the name of its site is too long")
	case jobs.SiteKey(stored.Site) != c.key:
		return f, "", errors.New("it names another site")
	case !known:
		return f, "", errors.New("its state is unknown")
	case stored.Instance == s.instance:
		return f, "", nil
	}
	at := time.Now().Add(-c.age)
	f = sites.Finding{Site: stored.Site, State: state, Rest: stored.Rest.Std()}
	if state != sites.Returning {
		f.Until, f.Since = at.Add(stored.Duration.Std()), at.Add(-stored.Since.Std())
		if stored.Failed != nil {
			f.Failed = at.Add(-stored.Failed.Std())
		}
	}
	return f, stored.Worker, nil
}

// reporter is another worker and its findings.
type reporter struct {
	// keys has at least one element unless the worker is ignored: a reporter without findings is dropped, so that workers which
	// have gone take no memory.
	keys    map[string]bool // of its findings
	known   int             // how many of their sites this worker knows
	ignored bool
}

// note counts a finding of a worker, and reports whether to apply it: the worker is followed, or the site returns, which costs
// one test at worst. It asks the table without the lock.
func (s *Sites) note(key, worker string, f sites.Finding) (follow bool) {
	known := s.knows(f.Site)
	s.mu.Lock()
	s.forget(key)
	if rests := f.State != sites.Returning && time.Until(f.Until) > 0; rests && len(s.findings) < maxFindings {
		s.add(key, siteReport{worker: worker, site: f.Site, until: f.Until, known: known})
	}
	s.mu.Unlock()
	s.judge(worker, false)
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.reporters[worker]
	return r == nil || !r.ignored || f.State == sites.Returning
}

// knows reports whether the table has a site. Call it without the lock, because the table has a lock of its own.
func (s *Sites) knows(site string) bool {
	_, known := s.cfg.Table.StatusOf(site)
	return known
}

// add keeps a finding under a key that has none. The caller holds the lock.
func (s *Sites) add(key string, r siteReport) {
	s.findings[key] = r
	from := s.reporters[r.worker]
	if from == nil {
		from = &reporter{keys: map[string]bool{}}
		s.reporters[r.worker] = from
	}
	from.keys[key] = true
	if r.known {
		from.known++
	}
}

// forget drops a finding. The caller holds the lock.
func (s *Sites) forget(key string) {
	r, found := s.findings[key]
	if !found {
		return
	}
	s.setKnown(key, false)
	delete(s.findings, key)
	from := s.reporters[r.worker]
	if delete(from.keys, key); len(from.keys) == 0 && !from.ignored {
		delete(s.reporters, r.worker)
	}
}

// setKnown notes whether this worker knows the site of a finding. The caller holds the lock.
func (s *Sites) setKnown(key string, known bool) {
	r, found := s.findings[key]
	if !found || r.known == known {
		return
	}
	r.known = known
	s.findings[key] = r
	if known {
		s.reporters[r.worker].known++
	} else {
		s.reporters[r.worker].known--
	}
}

// review drops the findings whose time is over, finds out again which of their sites this worker knows, and judges the workers
// again. It asks the table without the lock. The next review finds what changes meanwhile.
func (s *Sites) review() {
	s.mu.Lock()
	reports := make(map[string]string, len(s.findings))
	for key, r := range s.findings {
		if time.Until(r.until) <= 0 {
			s.forget(key)
		} else {
			reports[key] = r.site
		}
	}
	workers := slices.Collect(maps.Keys(s.reporters))
	s.mu.Unlock()
	known := make(map[string]bool, len(reports))
	for key, site := range reports {
		known[key] = s.knows(site)
	}
	s.mu.Lock()
	for key, is := range known {
		s.setKnown(key, is)
	}
	s.mu.Unlock()
	for _, worker := range workers {
		s.judge(worker, true)
	}
}

// judge decides whether a worker is followed, by the rule that Sites states. others is the number of sites that this worker knows
// and that the other one does not report. When a worker is no longer followed, the rests that it reported end. Only review lets
// it be followed again, so that a borderline worker costs one pass a second.
func (s *Sites) judge(worker string, inReview bool) {
	total := s.cfg.Table.Counts().Known
	s.mu.Lock()
	r := s.reporters[worker]
	if r == nil {
		s.mu.Unlock()
		return
	}
	n, was := len(r.keys), r.ignored
	others := total - r.known
	tooMany := n >= fewFindings && others > 0 && n > others
	// Without another known site, nothing shows whether the worker or the sites are at fault: it is followed.
	var mistaken []string
	switch {
	case tooMany && !was:
		r.ignored = true
		for key := range r.keys {
			mistaken = append(mistaken, s.findings[key].site)
		}
	case !tooMany && was && inReview:
		if r.ignored = false; n == 0 {
			delete(s.reporters, worker)
		}
	}
	s.mu.Unlock()
	switch {
	case tooMany && !was:
		s.cfg.Log.Warn("another worker's sites are not followed, it reports more sites than this worker knows besides them", "worker", worker, "sites", n, "others", others)
	case !tooMany && was && inReview:
		s.cfg.Log.Info("another worker's sites are followed again", "worker", worker)
	}
	s.endRests(mistaken)
}

// endRests ends rests that a worker reported by mistake. Its sites return, so their jobs come back one at a time first.
func (s *Sites) endRests(names []string) {
	var events []sites.Event
	for _, name := range names {
		events = append(events, s.cfg.Table.Apply(sites.Finding{Site: name, State: sites.Returning})...)
	}
	if len(events) > 0 {
		s.cfg.Applied(events)
	}
}
