package bus_test

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// A program submits a job and waits for its result. The worker's part is played here by a call of StoreResult.
func Example() {
	url, stop, err := testenv.OpenNATS()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	nc, err := bus.Connect(ctx, bus.Dial{URL: url, Name: "example"}, slog.Default())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()
	names, _ := jobs.NewNames("") // the empty prefix is valid: "gofer"
	b, err := bus.New(nc, names)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := b.Ensure(ctx, bus.Settings{}); err != nil {
		fmt.Println(err)
		return
	}

	c := client.New(b)
	ack, err := c.Submit(ctx, jobs.Job{ID: "front-page", URL: "https://example.com/"})
	fmt.Println("accepted:", ack, err)
	_, err = c.Submit(ctx, jobs.Job{ID: "front-page", URL: "https://example.com/"})
	fmt.Println("again:", err)

	stored, err := b.StoreResult(ctx, &jobs.Result{
		Queue: ack.Queue, ID: ack.ID, Outcome: jobs.Succeeded, Status: 200, Body: []byte("hello"), FinishedAt: time.Now(),
	})
	fmt.Println("stored:", stored.Won, err)

	result, err := c.Wait(ctx, ack.Key)
	fmt.Println("result:", result.Status, string(result.Body), err)
	// Output:
	// accepted: default/front-page <nil>
	// again: submit job default/front-page: the id is queued or running
	// stored: true <nil>
	// result: 200 hello <nil>
}
