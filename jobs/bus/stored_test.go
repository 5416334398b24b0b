package bus_test

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// forge stores a message that is meant, then each of the forged ones, and then one more. It returns the subjects by sequence.
func (in *installation) forge(t *testing.T) (subjects []string, readable map[string]bool) {
	t.Helper()
	subjects, readable = []string{""}, map[string]bool{"gofer.jobs.low.victim": true, "gofer.jobs.default.last": true}
	store := func(subject, header, payload string) {
		in.server.StoreRaw(t, subject, header, payload)
		subjects = append(subjects, subject)
	}
	fair, unfair := testenv.ForgedHeaders("1", "gofer.jobs.low.victim")
	store("gofer.jobs.low.victim", "NATS/1.0\r\nA: b\r\n\r\n", "http://a.test/")
	for kind, header := range fair {
		store("gofer.jobs.default."+kind, header, "")
		readable["gofer.jobs.default."+kind] = true
	}
	for kind, header := range unfair {
		store("gofer.jobs.default."+kind, header, "")
	}
	store("gofer.jobs.default.last", "NATS/1.0\r\nA: b\r\n\r\n", "http://a.test/")
	return subjects, readable
}

func sequence(t *testing.T, subjects []string, msg *nats.Msg) uint64 {
	t.Helper()
	for seq, subject := range subjects {
		if subject != "" && msg.Header.Get("Nats-Subject") == subject {
			return uint64(seq)
		}
	}
	t.Fatalf("a message says that its subject is %q", msg.Header.Get("Nats-Subject"))
	return 0
}

func TestAPublisherDoesNotSayWhichMessageItsIs(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{})
	subjects, readable := in.forge(t)
	for seq, subject := range subjects[1:] {
		for how, get := range map[string]func() (*nats.Msg, error){
			"by its sequence": func() (*nats.Msg, error) { return in.MessageAt(soon(t), "GOFER_JOBS", uint64(seq+1)) },
			"by its subject":  func() (*nats.Msg, error) { return in.LastMessage(soon(t), "GOFER_JOBS", subject) },
		} {
			msg, err := get()
			if (err == nil) != readable[subject] || errors.Is(err, bus.ErrNotFound) || errors.Is(err, nats.ErrNoResponders) {
				t.Errorf("%s read %s: %v", subject, how, err)
			} else if err == nil && (msg.Header.Get("Nats-Subject") != subject || sequence(t, subjects, msg) != uint64(seq+1)) {
				t.Errorf("%s read %s says that it is %s", subject, how, msg.Header.Get("Nats-Subject"))
			}
		}
	}
	found := 0
	for seq := uint64(1); ; found++ {
		msg, err := in.NextMessage(soon(t), "GOFER_JOBS", "gofer.jobs.>", seq)
		if errors.Is(err, bus.ErrNotFound) {
			break
		}
		must(t, err)
		next := sequence(t, subjects, msg)
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
	subjects, readable := in.forge(t)
	for _, limit := range []int{1, 2, 1000} {
		page, read, pages := bus.Page{Stream: "GOFER_JOBS", Subject: ">", Limit: limit}, 0, 0
		for more := true; more; pages++ {
			if pages > len(subjects) {
				t.Fatalf("pages of %d do not end", limit)
			}
			var err error
			page.After, more, err = in.ReadPage(soon(t), page, func(msg *nats.Msg) error {
				if sequence(t, subjects, msg) <= page.After {
					t.Errorf("message %s comes after %d", msg.Header.Get("Nats-Subject"), page.After)
				}
				read++
				return nil
			})
			must(t, err)
		}
		if read != len(readable) || page.After != uint64(len(subjects)-1) {
			t.Errorf("pages of %d have %d messages up to %d, want %d up to %d", limit, read, page.After, len(readable), len(subjects)-1)
		}
		if n, err := in.CountFrom(soon(t), "JOBS", "gofer.jobs.>", uint64(len(subjects)-1)); err != nil || n != 1 {
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
	n := 0
	for _, blocks := range []map[string]string{fair, unfair} {
		for kind, header := range blocks {
			in.server.StoreRaw(t, "_gofer.due.default."+kind, header, "")
			n++
		}
	}
	seqs := []uint64{uint64(n + 1)}
	for seq := range n {
		seqs = append(seqs, uint64(seq+1))
	}
	there, err := in.StillDue(soon(t), seqs)
	if err != nil || len(there) != n || there[uint64(n+1)] {
		t.Errorf("%v are due, %v; want 1 to %d", there, err, n)
	}
	must(t, in.StillWaiting(soon(t), seqs, func(job bus.WaitingJob) { t.Errorf("%v waits", job.Key) }))
}
