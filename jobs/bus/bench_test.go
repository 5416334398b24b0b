package bus_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/worker/stream"
)

// BenchmarkSubmitMany publishes pipelined jobs, client and server in one process.
func BenchmarkSubmitMany(b *testing.B) {
	in := install(b, bus.Settings{})
	source := func(yield func(jobs.Job) bool) {
		for range b.N {
			if !yield(job("")) {
				return
			}
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	err := in.client.SubmitMany(b.Context(), source, 0, func(_ jobs.Job, _ client.Ack, err error) {
		if err != nil {
			b.Error(err)
		}
	})
	must(b, err)
}

// BenchmarkStoreResult is what the guard costs: the same message beside it without one.
func BenchmarkStoreResult(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, jobs.MaxInlineBody + 1} {
		b.Run(fmt.Sprintf("guarded/%dKiB", size>>10), func(b *testing.B) {
			in := install(b, bus.Settings{})
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				in.store(b, fmt.Sprint("j", i), make([]byte, size))
			}
		})
	}
	b.Run("unguarded/1KiB", func(b *testing.B) {
		in := install(b, bus.Settings{})
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, err := in.js.Publish(b.Context(), in.names.ResultIngress("default", fmt.Sprint("j", i)), make([]byte, 1<<10))
			must(b, err)
		}
	})
}

// BenchmarkHeartbeat is one confirmed heartbeat.
func BenchmarkHeartbeat(b *testing.B) {
	in := install(b, bus.Settings{})
	_, err := in.client.Submit(b.Context(), job("a"))
	must(b, err)
	consumer, err := in.EnsureJobConsumer(b.Context(), "default", false)
	must(b, err)
	msg, err := consumer.Next()
	must(b, err)
	b.ReportAllocs()
	for b.Loop() {
		must(b, stream.New(in.Client).Heartbeat(b.Context(), msg))
	}
}

// BenchmarkPark stores waiting jobs.
func BenchmarkPark(b *testing.B) {
	in := install(b, bus.Settings{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		_, err := stream.New(in.Client).Schedule(b.Context(), "default", fmt.Sprint("p", i), []byte("https://example.com/"), &jobs.Progress{}, time.Now().Add(time.Hour))
		must(b, err)
	}
}
