package bus

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
)

// streams returns all streams of an installation, those of its buckets included.
func (s Settings) streams(n jobs.Names) []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		s.jobs(n), s.retries(n), s.results(n),
		withMaxBytes(s.partOfResults(4, mib, 1024*mib), s.fileStream(n.Stream("EVENTS"), n.Events(), eventsAge, -1)),
		withMaxBytes(s.partOfResults(4, mib, 1024*mib), s.fileStream(n.Stream("DEAD"), n.AllDead(), deadAge, 1)),
		withMaxBytes(s.partOfResults(8, 2*mib, 64*mib), s.hours(n)),
		withMaxBytes(s.partOfResults(8, mib, 32*mib), s.bucket(n.Bucket("proxies"), 0)),
		withMaxBytes(s.partOfResults(8, mib, mib), s.bucket(n.Bucket("policy"), 0)),
		withMaxBytes(s.partOfResults(32, mib, 8*mib), s.bucket(n.Bucket("deny"), 0)),
		s.findings(n, "breakers"),
		s.findings(n, "sites"),
		s.bodies(n),
	}
}

// withMaxBytes returns the stream with a bound on its size, in bytes; -1 means no bound.
func withMaxBytes(bytes int64, c jetstream.StreamConfig) jetstream.StreamConfig {
	c.MaxBytes = bytes
	return c
}

// jobs is the stream that holds one job per subject and refuses a second one while the first is queued or running. It has no age
// limit and no message TTL: these would remove jobs without a result, or give a running job to a second worker. Its bound on a
// message leaves room for the headers of a waiting job and of a dead letter.
func (s Settings) jobs(n jobs.Names) jetstream.StreamConfig {
	c := s.fileStream(n.Stream("JOBS"), n.AllJobs(), 0, 1)
	c.Retention, c.Discard, c.DiscardNewPerSubject = jetstream.WorkQueuePolicy, jetstream.DiscardNew, true
	c.MaxBytes = s.JobsMaxBytes
	c.MaxMsgs, c.Duplicates, c.MaxMsgSize = s.JobsMaxMsgs, duplicateWindow, jobs.MaxJobBytes+jobSlack
	return c
}

// retries is the stream of waiting and due jobs. In a stream with schedules the server refuses no message: it silently
// drops waiting jobs to keep a limit. So the stream has a limit only if the owner bounds all streams, and workers stay
// below it.
func (s Settings) retries(n jobs.Names) jetstream.StreamConfig {
	c := s.fileStream(n.Stream("RETRIES"), n.AllScheduledJobs(), 0, 1)
	c.Subjects, c.MaxBytes = []string{n.AllScheduledJobs(), n.AllDueJobs()}, s.waitingBytes()
	c.Retention, c.AllowMsgSchedules, c.AllowRollup = jetstream.WorkQueuePolicy, true, true // schedules need roll-ups
	return c
}

// results is the stream that stores what workers send to the ingress subject under the public one, and republishes only
// what it stored: a subscriber of the ingress would see every losing attempt. Its limit of one message for each subject
// supports the guard of the workers.
func (s Settings) results(n jobs.Names) jetstream.StreamConfig {
	c := s.fileStream(n.Stream("RESULTS"), n.ResultsIngress(), s.ResultsMaxAge, 1)
	// A full stream refuses new results, instead of dropping old ones before their time.
	c.Discard, c.DiscardNewPerSubject, c.MaxBytes = jetstream.DiscardNew, true, s.ResultsMaxBytes
	c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: n.ResultsIngress(), Destination: n.Results("")}
	c.RePublish = &jetstream.RePublish{Source: n.Results(""), Destination: n.Results("")}
	return c
}

// hours is the stream of the fleet's rollups: the newest version of each part of an hour. A worker gives a large part a TTL.
func (s Settings) hours(n jobs.Names) jetstream.StreamConfig {
	c := s.fileStream(n.Stream("ROLLUPS"), n.AllHours(), hoursAge, 1)
	c.AllowMsgTTL = true
	return c
}

