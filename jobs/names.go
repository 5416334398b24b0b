package jobs

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// DefaultQueue is the queue of a job that names none.
const DefaultQueue = "default"

// DefaultPrefix is the first token of every public subject unless the owner chose another.
const DefaultPrefix = "gofer"

// ValidQueue reports whether name can be a queue: [a-z0-9_-]{1,32}.
func ValidQueue(name string) bool { return plain(name, 32, false) }

// ValidID reports whether id can name a job: [A-Za-z0-9_-]{1,128}. An id that fails never reaches a filter or a purge.
func ValidID(id string) bool { return plain(id, 128, true) }

// reservedProxyID names no proxy: the HTTP API has the history of the breakers under it.
const reservedProxyID = "metrics"

// ValidProxyID reports whether id can name a proxy: [A-Za-z0-9_-]{1,64}, but not metrics.
func ValidProxyID(id string) bool { return plain(id, 64, true) && id != reservedProxyID }

// plain reports whether name is made of 1 to most letters, digits, '_' and '-'; capitals only where they are allowed.
func plain(name string, most int, capitals bool) bool {
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-', capitals && 'A' <= c && c <= 'Z':
		default:
			return false
		}
	}
	return name != "" && len(name) <= most
}

// Names are the subjects, streams, buckets and consumers of one gofer installation. The zero value is not usable:
// make one with NewNames.
type Names struct{ prefix string }

// NewNames checks the prefix, [a-z][a-z0-9_-]{0,31}; an empty one means DefaultPrefix.
func NewNames(prefix string) (Names, error) {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if !plain(prefix, 32, false) || prefix[0] < 'a' {
		return Names{}, fmt.Errorf("prefix %q does not match [a-z][a-z0-9_-]{0,31}", clip(prefix, 40))
	}
	return Names{prefix: prefix}, nil
}

// Prefix is the first token of every public subject.
func (n Names) Prefix() string { return n.prefix }

// Job is the subject that a publisher sends to.
func (n Names) Job(queue, id string) string { return n.prefix + ".jobs." + queue + "." + id }

// Jobs is the subject of every job of a queue; an id with dots is part of it, so that it ends as an invalid job
// instead of waiting for ever.
func (n Names) Jobs(queue string) string { return n.prefix + ".jobs." + queue + ".>" }

// AllJobs is the subject of every job. A message without an id is none: nobody would ever take it.
func (n Names) AllJobs() string { return n.prefix + ".jobs.*.>" }

// Result is the subject that a subscriber listens to.
func (n Names) Result(queue, id string) string { return n.prefix + ".results." + queue + "." + id }

// Results is the subject of every result of a queue; an empty queue means all.
func (n Names) Results(queue string) string { return n.all("results", queue) }

// ResultIngress is where workers publish a result. Only the server republishes it under Result, and only if it was
// stored: a subscriber never sees a losing attempt.
func (n Names) ResultIngress(queue, id string) string {
	return "_" + n.prefix + ".results." + queue + "." + id
}

// ResultsIngress is the subject of every result on its way in.
func (n Names) ResultsIngress() string { return "_" + n.prefix + ".results.>" }

// RetryEvent is the subject of the announcements that a job will be tried again.
func (n Names) RetryEvent(queue, id string) string {
	return n.prefix + ".events.retry." + queue + "." + id
}

// BreakerEvent is the subject of a proxy's breaker changes.
func (n Names) BreakerEvent(proxy string) string { return n.prefix + ".events.breaker." + proxy }

// PoolEvent is the subject of what becomes of a worker's pool as a whole.
func (n Names) PoolEvent(worker string) string { return n.prefix + ".events.pool." + worker }

// SiteKey is what a site is called where its name does not fit: the first 16 hexadecimal digits of its SHA-256.
func SiteKey(site string) string {
	sum := sha256.Sum256([]byte(site))
	return hex.EncodeToString(sum[:8])
}

// ValidSiteKey reports whether key can be a SiteKey.
func ValidSiteKey(key string) bool {
	_, err := hex.DecodeString(key)
	return err == nil && len(key) == 16 && key == strings.ToLower(key)
}

// SiteEvent is the subject of the changes of a site.
func (n Names) SiteEvent(site string) string { return n.prefix + ".events.site." + SiteKey(site) }

// DuplicateEvent is the subject of the events about a finished id that was published again.
func (n Names) DuplicateEvent(queue, id string) string {
	return n.prefix + ".events.duplicate." + queue + "." + id
}

// Events is the subject of every event.
func (n Names) Events() string { return n.prefix + ".events.>" }

