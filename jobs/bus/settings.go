package bus

import (
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// AckWait is how long a job stays with a worker that sends no heartbeat. A heartbeat comes every third of it, and the
// jobs of a dead worker run again within 15 s. It is not shorter because the server rounds such times to whole seconds
// after a restart.
const AckWait = 12 * time.Second

const (
	defaultResultsAge = 24 * time.Hour
	eventsAge         = 24 * time.Hour
	deadAge           = 14 * 24 * time.Hour
	hoursAge          = 168 * time.Hour
	// findingsAge is longer than a breaker stays open, unless the owner wants it so, and than a site rests.
	findingsAge   = time.Hour
	findingsBytes = 32 << 20               // of 100,000 proxies or sites
	bodiesLonger  = time.Hour              // a body outlives the result that names it
	duplicates    = 100 * time.Millisecond // the server's minimum: within it, two jobs of one Nats-Msg-Id are one
	jobSlack      = 64 << 10               // between the largest job and the largest message that the stream takes
	maxAckPending = 50_000
	maxWaiting    = 4096 // open pulls of a fleet; the server's default is 512
)

// Settings are what an owner may choose about the streams. The zero value means the defaults, in every field.
type Settings struct {
	// Replicas is how many copies of each stream a cluster keeps; zero means 1.
	Replicas int
	// ResultsMaxAge is how long results are kept, and thereby how long an id is known to be finished; zero means 24 h.
	ResultsMaxAge time.Duration
	// ResultsMaxBytes bounds the stored results; zero means no bound. When full, new results are refused.
	ResultsMaxBytes int64
	// JobsMaxMsgs bounds the jobs that are queued or running; zero means no bound. When full, publishers are refused.
	JobsMaxMsgs int64
	// JobsMaxBytes bounds their size; zero means no bound. Some accounts demand a bound of every stream: if this one and
	// ResultsMaxBytes are set, all others have one, too.
	JobsMaxBytes int64
	// Queues get their consumers; none means jobs.DefaultQueue.
	Queues []string
	// AckWait is for the consumers that are created; zero means the package's.
	AckWait time.Duration
}

// withDefaults replaces zero values by the defaults. JetStream writes -1 for no limit. s is a copy, so the
// caller's settings keep their zero values.
func (s Settings) withDefaults() Settings {
	s.Replicas = max(1, s.Replicas)
	if s.ResultsMaxAge <= 0 {
		s.ResultsMaxAge = defaultResultsAge
	}
	if s.ResultsMaxBytes <= 0 {
		s.ResultsMaxBytes = -1
	}
	if s.JobsMaxMsgs <= 0 {
		s.JobsMaxMsgs = -1
	}
	if s.JobsMaxBytes <= 0 {
		s.JobsMaxBytes = -1
	}
	if len(s.Queues) == 0 {
		s.Queues = []string{jobs.DefaultQueue}
	}
	if s.AckWait <= 0 {
		s.AckWait = AckWait
	}
	return s
}

const mib = 1 << 20

// part returns the bound of a stream that may hold a part of what the results may, between low and high. It is -1, no
// bound, unless the owner bounds both jobs and results: only then every stream has a bound.
func (s Settings) part(divisor, low, high int64) int64 {
	// A bound on one stream alone would not satisfy an account that demands one of each.
	if s.JobsMaxBytes <= 0 || s.ResultsMaxBytes <= 0 {
		return -1
	}
	return max(low, min(high, s.ResultsMaxBytes/divisor))
}

// waitingBytes bounds the waiting jobs, which are as many as those that are queued. It leaves room for a few of the largest.
func (s Settings) waitingBytes() int64 {
	if s.JobsMaxBytes <= 0 || s.ResultsMaxBytes <= 0 {
		return -1
	}
	return max(s.JobsMaxBytes, 4*mib)
}
