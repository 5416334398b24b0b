package fleet

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/sites"
)

// maxSiteName bounds the name of a site: a host has 253 letters at most, and a port five.
const maxSiteName = 260

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

func (s *Sites) takeWaits(key string, c change) {
	var w siteWaits
	if c.value != nil && json.Unmarshal(c.value, &w) == nil && len(w.Site) <= maxSiteName && jobs.SiteKey(w.Site) == key {
		s.cfg.Waits(key, w.Site, c.age)
	}
}

// take follows what a key says now.
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
	if worker == "" || !s.note(c.key, worker, f) {
		return nil
	}
	return s.cfg.Table.Apply(f)
}

// read reads a finding; worker is empty if it is this worker's own.
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

// note counts a finding for its worker, and reports whether that is followed.
func (s *Sites) note(key, worker string, f sites.Finding) (follow bool) {
	s.mu.Lock()
	s.forget(key)
	if rests := f.State != sites.Returning && time.Until(f.Until) > 0; rests && len(s.findings) < maxFindings {
		s.findings[key] = siteReport{worker: worker, site: f.Site, until: f.Until}
		s.reports[worker]++
	}
	s.mu.Unlock()
	s.judge(worker)
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ignored[worker] || f.State == sites.Returning
}

// forget drops a finding. The caller holds the lock.
func (s *Sites) forget(key string) {
	r, known := s.findings[key]
	if !known {
		return
	}
	delete(s.findings, key)
	if s.reports[r.worker]--; s.reports[r.worker] == 0 {
		delete(s.reports, r.worker)
	}
}

// review drops the findings whose time is over, and judges the workers again.
func (s *Sites) review() {
	s.mu.Lock()
	workers := map[string]bool{}
	for worker := range s.ignored {
		workers[worker] = true
	}
	for key, r := range s.findings {
		workers[r.worker] = true
		if time.Until(r.until) <= 0 {
			s.forget(key)
		}
	}
	s.mu.Unlock()
	for worker := range workers {
		s.judge(worker)
	}
}

// judge decides whether a worker is followed, by how many of the sites that this worker knows it reports. The rests that it reported
// end when it no longer is.
func (s *Sites) judge(worker string) {
	known := s.cfg.Table.Counts().Known
	s.mu.Lock()
	n := s.reports[worker]
	others := known - s.reportedHere(worker)
	tooMany := n >= fewFindings && others > 0 && n > others
	was := s.ignored[worker]
	var mistaken []string
	switch {
	case tooMany && !was:
		s.ignored[worker] = true
		for _, r := range s.findings {
			if r.worker == worker {
				mistaken = append(mistaken, r.site)
			}
		}
	case !tooMany && was:
		delete(s.ignored, worker)
	}
	s.mu.Unlock()
	switch {
	case tooMany && !was:
		s.cfg.Log.Warn("another worker's sites are not followed, it found more than half of them silent", "worker", worker, "sites", n)
	case !tooMany && was:
		s.cfg.Log.Info("another worker's sites are followed again", "worker", worker)
	}
	s.endRests(mistaken)
}

// reportedHere counts the sites that a worker reports and this one knows. The caller holds the lock.
func (s *Sites) reportedHere(worker string) (n int) {
	for _, r := range s.findings {
		if r.worker != worker {
			continue
		}
		if _, known := s.cfg.Table.StatusOf(r.site); known {
			n++
		}
	}
	return n
}

func (s *Sites) endRests(names []string) {
	var events []sites.Event
	for _, name := range names {
		events = append(events, s.cfg.Table.Apply(sites.Finding{Site: name, State: sites.Returning})...)
	}
	if len(events) > 0 {
		s.cfg.Applied(events)
	}
}
