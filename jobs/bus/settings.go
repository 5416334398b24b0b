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
	// findingsAge is longer than a site rests, and than a breaker stays open by default.
	findingsAge     = time.Hour
	findingsBytes   = 32 << 20               // of 100,000 proxies or sites
	bodiesExtraAge  = time.Hour              // a body outlives the result that names it
	duplicateWindow = 100 * time.Millisecond // the server's minimum: within it, two jobs of one Nats-Msg-Id are one
	jobSlack        = 64 << 10               // between the largest job and the largest message that the stream takes
	maxAckPending   = 50_000
	maxOpenPulls    = 4096 // open pulls of a fleet; the server's default is 512
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
	// JobsMaxBytes bounds the size of these jobs together; zero means no bound. Some accounts demand a bound of every
	// stream: if this one and ResultsMaxBytes are set, all others have one, too.
	JobsMaxBytes int64
	// Queues lists the queues that get consumers; an empty list means jobs.DefaultQueue.
	Queues []string
	// AckWait is for the consumers that are created; zero means the package's.
	AckWait time.Duration
}

// withDefaults returns the settings with defaults in place of zero values. JetStream writes -1 for no limit.
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

// partOfResults returns ResultsMaxBytes divided by divisor, but at least low and at most high. It is -1, no bound, unless
// the owner bounds both jobs and results: only then every stream has a bound.
func (s Settings) partOfResults(divisor, low, high int64) int64 {
	if !s.boundsAll() {
		return -1
	}
	return max(low, min(high, s.ResultsMaxBytes/divisor))
}

// waitingBytes returns the bound of the waiting jobs, which may be as many as the queued ones. It has room for a few of the
// largest.
func (s Settings) waitingBytes() int64 {
	if !s.boundsAll() {
		return -1
	}
	return max(s.JobsMaxBytes, 4*mib)
}

// boundsAll reports whether the owner bounds both jobs and results. Then every stream has a bound, as some accounts demand.
func (s Settings) boundsAll() bool { return s.JobsMaxBytes > 0 && s.ResultsMaxBytes > 0 }
