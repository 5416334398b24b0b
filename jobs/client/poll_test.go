package client_test

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// TestAWaiterThatMayNotSubscribeGetsItsResults has a user as publishers are in the shipped configuration of the server.
func TestAWaiterThatMayNotSubscribeGetsItsResults(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "all", Password: "p"}, {Username: "polling", Password: "p", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	})
	all := on(t, srv, bus.Dial{User: "all", Password: "p"})
	must(t, all.bus.Ensure(soon(t), bus.Settings{}))
	var log testenv.Log
	nc, err := bus.Connect(t.Context(), bus.Dial{URL: srv.URL(), User: "polling", Password: "p"}, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	t.Cleanup(nc.Close)
	b, err := bus.New(nc, names(t))
	must(t, err)
	polling := &installation{server: srv, nc: nc, names: names(t), bus: b, Client: client.New(b)}
	w := polling.waitEach(t, holdNothing)
	for i := range 3 {
		id := fmt.Sprint("j", i)
		w.keys <- key(id)
		if i == 1 {
			all.store(t, "j0", nil)
			w.isNext(t, "j0")
		}
	}
	close(w.keys)
	for _, id := range []string{"j1", "j2"} {
		all.store(t, id, nil)
		w.isNext(t, id)
	}
	w.isOver(t)
	must(t, polling.WaitMany(soon(t), []bus.Key{key("j0")}, func(jobs.Result) error { return nil }))
	if got := log.String(); got != "" {
		t.Errorf("got %s logged of a refusal that the waiter expects", got)
	}
}
