package bench_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// loop is the fewest steps in which jobs can be fetched through proxies at all: pull, http.Client with a Proxy func,
// publish without waiting, ack without waiting. It keeps no promise: no retry, no breaker, no guard on the result, no
// confirmed ack; with BENCH_GUARDED, the last two. It ends when it is killed.
func loop() error {
	nc, err := nats.Connect(os.Getenv("BENCH_NATS_URL"))
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	slots, err := strconv.Atoi(os.Getenv("BENCH_SLOTS"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	consumer, err := js.Consumer(ctx, "GOFER_JOBS", "worker-default")
	if err != nil {
		return err
	}
	run, err := step(nc, js, slots)
	if err != nil {
		return err
	}
	msgs := make(chan jetstream.Msg)
	var workers sync.WaitGroup
	for range slots {
		workers.Go(func() {
			for msg := range msgs {
				if err := run(msg); err != nil {
					fmt.Fprintln(os.Stderr, "loop:", err)
				}
			}
		})
	}
	for {
		batch, err := consumer.Fetch(slots, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return err
		}
		for msg := range batch.Messages() {
			msgs <- msg
		}
	}
}

// step is what the loop does with a job.
func step(nc *nats.Conn, js jetstream.JetStream, slots int) (func(jetstream.Msg) error, error) {
	proxies := strings.Split(os.Getenv("GOFER_PROXIES"), ",")
	if os.Getenv("BENCH_LIMIT") != "" {
		l, err := newLimit(nc, proxies)
		return l.fetchOnce, err
	}
	client, err := proxied(proxies, slots)
	return func(msg jetstream.Msg) error { return fetchOnce(js, client, msg) }, err
}

func proxied(list []string, slots int) (*http.Client, error) {
	proxies := make([]*url.URL, len(list))
	for i, text := range list {
		u, err := url.Parse(text)
		if err != nil {
			return nil, err
		}
		proxies[i] = u
	}
	var next atomic.Uint64
	return &http.Client{Transport: &http.Transport{
		Proxy:               func(*http.Request) (*url.URL, error) { return proxies[next.Add(1)%uint64(len(proxies))], nil },
		MaxIdleConnsPerHost: slots,
	}}, nil
}

func fetchOnce(js jetstream.JetStream, client *http.Client, msg jetstream.Msg) error {
	resp, err := client.Get(string(msg.Data()))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	subject := "_gofer.results." + strings.TrimPrefix(msg.Subject(), "gofer.jobs.")
	if os.Getenv("BENCH_GUARDED") != "" {
		return settleGuarded(js, msg, subject, body)
	}
	if _, err := js.PublishAsync(subject, body); err != nil {
		return err
	}
	return msg.Ack()
}

// settleGuarded stores the result unless there is one, and only then acks the job, and waits to hear that it is acked.
func settleGuarded(js jetstream.JetStream, msg jetstream.Msg, subject string, body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := js.Publish(ctx, subject, body, jetstream.WithExpectLastSequencePerSubject(0)); err != nil {
		return err
	}
	return msg.DoubleAck(ctx)
}
