// Command go is a client of gofer in Go. It submits jobs with headers and a session, waits for their results, reads a large body
// from the object store, follows results with a durable consumer, and replays a dead letter. Run it in the clone by
// go run ./jobs/examples/go nats://127.0.0.1:4222 http://SITE. The site needs the paths /ok, /bytes/600000 with so many bytes, and
// /status/503 with that status.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

func main() {
	server, site := os.Args[1], os.Args[2]
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := must(client.Open(ctx, client.Config{URL: server}))
	defer c.Close()
	cart := jobs.ProxyChoice{Session: "cart-7"} // all jobs of a session go through one proxy while it works
	page := must(c.Fetch(ctx, jobs.Job{URL: site + "/ok", Headers: jobs.Headers{"Accept-Language": {"en"}}, Proxy: cart}))
	fmt.Println("page:", page.Outcome, page.Status)

	large := must(c.Fetch(ctx, jobs.Job{URL: site + "/bytes/600000"}))     // a body over 512 KiB is kept in the object store
	fmt.Println("large:", len(must(io.ReadAll(must(c.Body(ctx, large)))))) // the last read checks the digest

	followed, stop := context.WithCancel(ctx)
	defer stop()
	err := c.Follow(followed, client.Filter{Durable: client.Reader}, func(r jobs.Result) error {
		if r.ID == large.ID {
			fmt.Println("followed:", r.Outcome)
			stop() // Follow acks this result before it returns, so the next reader begins after it
		}
		return nil
	})
	if followed.Err() == nil || ctx.Err() != nil {
		panic(err)
	}

	defer time.AfterFunc(time.Minute, func() { panic("no dead letter within 60 s: does /status/503 of the site answer 503?") }).Stop()
	failed := must(c.Fetch(ctx, jobs.Job{URL: site + "/status/503", Retry: &jobs.Override{MaxAttempts: new(1)}}))
	letter, err := client.DeadLetter{}, client.ErrNotFound
	for errors.Is(err, client.ErrNotFound) { // the dead letter is stored after the result
		letter, err = c.DeadLetter(ctx, client.Key{Queue: failed.Queue, ID: failed.ID})
	}
	again := must(c.Wait(ctx, must(c.Replay(ctx, must(letter, err))).Key))
	fmt.Println("replayed:", again.Outcome, again.Error)
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
