package bus

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A server that reads a stored message appends its own headers to those of the publisher. A publisher may have written the
// same names, a status, or an empty line that ends the headers before those of the server. If nats.go has read all headers,
// the server's are the last ones of their names.

// numPending is the header that says how many messages of a batch's filter follow a message, or the batch.
const numPending = "Nats-Num-Pending"

// minAdded is the number of bytes that the server adds at least to the headers of a message.
const minAdded = len("Nats-Stream: s\r\nNats-Subject: s\r\nNats-Sequence: 1\r\nNats-Time-Stamp: 2006-01-02T15:04:05Z\r\n\r\n")

// errHeaders means that the message exists, but that its publisher wrote headers that hide the server's own.
var errHeaders = errors.New("the headers of the message cannot be read")

// isMessage reports whether the answer to a direct get is a message. Other answers say that there is none, or that a batch is
// complete. It removes the publisher's headers that have names of the server's. A message whose server headers cannot be read is
// errHeaders.
//
// It trusts the streams into which only workers and the server write: their messages may have more headers than isReadWhole can
// check.
func (c *Client) isMessage(stream string, msg *nats.Msg) (bool, error) {
	whole := isReadWhole(msg)
	keepLast(msg.Header) // after isReadWhole, which counts all values
	isFromServer := msg.Header.Get(jetstream.SequenceHeader) != ""
	// Anybody may publish jobs.
	if public := stream == c.names.Stream("JOBS") || stream == c.names.Stream("RETRIES"); !whole && (public || !isFromServer) {
		return true, errHeaders
	}
	if isFromServer {
		return true, nil
	}
	switch status := msg.Header.Get("Status"); status {
	case "":
		return true, errHeaders
	case "204", "404":
		return false, nil
	case "503":
		return false, nats.ErrNoResponders
	default:
		return false, fmt.Errorf("NATS answers %s %s", status, msg.Header.Get("Description"))
	}
}

// keepLast removes all but the last value of each header that the server adds.
func keepLast(h nats.Header) {
	for _, name := range [...]string{
		jetstream.StreamHeader, jetstream.SubjectHeader, jetstream.SequenceHeader, jetstream.TimeStampHeaer, numPending, jetstream.LastSequenceHeader,
	} {
		if values := h[name]; len(values) > 1 {
			h[name] = values[len(values)-1:]
		}
	}
}

// isReadWhole reports whether nats.go has read all headers, the server's included. It compares the bytes received with the
// fewest bytes in which these headers can be written. That is exact for up to 44 headers. With more it may be false for a
// complete message.
func isReadWhole(msg *nats.Msg) bool {
	fewest := len("NATS/1.0\n\n")
	// Blanks and carriage returns may come on top.
	for name, values := range msg.Header {
		for _, value := range values {
			fewest += len(name) + len(":") + len(value) + len("\n")
		}
	}
	if len(msg.Header["Status"]) > 0 { // it and its description may come in the first line
		fewest -= len("Status:\n") + len("Description:\n")
	}
	received := msg.Size() - len(msg.Subject) - len(msg.Reply) - len(msg.Data)
	return received-fewest < minAdded
}

// sequenceOf reads the sequence of a message that answers a direct get.
func sequenceOf(msg *nats.Msg) (uint64, error) {
	return strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
}

// batchEnd is the message of the server that ends a batch. Its counts include messages whose headers cannot be read.
type batchEnd struct {
	last uint64 // the sequence of the last message of the batch; zero if it had none
	left uint64 // how many messages of the filter follow
}

// endOf reads the end of a batch.
func endOf(msg *nats.Msg) (end batchEnd, err error) {
	if msg.Header.Get("Status") != "204" { // there is no message
		return batchEnd{}, nil
	}
	if end.last, err = strconv.ParseUint(msg.Header.Get(jetstream.LastSequenceHeader), 10, 64); err == nil {
		end.left, err = strconv.ParseUint(msg.Header.Get(numPending), 10, 64)
	}
	if err != nil {
		err = fmt.Errorf("read the end of a batch: %w", err)
	}
	return end, err
}
