package stream

import (
	"time"

	"github.com/nats-io/nats.go"
)

// delivered is a message that a consumer delivered: a Delivery, or one of package jetstream.
type delivered interface{ Reply() string }

// Delivery is one delivery of a job by a consumer. It does not change, so it may be shared.
type Delivery struct {
	msg   *nats.Msg
	meta  nats.MsgMetadata
	since time.Time
}

// Subject is the subject that the job was published to.
func (d *Delivery) Subject() string { return d.msg.Subject }

// Data is the payload of the job.
func (d *Delivery) Data() []byte { return d.msg.Data }

// Headers are those of the job; nil if it has none. Any of them may be the publisher's, a Status included.
func (d *Delivery) Headers() nats.Header { return d.msg.Header }

// Reply is the subject of the ack.
func (d *Delivery) Reply() string { return d.msg.Reply }

// Metadata is what the server says about the delivery.
func (d *Delivery) Metadata() nats.MsgMetadata { return d.meta }

// Since is a time before the delivery, by a few seconds at most. The job lease runs from then.
func (d *Delivery) Since() time.Time { return d.since }
