package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// open connects to the server of the examples, and bounds what they wait for.
func open() (ctx context.Context, c *client.Client, done func()) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	c, err := client.Open(ctx, client.Config{URL: serverURL})
	if err != nil {
		fmt.Println(err) // every later call says that the client is not open
	}
	return ctx, c, func() { c.Close(); cancel() }
}

// A program connects, has a page fetched, and reads it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := client.Open(ctx, client.Config{URL: serverURL})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	result, err := c.Fetch(ctx, jobs.Job{URL: "http://shop.test/products"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.OK(), result.Status, string(result.Body))
	// Output: true 200 <h1>products</h1>
}

// Open tries once. A server that is not there is an error at once, and so is a Config that contradicts itself.
func ExampleOpen() {
	ctx := context.Background()
	_, err := client.Open(ctx, client.Config{URL: "nats://127.0.0.1:1"})
	fmt.Println(errors.Is(err, client.ErrUnreachable))
	_, err = client.Open(ctx, client.Config{URL: serverURL, Prefix: "My.Prefix"})
	fmt.Println(err)
	c, err := client.Open(ctx, client.Config{URL: serverURL, Name: "report generator"})
	fmt.Println(err)
	c.Close()
	// Output:
	// true
	// Prefix: prefix "My.Prefix" does not match [a-z][a-z0-9_-]{0,31}
	// <nil>
}

// A job that failed, and an answer that is not what one hoped for, are no errors of Fetch.
func ExampleClient_Fetch() {
	ctx, c, done := open()
	defer done()
	for _, path := range []string{"page", "missing", "broken"} {
		r, err := c.Fetch(ctx, jobs.Job{URL: "http://shop.test/" + path})
		switch {
		case err != nil:
			fmt.Println(path, err)
		case r.OK():
			fmt.Println(path, "is", string(r.Body))
		case r.Outcome == jobs.Succeeded:
			fmt.Println(path, "answers", r.Status)
		default:
			fmt.Println(path, r.Outcome, r.Error, r.Detail)
		}
	}
	_, err := c.Fetch(ctx, jobs.Job{})
	fmt.Println(err)
	// Output:
	// page is <h1>page</h1>
	// missing answers 404
	// broken failed attempts_exhausted every allowed attempt failed
	// url: required
}

// FetchAll yields each job once: with its result, or with the reason why gofer did not take it. Meta tells the jobs apart.
func ExampleClient_FetchAll() {
	ctx, c, done := open()
	defer done()
	source := func(yield func(jobs.Job) bool) {
		for _, path := range []string{"a", "b", "missing", "../ftp"} {
			job := jobs.Job{URL: "http://shop.test/" + path, Meta: map[string]string{"path": path}}
			if path == "../ftp" {
				job.URL = "ftp://shop.test/"
			}
			if !yield(job) {
				return
			}
		}
	}
	pages := map[string]string{}
	for r, err := range c.FetchAll(ctx, source) {
		if err != nil {
			pages[r.Meta["path"]] = "refused"
			continue
		}
		pages[r.Meta["path"]] = fmt.Sprint(r.Status)
	}
	for _, path := range slices.Sorted(maps.Keys(pages)) {
		fmt.Println(path, pages[path])
	}
	// Output:
	// ../ftp refused
	// a 200
	// b 200
	// missing 404
}

// An id names a job: a second job of that id is refused for as long as the result of the first is kept.
func ExampleClient_Submit() {
	ctx, c, done := open()
	defer done()
	ack, err := c.Submit(ctx, jobs.Job{ID: "front-page", URL: "http://shop.test/"})
	fmt.Println(ack, err)
	if _, err := c.Wait(ctx, ack.Key); err != nil {
		fmt.Println(err)
	}
	_, err = c.Submit(ctx, jobs.Job{ID: "front-page", URL: "http://shop.test/"})
	fmt.Println(errors.Is(err, client.ErrFinished) || errors.Is(err, client.ErrQueued))
	// Output:
	// default/front-page <nil>
	// true
}

// SubmitMany calls a function once for each job that it took from its source, in any order.
func ExampleClient_SubmitMany() {
	ctx, c, done := open()
	defer done()
	urls := []string{"http://shop.test/1", "http://shop.test/2", "not a URL"}
	source := func(yield func(jobs.Job) bool) {
		for _, u := range urls {
			if !yield(jobs.Job{URL: u}) {
				return
			}
		}
	}
	accepted := 0
	err := c.SubmitMany(ctx, source, 0, func(job jobs.Job, _ client.Ack, err error) {
		if err != nil {
			fmt.Println("refused:", job.URL)
			return
		}
		accepted++
	})
	fmt.Println("accepted:", accepted, err)
	// Output:
	// refused: not a URL
	// accepted: 2 <nil>
}

