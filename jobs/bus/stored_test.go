package bus_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// forge stores a message that is meant, then each of the forged ones, and then one more. It returns the sequence of the first,
// and the subjects of all in their order.
func (in *installation) forge(t *testing.T) (first uint64, subjects []string, readable map[string]bool) {
	t.Helper()
	readable = map[string]bool{"gofer.jobs.low.victim": true, "gofer.jobs.default.last": true}
	store := func(subject, header, payload string) uint64 {
		subjects = append(subjects, subject)
		return in.server.StoreRaw(t, subject, header, payload)
	}
	first = store("gofer.jobs.low.victim", "NATS/1.0\r\nA: b\r\n\r\n", "http://a.test/")
	fair, unfair := testenv.ForgedHeaders(fmt.Sprint(first), "gofer.jobs.low.victim")
	for kind, header := range fair {
		store("gofer.jobs.default."+kind, header, "")
		readable["gofer.jobs.default."+kind] = true
	}
	for kind, header := range unfair {
		store("gofer.jobs.default."+kind, header, "")
	}
	store("gofer.jobs.default.last", "NATS/1.0\r\nA: b\r\n\r\n", "http://a.test/")
	return first, subjects, readable
}

// sequence is that of a message whose subject is one of those that begin with a sequence.
func sequence(t *testing.T, first uint64, subjects []string, msg *nats.Msg) uint64 {
	t.Helper()
	if i := slices.Index(subjects, msg.Header.Get("Nats-Subject")); i >= 0 {
		return first + uint64(i)
	}
	t.Fatalf("a message says that its subject is %q", msg.Header.Get("Nats-Subject"))
	return 0
}

func TestAPublisherDoesNotSayWhichMessageItsIs(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	first, subjects, readable := in.forge(t)
	for i, subject := range subjects {
		seq := first + uint64(i)
		for how, get := range map[string]func() (*nats.Msg, error){
			"by its sequence": func() (*nats.Msg, error) { return in.MessageAt(soon(t), "GOFER_JOBS", seq) },
			"by its subject":  func() (*nats.Msg, error) { return in.LastMessage(soon(t), "GOFER_JOBS", subject) },
		} {
			msg, err := get()
			if (err == nil) != readable[subject] || errors.Is(err, bus.ErrNotFound) || errors.Is(err, nats.ErrNoResponders) {
				t.Errorf("%s read %s: %v", subject, how, err)
			} else if err == nil && (msg.Header.Get("Nats-Subject") != subject || sequence(t, first, subjects, msg) != seq) {
				t.Errorf("%s read %s says that it is %s", subject, how, msg.Header.Get("Nats-Subject"))
			}
		}
	}
	found := 0
	for seq := first; ; found++ {
		msg, err := in.NextMessage(soon(t), "GOFER_JOBS", "gofer.jobs.>", seq)
		if errors.Is(err, bus.ErrNotFound) {
			break
		}
		must(t, err)
		next := sequence(t, first, subjects, msg)
		if next < seq || msg.Header.Get("Nats-Sequence") == "" {
			t.Fatalf("the message after %d is %d", seq-1, next)
		}
		seq = next + 1
	}
	if found != len(readable) {
		t.Errorf("%d messages found one after the other, want %d", found, len(readable))
	}
}

func TestAPublisherDoesNotEndAPage(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	first, subjects, readable := in.forge(t)
	last := first + uint64(len(subjects)) - 1
	for _, limit := range []int{1, 2, 1000} {
		page, read, pages := bus.Page{Stream: "GOFER_JOBS", Subject: ">", Limit: limit}, 0, 0
		for more := true; more; pages++ {
			if pages > len(subjects) {
				t.Fatalf("pages of %d do not end", limit)
			}
			var err error
			page.After, more, err = in.ReadPage(soon(t), page, func(msg *nats.Msg) error {
				if sequence(t, first, subjects, msg) <= page.After {
					t.Errorf("message %s comes after %d", msg.Header.Get("Nats-Subject"), page.After)
				}
				read++
				return nil
			})
			must(t, err)
		}
		if read != len(readable) || page.After != last {
			t.Errorf("pages of %d have %d messages up to %d, want %d up to %d", limit, read, page.After, len(readable), last)
		}
		if n, err := in.CountFrom(soon(t), "JOBS", "gofer.jobs.>", last); err != nil || n != 1 {
			t.Errorf("%d messages from the last on, %v; want 1", n, err)
		}
		read = 0
		must(t, in.ReadFrom(soon(t), "JOBS", "gofer.jobs.>", 1, func(bus.Message) { read++ }))
		if read != len(readable) {
			t.Errorf("%d messages read, want %d", read, len(readable))
		}
	}
}

func TestADueJobIsThereWhateverItsHeaders(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	fair, unfair := testenv.ForgedHeaders("1", "_gofer.due.default.other")
	var seqs []uint64
	for _, blocks := range []map[string]string{fair, unfair} {
		for kind, header := range blocks {
			seqs = append(seqs, in.server.StoreRaw(t, "_gofer.due.default."+kind, header, ""))
		}
	}
	missing := slices.Max(seqs) + 1
	there, err := in.StillDue(soon(t), append(seqs, missing))
	if err != nil || len(there) != len(seqs) || there[missing] {
		t.Errorf("%v are due, %v; want %v", there, err, seqs)
	}
	must(t, in.StillWaiting(soon(t), seqs, func(job bus.WaitingJob) { t.Errorf("%v waits", job.Key) }))
}
