// Package fleet keeps a worker in step with its fleet. The proxy pool, the retry policy, the strategy and the list of denied
// hosts (Settings) live in key-value buckets. So do the proxies that were found dead, the exits of sessions (Breakers) and the
// resting sites (Sites). A change there reaches every running worker within a second. If a bucket cannot be read, the last known
// values stay. Leader lets one worker of the fleet at a time do a task.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

// PolicyKey is the key of the fleet's retry policy in its bucket. StrategyKey is the key of its proxy strategy, in the same
// bucket.
const (
	PolicyKey   = "retry"
	StrategyKey = "strategy"
)

// Config is what Settings are made of; all fields but Others are required.
type Config struct {
	// Names are those of the installation.
	Names jobs.Names
	// Pool receives the proxies.
	Pool *rotation.Pool
	// Policy is the environment's. It applies while the bucket has none.
	Policy jobs.Policy
	// Strategy is the environment's. It applies while the bucket has none.
	Strategy rotation.Strategy
	// Others are the callbacks for other keys of the policy bucket, by key. They must not block. The map may be nil.
	Others map[string]func(Change)
	Log    *slog.Logger
}

// Change is a change of a key of a bucket.
type Change struct {
	// Value is nil if the key was deleted, or is missing on a full read.
	Value []byte
	// Revision is that of the bucket at this change: it grows with each change of any key. It is zero if the key is missing.
	Revision uint64
	// Age is how long ago the key was set, by the clock of the server.
	Age time.Duration
}

// Settings are this worker's copy of the fleet's settings. Make them with New. Methods may be called from any goroutine.
type Settings struct {
	cfg Config
	// policy and denied are replaced as a whole and never changed, so that readers on the way of each job need no lock.
	policy atomic.Pointer[policy]
	denied atomic.Pointer[map[string]bool]
	// buckets follow the buckets of proxies, policies and denied hosts.
	buckets []*follower

	// mu guards the fields below, and is held while the pool takes them over.
	mu     sync.Mutex
	listed []proxylist.Proxy          // from the environment and the file
	bucket map[string]proxylist.Proxy // from the bucket, which wins
}

// policy is a policy and since when it applies; the zero time means since the start.
type policy struct {
	jobs.Policy
	updated time.Time
}

// New makes Settings in which the environment applies; Run adds what the fleet has set.
func New(cfg Config) *Settings {
	s := &Settings{cfg: cfg, bucket: map[string]proxylist.Proxy{}}
	s.policy.Store(&policy{Policy: cfg.Policy})
	s.denied.Store(&map[string]bool{})
	s.buckets = []*follower{
		newFollower(cfg.Names.Bucket("proxies"), cfg.Log, s.applyProxies),
		newFollower(cfg.Names.Bucket("policy"), cfg.Log, s.applyPolicy),
		newFollower(cfg.Names.Bucket("deny"), cfg.Log, s.applyDeny),
	}
	return s
}

// Policy is the current retry policy and when it was set; the zero time means that it is the environment's.
func (s *Settings) Policy() (jobs.Policy, time.Time) {
	p := s.policy.Load()
	return p.Policy, p.updated
}

// IsDenied reports whether the fleet's owner has stopped fetches from host, a name without a port. Every job asks, so an empty
// list costs nothing. An IPv6 address is without brackets.
func (s *Settings) IsDenied(host string) bool {
	denied := *s.denied.Load()
	return len(denied) > 0 && denied[strings.ToLower(strings.TrimSuffix(host, "."))]
}

// SetListed sets the proxies that the environment and the file name. Proxies of the bucket stay. It keeps the slice, so the
// caller must not change it afterwards.
func (s *Settings) SetListed(proxies []proxylist.Proxy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = proxies
	s.replace()
}

// IsShared reports whether the fleet's bucket names a proxy.
func (s *Settings) IsShared(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, shared := s.bucket[id]
	return shared
}

// Run follows the installation's buckets until ctx ends. restore creates those that are missing; nil leaves that to others. The
// buckets are followed independently: one that is missing does not hold up the others. Call Run once.
func (s *Settings) Run(ctx context.Context, js jetstream.JetStream, restore func(context.Context)) {
	var watches sync.WaitGroup
	for _, f := range s.buckets {
		f.restore = restore
		watches.Go(func() { f.run(ctx, js) })
	}
	watches.Wait()
}

// Err is why a change that somebody makes for the fleet does not reach this worker; nil if it does, within a second. It joins the
// errors of all buckets that cannot be read. Before the first read of a bucket it is not nil.
func (s *Settings) Err() error {
	var errs []error
	for _, f := range s.buckets {
		errs = append(errs, f.watchError())
	}
	return errors.Join(errs...)
}