// Follow brings the results of all clients. UntilNow ends with the newest one that is stored.
func ExampleClient_Follow() {
	ctx, c, done := open()
	defer done()
	if _, err := c.Fetch(ctx, jobs.Job{Queue: "reports", ID: "followed", URL: "http://shop.test/followed"}); err != nil {
		fmt.Println(err)
	}
	err := c.Follow(ctx, client.Filter{Queue: "reports", All: true, UntilNow: true}, func(r jobs.Result) error {
		if r.ID == "followed" {
			fmt.Println(r.Queue, r.ID, r.Status, string(r.Body))
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// reports followed 200 <h1>followed</h1>
	// <nil>
}

func ExampleClient_Cancel() {
	ctx, c, done := open()
	defer done()
	ack, err := c.Submit(ctx, jobs.Job{ID: "too-slow", URL: "http://shop.test/slow"})
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(c.Cancel(ctx, ack.Key))
	r, err := c.Wait(ctx, ack.Key)
	fmt.Println(r.OK(), r.Outcome, r.Worker, err)
	// Output:
	// <nil>
	// false cancelled gofer client <nil>
}

// A failed job is kept as a dead letter, which can be published again under another id.
func ExampleClient_Replay() {
	ctx, c, done := open()
	defer done()
	if _, err := c.Fetch(ctx, jobs.Job{ID: "to-replay", URL: "http://shop.test/broken"}); err != nil {
		fmt.Println(err)
	}
	key := client.Key{Queue: "default", ID: "to-replay"}
	letter, err := c.DeadLetter(ctx, key)
	for errors.Is(err, client.ErrNotFound) { // the worker stores the result first
		letter, err = c.DeadLetter(ctx, key)
	}
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(letter.Key, letter.Reason)
	ack, err := c.Replay(ctx, letter)
	fmt.Println(ack.ID == fmt.Sprintf("replay-%d", letter.Seq), err)
	_, err = c.Replay(ctx, letter)
	fmt.Println(errors.Is(err, client.ErrReplayed))
	// Output:
	// default/to-replay every allowed attempt failed
	// true <nil>
	// true
}

func ExampleClient_Pause() {
	ctx, c, done := open()
	defer done()
	fmt.Println(c.Pause(ctx, "reports", time.Time{})) // until Resume
	queues, err := c.Queues(ctx)
	for _, q := range queues {
		if q.Queue == "reports" {
			fmt.Println("paused:", !q.PausedUntil.IsZero(), err)
		}
	}
	fmt.Println(c.Resume(ctx, "reports"))
	fmt.Println(c.Pause(ctx, "reports", time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)))
	// Output:
	// <nil>
	// paused: true <nil>
	// <nil>
	// pause queue reports until 2020-01-01T00:00:00Z: that time has passed
}

// A large body does not travel in the result's message. Body reads it wherever it is.
func ExampleClient_Body() {
	ctx, c, done := open()
	defer done()
	r, err := c.Fetch(ctx, jobs.Job{URL: "http://shop.test/large"})
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(len(r.Body), r.Object != "")
	body, err := c.Body(ctx, r)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = body.Close() }()
	n, err := io.Copy(io.Discard, body)
	fmt.Println(n, err)
	// Output:
	// 0 true
	// 524289 <nil>
}

// Story tells what the streams still know of a job, here that it is finished and how it ended.
func ExampleClient_Story() {
	ctx, c, done := open()
	defer done()
	if _, err := c.Fetch(ctx, jobs.Job{ID: "told", URL: "http://shop.test/missing"}); err != nil {
		fmt.Println(err)
	}
	story, err := c.Story(ctx, client.Key{Queue: "default", ID: "told"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range story.Moments {
		if m.What == client.MomentEnded {
			fmt.Println(story.Key, m.What, m.Status, "by", m.Worker)
		}
	}
	_, err = c.Story(ctx, client.Key{Queue: "default", ID: "unheard-of"})
	fmt.Println(err)
	// Output:
	// default/told ended 404 by w1
	// job default/unheard-of: not found
}
