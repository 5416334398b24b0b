package totals_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/rollup"
	"github.com/gofer-mq/gofer/worker/totals"
)

// TestRestartInTheMidstOfAFlushLosesNothing restarts a real server in the midst of what one worker flushes and then dies; two
// others go on.
func TestRestartInTheMidstOfAFlushLosesNothing(t *testing.T) {
	testenv.Long(t)
	t.Parallel()
	f := newInstallation(t)
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	var books []*rollup.Book
	var workers []*totals.Rollups
	log := new(lockedBuffer)
	for range 2 {
		client, err := bus.New(f.nats.Connect(), f.names)
		if err != nil {
			t.Fatal(err)
		}
		book := rollup.NewBook()
		r := totals.NewRollups(totals.RollupsConfig{Book: book, Flushed: anyway, Log: slog.New(slog.NewTextHandler(log, nil))})
		running.Go(func() { r.Run(ctx, context.WithoutCancel(ctx), client) })
		books, workers = append(books, book), append(workers, r)
	}
	count := func(b *rollup.Book) { b.Job(rollup.JobFact{Outcome: jobs.Succeeded, Attempts: 1}) }
	expect := func(want int64) {
		t.Helper()
		for _, r := range workers {
			eventually(t, fmt.Sprint(want, " jobs"), func() bool {
				book, known := r.Fleet()
				total := book.Total(rollup.RetentionHours)
				return known && total.Jobs() == want
			})
		}
	}
	count(books[0])
	count(books[1])
	expect(2)
	dead := rollup.NewBook()
	count(dead)
	delta := dead.Take()
	var batch []*nats.Msg
	for _, name := range slices.Sorted(maps.Keys(delta.Counts)) {
		msg := nats.NewMsg(bus.RollupSubject(f.names, name))
		msg.Header.Set("Nats-Incr", "+"+delta.Counts[name])
		batch = append(batch, msg)
	}
	f.nats.TearBatch(f.names.Stream("ROLLUPS"), 1, batch)
	count(books[0])
	count(books[1])
	began := time.Now()
	expect(5)
	t.Logf("added up %v after the restart", time.Since(began))
	end()
	running.Wait()
	if got := strings.Count(log.String(), "they are mended"); got < 1 || got > 2 {
		t.Errorf("said %d times that counters were mended, want it of a worker once: %s", got, log)
	}
}