// applyPolicy takes over the two settings in the bucket of policies, and passes on the keys of Others. If fresh, changes are all
// keys of the bucket: a setting that is missing there goes back to the environment's. Other keys are ignored, since a later
// version may add some.
func (s *Settings) applyPolicy(fresh bool, changes []change) {
	setters := map[string]func(change){PolicyKey: s.setPolicy, StrategyKey: s.setStrategy}
	for key, use := range s.cfg.Others {
		setters[key] = func(c change) { use(Change{Value: c.value, Revision: c.revision, Age: c.age}) }
	}
	for key, set := range setters {
		known := false
		for _, c := range changes {
			if c.key == key {
				known = true
				set(c)
			}
		}
		if fresh && !known {
			set(change{})
		}
	}
}

// setPolicy takes over a policy; if there is none, the environment's applies. A policy may leave members out: the environment's
// fill them in.
func (s *Settings) setPolicy(c change) {
	if c.value == nil {
		s.policy.Store(&policy{Policy: s.cfg.Policy})
		return
	}
	p, err := jobs.DecodePolicy(c.value, s.cfg.Policy)
	if err != nil {
		s.cfg.Log.Error("retry policy in the bucket is not valid, the last good one stays", "error", err)
		return
	}
	s.policy.Store(&policy{Policy: p, updated: c.at})
}

// setStrategy takes over a strategy; if there is none, the environment's applies.
func (s *Settings) setStrategy(c change) {
	strategy := s.cfg.Strategy
	if c.value != nil {
		var err error
		if strategy, err = ParseStrategy(c.value); err != nil {
			s.cfg.Log.Error("strategy in the bucket is not valid, the last good one stays", "error", err)
			return
		}
	}
	// The bucket is read again after each reconnect, so only a strategy that differs is logged.
	if old := s.cfg.Pool.SetStrategy(strategy); old != strategy {
		s.cfg.Log.Info("strategy changed", "from", old, "to", strategy)
	}
}

// ParseStrategy reads the value of StrategyKey, text that somebody may have written by hand.
func ParseStrategy(value []byte) (rotation.Strategy, error) {
	name, err := text.Document(value)
	if err != nil {
		return "", err
	}
	return rotation.ParseStrategy(string(name))
}

// applyDeny makes a new set of denied hosts. Readers keep the old one until it is complete, so they need no lock.
func (s *Settings) applyDeny(fresh bool, changes []change) {
	denied := map[string]bool{}
	if !fresh {
		maps.Copy(denied, *s.denied.Load())
	}
	for _, c := range changes {
		host := DenyHost(c.key)
		if c.value == nil {
			delete(denied, host)
		} else {
			denied[host] = true
		}
	}
	s.denied.Store(&denied)
}

// DenyKey is the key under which host stands in the bucket of denied hosts. A key cannot hold the colons of an IPv6 address, so
// each becomes an equals sign, which no host has.
func DenyKey(host string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(host, ".")), ":", "=")
}

// DenyHost is the host of a key, which somebody may have written by hand.
func DenyHost(key string) string {
	return strings.ToLower(strings.TrimSuffix(strings.ReplaceAll(key, "=", ":"), "."))
}

// applyProxies takes over the proxies of the bucket. One that is not valid is logged and left out.
func (s *Settings) applyProxies(fresh bool, changes []change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh {
		clear(s.bucket)
	}
	for _, c := range changes {
		if c.value == nil {
			delete(s.bucket, c.key)
			continue
		}
		p, err := ParseEntry(c.key, string(c.value))
		if err != nil {
			// The line may hold a password: the parser's errors never do.
			s.cfg.Log.Error("proxy in the bucket is not valid and is not used", "proxy", c.key, "error", err)
			delete(s.bucket, c.key) // a worker that starts now would not have the earlier line either, so all workers agree
			continue
		}
		s.bucket[c.key] = p
	}
	s.replace()
}

// ParseEntry reads a proxy of the bucket: a line as in the proxies file whose id, if it names one, is the key. Its errors never
// hold a part of the line that may be secret.
func ParseEntry(key, line string) (proxylist.Proxy, error) {
	if !jobs.ValidProxyID(key) {
		return proxylist.Proxy{}, errors.New("its key is not the id of a proxy, [A-Za-z0-9_-]{1,64} but not metrics")
	}
	value, err := text.Document([]byte(line))
	if err != nil {
		return proxylist.Proxy{}, err
	}
	p, err := proxylist.ParseLine(string(value))
	if err != nil {
		return proxylist.Proxy{}, err
	}
	named := slices.ContainsFunc(strings.Fields(line), func(field string) bool { return strings.HasPrefix(field, "id=") })
	if named && p.ID != key {
		return proxylist.Proxy{}, fmt.Errorf("the line names the id %s", p.ID)
	}
	p.ID = key
	return p, nil
}

// replace gives the pool the proxies of environment, file and bucket. If two share an id, the bucket's wins. The caller holds the
// lock, which keeps changes in order. Proxies of the bucket are sorted by id, so that the same settings give the same list on
// each worker.
func (s *Settings) replace() {
	shared := make([]proxylist.Proxy, 0, len(s.bucket))
	for _, id := range slices.Sorted(maps.Keys(s.bucket)) {
		shared = append(shared, s.bucket[id])
	}
	s.cfg.Pool.Replace(proxylist.Join(s.listed, shared))
}
