package bus_test

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

// leafOf starts a hub with a JetStream domain and a leaf node without JetStream, and returns a client on the leaf.
func leafOf(t *testing.T, domain string) *installation {
	t.Helper()
	leafs := nobody(t)
	testenv.StartNATS(t, func(o *server.Options) {
		u, err := url.Parse("nats-leaf://" + leafs)
		must(t, err)
		o.ServerName, o.JetStreamDomain = "hub", "hub"
		o.LeafNode.Host, o.LeafNode.Port = "127.0.0.1", port(t, u)
	})
	leaf := testenv.StartNATS(t, func(o *server.Options) {
		u, err := url.Parse("nats-leaf://" + leafs)
		must(t, err)
		o.ServerName, o.JetStream = "leaf", false
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{u}}}
	})
	in := &installation{server: leaf, nc: connect(t, bus.Dial{URL: leaf.URL()}), names: names(t)}
	var err error
	in.Client, err = bus.NewWithDomain(in.nc, in.names, domain)
	must(t, err)
	in.client = client.New(in.Client)
	in.js = in.JetStream()
	return in
}

func TestEverythingWorksInTheDomainOfAHub(t *testing.T) {
	t.Parallel()
	in := leafOf(t, "hub")
	set := bus.Settings{}
	err := in.Ensure(soon(t), set)
	for ctx := soon(t); err != nil && ctx.Err() == nil; { // the leaf connects after it has started
		err = in.Ensure(ctx, set)
	}
	must(t, err)
	left, err := in.Plan(soon(t), set)
	must(t, err)
	if len(left) != 0 {
		t.Errorf("got differences %v, want none", left)
	}
	_, err = in.client.Submit(soon(t), job("a"))
	must(t, err)
	consumer, err := in.EnsureJobConsumer(soon(t), "default", false)
	must(t, err)
	msg, err := consumer.Next()
	must(t, err)
	must(t, stream.New(in.Client).Heartbeat(soon(t), msg))
	_, err = stream.New(in.Client).Schedule(soon(t), "default", "b", msg.Data(), &jobs.Progress{}, time.Now().Add(time.Hour))
	must(t, err)
	in.store(t, "a", make([]byte, jobs.MaxInlineBody+1))
	must(t, msg.DoubleAck(soon(t)))
	result, err := in.client.Wait(soon(t), client.Key{Queue: "default", ID: "a"})
	must(t, err)
	body, err := in.client.Body(soon(t), result)
	must(t, err)
	must(t, body.Close())
	must(t, in.client.WaitMany(soon(t), []bus.Key{key("a")}, func(jobs.Result) error { return nil }))
	hour := in.names.Hour("2026010100", "totals", "a")
	seq, err := in.Replace(soon(t), "ROLLUPS", hour, []byte("1"), 0, time.Hour)
	must(t, err)
	_, err = in.Replace(soon(t), "ROLLUPS", hour, []byte("2"), seq, time.Hour)
	must(t, err)
	if got := in.read(t, hour, 1); !slices.Equal(got, []string{"2"}) {
		t.Errorf("got %v, want the newest part", got)
	}
	must(t, stream.New(in.Client).DeadLetter(soon(t), "default", "dead", []byte("http://a.test/"), &jobs.Result{Error: jobs.ErrPermanent}))
	letter, err := in.client.DeadLetter(soon(t), key("dead"))
	must(t, err)
	_, err = in.client.Replay(soon(t), letter)
	must(t, err)
	kv, err := in.js.KeyValue(soon(t), "gofer-deny")
	must(t, err)
	_, err = kv.PutString(soon(t), "shop.test", "")
	must(t, err)
	found, err := in.client.Queues(soon(t))
	must(t, err)
	if len(found) != 1 || found[0].Waiting != 1 {
		t.Errorf("got queues %+v, want one with a waiting job", found)
	}
	must(t, in.client.Cancel(soon(t), key("b")))
	must(t, in.client.Follow(soon(t), bus.Filter{All: true, UntilNow: true}, func(jobs.Result) error { return nil }))
}

func TestMissingDomainIsNamed(t *testing.T) {
	t.Parallel()
	for domain, want := range map[string]struct {
		text string
		kind error
	}{
		"":     {"name its domain", bus.ErrNoJetStream},
		"nope": {`in the domain "nope": is that its name`, bus.ErrUnreachable}, // its server may come
	} {
		err := leafOf(t, domain).Ensure(soon(t), bus.Settings{})
		isError(t, err, want.kind)
		if !strings.Contains(err.Error(), want.text) {
			t.Errorf("domain %q: got %v, want %q in it", domain, err, want.text)
		}
	}
}

func TestRefusalInADomainIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) {
		o.JetStreamDomain = "hub"
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.hub.API.DIRECT.GET.>", "$JS.API.DIRECT.GET.>"}},
		}}}
	})
	nc := connect(t, bus.Dial{URL: srv.URL(), User: "u", Password: "p"})
	b, err := bus.NewWithDomain(nc, names(t), "hub")
	must(t, err)
	must(t, b.Ensure(soon(t), bus.Settings{}))
	_, err = b.Result(soon(t), "default", "a")
	isError(t, err, bus.ErrPermission)
}

// port is that of a URL.
func port(t *testing.T, u *url.URL) int {
	t.Helper()
	n, err := strconv.Atoi(u.Port())
	must(t, err)
	return n
}