// Dead is the subject of a dead letter.
func (n Names) Dead(queue, id string) string { return n.prefix + ".dead." + queue + "." + id }

// AllDead is the subject of every dead letter.
func (n Names) AllDead() string { return n.prefix + ".dead.>" }

// ScheduledJob is where a job waits for its time. Only workers may publish there.
func (n Names) ScheduledJob(queue, id string) string {
	return "_" + n.prefix + ".at." + queue + "." + id
}

// AllScheduledJobs is the subject of every waiting job, those that wait for a site included.
func (n Names) AllScheduledJobs() string { return "_" + n.prefix + ".at.>" }

// siteToken stands where the queue of another waiting job stands: no queue has capitals.
const siteToken = "SITE"

// SiteWait is where a job waits for a site, which key names as SiteKey does. A key of "*" means any site.
func (n Names) SiteWait(key, queue, id string) string {
	return "_" + n.prefix + ".at." + siteToken + "." + key + "." + queue + "." + id
}

// AllSiteWaits is the subject of every job that waits for a site. A key of "*" means any site.
func (n Names) AllSiteWaits(key string) string {
	return "_" + n.prefix + ".at." + siteToken + "." + key + ".>"
}

// SplitWaiting splits a subject of ScheduledJob or SiteWait into its parts, and any other subject as SplitSubject does.
// site is a SiteKey, and empty for a job that waits for no site.
func SplitWaiting(subject string) (site, queue, id string, ok bool) {
	queue, id, ok = SplitSubject(subject)
	if _, kind, _ := strings.Cut(subject, "."); queue != siteToken || !strings.HasPrefix(kind, "at.") {
		return "", queue, id, ok
	}
	site, rest, _ := strings.Cut(id, ".")
	queue, id, ok = strings.Cut(rest, ".")
	return site, queue, id, ok && site != "" && queue != "" && id != ""
}

// DueJob is where the server puts a waiting job when its time has come.
func (n Names) DueJob(queue, id string) string { return "_" + n.prefix + ".due." + queue + "." + id }

// DueJobs is the subject of every job of a queue whose time has come.
func (n Names) DueJobs(queue string) string { return "_" + n.prefix + ".due." + queue + ".>" }

// AllDueJobs is the subject of every job whose time has come.
func (n Names) AllDueJobs() string { return "_" + n.prefix + ".due.>" }

// Cancel is the core subject on which the workers are told to stop a running job.
func (n Names) Cancel(queue, id string) string { return "_" + n.prefix + ".cancel." + queue + "." + id }

// AllCancels is the subject of every cancel request.
func (n Names) AllCancels() string { return "_" + n.prefix + ".cancel.>" }

// Hour is the subject of a part of the fleet's rollups. A token may be "*".
func (n Names) Hour(hour, kind, part string) string {
	return "_" + n.prefix + ".rollups." + hour + "." + kind + "." + part
}

// AllHours is the subject of every part of the fleet's rollups.
func (n Names) AllHours() string { return "_" + n.prefix + ".rollups.>" }

// Stream is the name of one of the installation's streams: "JOBS", "RESULTS", "EVENTS", "DEAD", "RETRIES", "ROLLUPS".
func (n Names) Stream(kind string) string { return strings.ToUpper(n.prefix) + "_" + kind }

// Bucket is the name of one of the installation's buckets: "proxies", "policy", "bodies", "deny", "breakers", "sites".
func (n Names) Bucket(kind string) string { return n.prefix + "-" + kind }

// WorkerConsumer is the durable of a queue's fresh jobs, DueConsumer that of its jobs whose time has come.
func (n Names) WorkerConsumer(queue string) string { return "worker-" + queue }

// DueConsumer is the durable of a queue's jobs whose time has come.
func (n Names) DueConsumer(queue string) string { return "due-" + queue }

// SplitSubject takes the queue and the job id off a subject of the form <a>.<b>.<queue>.<id…>. The id is whatever
// follows the queue, dots included; ok is false when there is no such thing.
func SplitSubject(subject string) (queue, id string, ok bool) {
	for range 2 {
		_, rest, found := strings.Cut(subject, ".")
		if !found {
			return "", "", false
		}
		subject = rest
	}
	queue, id, ok = strings.Cut(subject, ".")
	return queue, id, ok && queue != "" && id != ""
}

// all is the subject of all messages of a kind, of one queue or of all if queue is empty.
func (n Names) all(kind, queue string) string {
	if queue == "" {
		return n.prefix + "." + kind + ".>"
	}
	return n.prefix + "." + kind + "." + queue + ".>"
}
