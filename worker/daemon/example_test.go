package daemon_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/cmd/gofer/playground"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// A program embeds a worker and has it fetch a page.
func ExampleRun() {
	url, proxy, stop := exampleWorld()
	defer stop()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	proxies, err := proxylist.ParseList(strings.NewReader(proxy)) // a line such as http://user:password@proxy.example:8080
	if err != nil {
		fmt.Println(err)
		return
	}
	working, drain := context.WithCancel(ctx)
	defer drain()
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- daemon.Run(working, daemon.Config{
			NATS: bus.Dial{URL: url}, Proxies: proxies, Concurrency: 16,
			Started: func() { close(started) }, // the streams are there
		})
	}()
	select {
	case <-started:
	case err := <-ended: // a wrong Config, for one
		fmt.Println(err)
		return
	}

	c, err := client.Open(ctx, client.Config{URL: url})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	result, err := c.Fetch(ctx, jobs.Job{URL: "http://shop.test/"})
	fmt.Println("result:", result.Outcome, result.Status, err)

	drain() // jobs that run end, or go back to their queue
	fmt.Println("worker:", <-ended)
	// Output:
	// result: succeeded 200 <nil>
	// worker: <nil>
}

// exampleWorld is a NATS server, a site with the name shop.test, and a proxy that knows where it is.
func exampleWorld() (url, proxy string, stop func()) {
	url, stopNATS, err := testenv.OpenNATS()
	if err != nil {
		panic(err)
	}
	world, err := playground.Start()
	if err != nil {
		panic(err)
	}
	return url, world.Lines()[0], func() { world.Close(); stopNATS() }
}