// fileStream returns a stream in files that drops its oldest messages: after age (zero means never), and when a subject has more
// than perSubject (-1 means no bound).
func (s Settings) fileStream(name, subject string, age time.Duration, perSubject int64) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: name, Subjects: []string{subject}, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxAge: age, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: perSubject, MaxConsumers: -1, MaxMsgSize: -1,
		Storage: jetstream.FileStorage, Replicas: s.Replicas, AllowDirect: true,
	}
}

// bucket is the stream of a key-value bucket (NATS ADR-8).
func (s Settings) bucket(name string, age time.Duration) jetstream.StreamConfig {
	// Clients check that a bucket has these settings.
	c := s.fileStream("KV_"+name, "$KV."+name+".>", age, 1)
	c.Discard, c.AllowRollup, c.DenyDelete = jetstream.DiscardNew, true, true
	return c
}

// findings is the stream of the bucket of proxies, or of sites, that a worker found dead. An entry is valid for minutes and
// may be lost. It is stored in files nevertheless: an account may lack the right to use the server's memory.
func (s Settings) findings(n jobs.Names, kind string) jetstream.StreamConfig {
	c := s.bucket(n.Bucket(kind), findingsAge)
	c.MaxBytes = findingsBytes
	if bound := s.partOfResults(8, mib, findingsBytes); bound > 0 {
		c.MaxBytes = bound
	}
	return c
}

// bodies is the stream of an object store (NATS ADR-20).
func (s Settings) bodies(n jobs.Names) jetstream.StreamConfig {
	name := n.Bucket("bodies")
	c := s.fileStream("OBJ_"+name, "", s.ResultsMaxAge+bodiesExtraAge, -1)
	c.Subjects = []string{"$O." + name + ".C.>", "$O." + name + ".M.>"}
	c.Discard, c.AllowRollup = jetstream.DiscardNew, true
	c.MaxBytes = s.partOfResults(1, 0, s.ResultsMaxBytes)
	return c
}

// durable is a consumer and the stream that it reads.
type durable struct {
	stream string
	config jetstream.ConsumerConfig
}

// String names the consumer.
func (d durable) String() string { return "consumer " + d.config.Durable + " of stream " + d.stream }

// readsJobs reports whether workers take jobs from the consumer.
func (d durable) readsJobs() bool { return d.config.Durable != Reader }

// durables returns all consumers: two for each queue, one of fresh jobs and one of due jobs, and one for readers on each stream
// that they read, because readers may not create any. A work queue allows one consumer for each subject, so the streams of jobs
// have none for readers.
func (s Settings) durables(n jobs.Names) []durable {
	var out []durable
	for _, queue := range s.Queues {
		out = append(out, s.jobConsumer(n, queue, false), s.jobConsumer(n, queue, true))
	}
	// Jobs have no consumer for readers: a work queue allows one consumer for each subject.
	for _, kind := range []string{"RESULTS", "EVENTS", "DEAD"} {
		out = append(out, durable{n.Stream(kind), jetstream.ConsumerConfig{
			Durable: Reader, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 30 * time.Second, MaxDeliver: -1,
			MaxAckPending: 1000, MaxWaiting: 512,
		}})
	}
	return out
}

// Reader is the prepared durable on results, events and dead letters, for users who may not create one. All users that
// read with it share its messages.
const Reader = "reader"

// jobConsumer returns the consumer of a queue's fresh jobs or, if due, of its due jobs. It redelivers without limit (-1): gofer
// counts attempts itself, and a job that the server no longer delivered would have no result.
func (s Settings) jobConsumer(n jobs.Names, queue string, due bool) durable {
	stream, name, filter := n.Stream("JOBS"), n.WorkerConsumer(queue), n.Jobs(queue)
	if due {
		stream, name, filter = n.Stream("RETRIES"), n.DueConsumer(queue), n.DueJobs(queue)
	}
	return durable{stream, jetstream.ConsumerConfig{
		// MaxDeliver -1: no limit.
		Durable: name, FilterSubject: filter, AckPolicy: jetstream.AckExplicitPolicy, AckWait: s.AckWait, MaxDeliver: -1,
		MaxAckPending: maxAckPending, MaxWaiting: maxOpenPulls,
	}}
}
