package deploy_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/stream"
)

var update = flag.Bool("update", false, "write the table of rights again")

// shipped are the users of server.conf, the second publisher of its examples, and somebody without a password.
func shipped() []role {
	return []role{
		{"publisher", "publisher", "p-publisher"}, {"shop", "shop", "p-shop"}, {"reader", "reader", "p-reader"},
		{"listener", "listener", "p-reader"}, {"worker", "worker", "p-worker"}, {"admin", "admin", "p-admin"}, {"stranger", "", ""},
	}
}

func byName(name string) role {
	all := shipped()
	return all[slices.IndexFunc(all, func(r role) bool { return r.name == name })]
}

// deployment is a server with server.conf and its second publisher, and the streams that a worker makes.
func deployment(t *testing.T) *testenv.NATS {
	t.Helper()
	passwords(t, "worker", "admin", "publisher", "reader", "shop")
	srv := start(t, t.TempDir(), withExamples(t, "user: shop"))
	worker := byName("worker").client(t, srv)
	must(t, worker.Ensure(soon(t), bus.Settings{}))
	_, err := worker.StoreResult(soon(t), success("page"))
	must(t, err)
	return srv
}

func success(id string) *jobs.Result {
	return &jobs.Result{Queue: "default", ID: id, Outcome: jobs.Succeeded, Status: 200, Body: []byte("page"), FinishedAt: time.Now()}
}

// published is a message for each family of subjects. The payload keeps the API's changes from being made: the server answers
// that it is malformed, which whoever may not send it never hears.
func published() [][2]string {
	const bad = "not JSON"
	return [][2]string{
		{"gofer.jobs.default.x", "http://a.test/"}, {"gofer.results.default.x", ""}, {"gofer.events.retry.default.x", ""}, {"gofer.events.breaker.p1", ""},
		{"gofer.events.site.x", ""}, {"gofer.events.pool.w1", ""}, {"gofer.events.duplicate.default.x", ""},
		{"gofer.dead.default.x", ""}, {"gofer.ctl.drain", ""}, {"gofer.ctl.breakers.reset", ""}, {"gofer.ctl.sites.reset", ""}, {"gofer.ctl.proxies", ""}, {"gofer.ctl.workers", ""},
		{"_gofer.results.default.x", ""}, {"_gofer.at.default.x", ""}, {"_gofer.due.default.x", ""}, {"_gofer.cancel.default.x", ""}, {"_gofer.rollups.x", ""},
		{"$KV.gofer-proxies.p1", ""}, {"$KV.gofer-policy.retry", ""}, {"$KV.gofer-deny.x", ""}, {"$KV.gofer-breakers.x", ""}, {"$KV.gofer-breakers.session.x", ""},
		{"$KV.gofer-sites.x", ""}, {"$O.gofer-bodies.C.x", ""},
		{"$JS.API.INFO", ""}, {"$JS.API.STREAM.NAMES", ""}, {"$JS.API.STREAM.INFO.GOFER_RESULTS", ""}, {"$JS.API.STREAM.INFO.KV_gofer-proxies", ""},
		{"$JS.API.STREAM.CREATE.OTHER", bad}, {"$JS.API.STREAM.CREATE.GOFER_JOBS", bad}, {"$JS.API.STREAM.UPDATE.GOFER_JOBS", bad}, {"$JS.API.STREAM.DELETE.GOFER_JOBS", bad},
		{"$JS.API.STREAM.PURGE.GOFER_JOBS", bad}, {"$JS.API.STREAM.PURGE.GOFER_RESULTS", bad}, {"$JS.API.STREAM.MSG.DELETE.GOFER_RESULTS", bad},
		{"$JS.API.STREAM.CREATE.GOFER_ROLLUPS", bad}, {"$JS.API.STREAM.UPDATE.GOFER_ROLLUPS", bad}, {"$JS.API.STREAM.DELETE.GOFER_ROLLUPS", bad}, {"$JS.API.STREAM.PURGE.GOFER_ROLLUPS", bad},
		{"$JS.API.DIRECT.GET.GOFER_ROLLUPS", `{"seq":1}`}, {"$JS.API.DIRECT.GET.KV_gofer-breakers.$KV.gofer-breakers.x", ""}, {"$JS.API.STREAM.PURGE.KV_gofer-breakers", bad},
		{"$JS.API.STREAM.MSG.GET.GOFER_RESULTS", `{"seq":1}`}, {"$JS.API.STREAM.MSG.GET.GOFER_JOBS", `{"seq":1}`}, {"$JS.API.STREAM.MSG.GET.KV_gofer-proxies", `{"seq":1}`},
		{"$JS.API.DIRECT.GET.GOFER_RESULTS.gofer.results.default.page", ""}, {"$JS.API.DIRECT.GET.GOFER_JOBS.gofer.jobs.default.x", ""},
		{"$JS.API.DIRECT.GET.GOFER_EVENTS", `{"seq":1}`}, {"$JS.API.DIRECT.GET.GOFER_DEAD", `{"seq":1}`}, {"$JS.API.DIRECT.GET.OBJ_gofer-bodies", `{"seq":1}`},
		{"$JS.API.DIRECT.GET.KV_gofer-proxies.$KV.gofer-proxies.p1", ""},
		{"$JS.API.CONSUMER.CREATE.GOFER_RESULTS.x", bad}, {"$JS.API.CONSUMER.CREATE.GOFER_JOBS.x", bad}, {"$JS.API.CONSUMER.DELETE.GOFER_RESULTS.reader", bad},
		{"$JS.API.CONSUMER.INFO.GOFER_RESULTS.reader", ""}, {"$JS.API.CONSUMER.INFO.GOFER_JOBS.worker-default", ""},
		{"$JS.API.CONSUMER.MSG.NEXT.GOFER_RESULTS.reader", `{"batch":1,"no_wait":true}`}, {"$JS.API.CONSUMER.MSG.NEXT.GOFER_DEAD.reader", `{"batch":1,"no_wait":true}`},
		{"$JS.API.CONSUMER.MSG.NEXT.GOFER_JOBS.worker-default", `{"batch":1,"no_wait":true}`},
		{"$JS.ACK.GOFER_RESULTS.reader.1.1.1.1.0", ""}, {"$JS.ACK.GOFER_JOBS.worker-default.1.1.1.1.0", ""},
		{"$SRV.PING.gofer", ""}, {"$SRV.INFO", ""}, {"$SYS.REQ.SERVER.PING", ""},
		{"_INBOX.x", ""}, {"_INBOX_worker.x", ""}, {"_INBOX_admin.x", ""}, {"_INBOX_reader.x", ""}, {"_INBOX_publisher.x", ""}, {"_INBOX_shop.x", ""},
	}
}

func subscribed() []string {
	return []string{
		"gofer.jobs.>", "gofer.results.>", "gofer.events.>", "gofer.dead.>", "gofer.ctl.>", "gofer.ctl.proxies", "_gofer.cancel.>", "_gofer.results.>", "_gofer.at.>", "_gofer.due.>", "_gofer.rollups.>", "_gofer.>", "$KV.>", "$O.>",
		"$JS.API.>", "$JS.ACK.>", "$JS.EVENT.>", "$SRV.>", "$SYS.>", ">", "_INBOX.>", "_INBOX_*.>", "_INBOX_worker.>", "_INBOX_admin.>", "_INBOX_reader.>",
		"_INBOX_listener.>", "_INBOX_publisher.>", "_INBOX_shop.>",
	}
}

// TestRightsAreThoseOfTheTable tries every family of subjects as every user, and compares what the server says with the table.
func TestRightsAreThoseOfTheTable(t *testing.T) {
	srv := deployment(t)
	var b strings.Builder
	b.WriteString("# What a server with server.conf says\n\nA test makes this table with a connection for each cell (`go test ./testenv/deploy -run Rights -update`). `shop` is the second\n" +
		"publisher of the examples, and a stranger has no password. An empty cell means that the server refuses it.\n\n## Publishing\n\n")
	header(&b, "subject")
	may := map[string][]string{}
	for _, message := range published() {
		row(&b, message[0], func(r role) string { return tryPublish(t, srv, r, message[0], message[1]) })
	}
	b.WriteString("\n## Subscribing\n\n")
	header(&b, "subject")
	for _, subject := range subscribed() {
		row(&b, subject, func(r role) string {
			nc, err := r.connect(t, srv)
			if err != nil {
				return ""
			}
			defer nc.Close()
			_, err = nc.SubscribeSync(subject)
			must(t, err)
			if isRefused(t, nc) {
				return ""
			}
			may[r.name] = append(may[r.name], subject)
			return "yes"
		})
	}
	answers(t, srv, &b, may)
	path := folder + "RIGHTS.md"
	if *update {
		must(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if got := b.String(); got != string(want) {
		t.Errorf("the server says something else than %s: run with -update and look at the difference. It says\n%s", path, got)
	}
}

func header(b *strings.Builder, first string) {
	fmt.Fprintf(b, "| %s |", first)
	for _, r := range shipped() {
		fmt.Fprintf(b, " %s |", r.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(shipped())) + "\n")
}

func row(b *strings.Builder, first string, cell func(role) string) {
	fmt.Fprintf(b, "| `%s` |", first)
	for _, r := range shipped() {
		fmt.Fprintf(b, " %s |", cell(r))
	}
	b.WriteString("\n")
}

func tryPublish(t *testing.T, srv *testenv.NATS, r role, subject, payload string) string {
	t.Helper()
	nc, err := r.connect(t, srv)
	if err != nil {
		return ""
	}
	defer nc.Close()
	must(t, nc.PublishRequest(subject, nc.NewInbox(), []byte(payload)))
	if isRefused(t, nc) {
		return ""
	}
	return "yes"
}

// asked are the requests of a user that the server answers; n makes ids unique.
func asked(user string, n int) [][2]string {
	both := [][2]string{
		{"$JS.API.STREAM.INFO.GOFER_RESULTS", ""}, {"$JS.API.STREAM.MSG.GET.GOFER_RESULTS", `{"seq":1}`},
		{"$JS.API.DIRECT.GET.GOFER_RESULTS.gofer.results.default.page", ""}, {"$JS.API.DIRECT.GET.GOFER_RESULTS", `{"seq":1}`},
		{"$JS.API.DIRECT.GET.GOFER_RESULTS", `{"multi_last":["gofer.results.default.page"]}`},
		{"$JS.API.DIRECT.GET.OBJ_gofer-bodies", `{"seq":1}`}, {"$JS.API.DIRECT.GET.OBJ_gofer-bodies.$O.gofer-bodies.M.x", ""},
	}
	if user == "reader" {
		for _, name := range []string{"RESULTS", "EVENTS", "DEAD"} {
			both = append(both, [2]string{"$JS.API.CONSUMER.INFO.GOFER_" + name + ".reader", ""},
				[2]string{"$JS.API.CONSUMER.MSG.NEXT.GOFER_" + name + ".reader", `{"batch":1,"no_wait":true}`})
		}
		return append(both, [2]string{"$JS.ACK.GOFER_RESULTS.reader.1.1.1.1.0", ""})
	}
	return append(both, [2]string{fmt.Sprintf("gofer.jobs.default.%s-%d", user, n), "http://a.test/"})
}

// addressed are subjects that a request may name for its answer: each family that somebody hears, or a stream stores.
func addressed() []string {
	return []string{
		"gofer.results.default.victim", "gofer.events.retry.default.victim", "gofer.events.breaker.victim", "gofer.dead.default.victim", "gofer.ctl.victim", "gofer.ctl.proxies",
		"_gofer.results.default.victim", "_gofer.at.default.victim", "_gofer.due.default.victim", "_gofer.cancel.default.victim", "_gofer.rollups.victim",
		"$KV.gofer-proxies.victim", "$KV.gofer-policy.victim", "$KV.gofer-deny.victim", "$KV.gofer-breakers.victim", "$KV.gofer-sites.victim", "$O.gofer-bodies.C.victim",
		"$SRV.PING.victim", "_INBOX_worker.victim", "_INBOX_admin.victim", "_INBOX_reader.victim", "_INBOX_listener.victim", "_INBOX_publisher.victim", "_INBOX_shop.victim",
	}
}

// answers addresses the answer to each request of publishers and readers to each subject. Whoever hears one stands in the cell.
// Traces, which a header asks for, go the same way.
func answers(t *testing.T, srv *testenv.NATS, b *strings.Builder, may map[string][]string) {
	t.Helper()
	worker, before := byName("worker").client(t, srv), lastSequences(t, srv)
	b.WriteString("\n## Answers\n\nEach request that the server answers, and a trace, with its answer addressed to the subject. The cell says who hears one; in an empty cell nobody does.\n\n" +
		"| subject | publisher | reader |\n|---|---|---|\n")
	cells := map[string]map[string]string{}
	for round, user := range []string{"publisher", "reader"} {
		var ears []*ear
		for _, r := range shipped()[:6] {
			ears = append(ears, listen(t, srv, r, may[r.name]))
		}
		nc, err := byName(user).connect(t, srv)
		must(t, err)
		for n, subject := range addressed() {
			for _, request := range asked(user, n) {
				must(t, nc.PublishRequest(request[0], subject, []byte(request[1])))
			}
			must(t, nc.PublishMsg(&nats.Msg{Subject: asked(user, n+100)[7][0], Header: nats.Header{"Nats-Trace-Dest": {subject}}}))
		}
		for _, request := range asked(user, 1000) { // what was asked before has been answered when the next question has
			_, err := nc.RequestWithContext(soon(t), request[0], []byte(request[1]))
			must(t, err)
		}
		last := fmt.Sprint("last", round)
		_, err = worker.StoreResult(soon(t), success(last))
		must(t, err)
		must(t, stream.New(worker).PublishRetry(soon(t), jobs.RetryEvent{Queue: "default", JobID: last}))
		dead := &jobs.Result{Queue: "default", ID: last, Outcome: jobs.Failed, Error: jobs.ErrPermanent, FinishedAt: time.Now()}
		must(t, stream.New(worker).DeadLetter(soon(t), "default", last, nil, dead))
		cells[user] = hear(t, ears, user, last)
	}
	for _, subject := range addressed() {
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", subject, cells["publisher"][subject], cells["reader"][subject])
	}
	for name, seq := range lastSequences(t, srv) {
		want := before[name]
		if name == "GOFER_RESULTS" || name == "GOFER_EVENTS" || name == "GOFER_DEAD" {
			want += 2 // the last ones
		}
		if name != "GOFER_JOBS" && seq != want {
			t.Errorf("stream %s has sequence %d, want %d: an answer was stored", name, seq, want)
		}
	}
}

// hear waits until the last messages have come, and for the answers that users of an account may address to each other. It
// returns who has heard each subject.
func hear(t *testing.T, ears []*ear, user, last string) map[string]string {
	t.Helper()
	peers := map[string][]string{"publisher": {"publisher", "shop"}, "reader": {"reader"}}[user]
	for _, e := range ears {
		testenv.Eventually(t, e.name+" to hear what came last", func() bool {
			return !slices.Contains([]string{"listener", "admin"}, e.name) || e.has("gofer.results.default."+last) && e.has("gofer.dead.default."+last) && e.has("gofer.events.retry.default."+last)
		})
		if slices.Contains(peers, e.name) {
			testenv.Eventually(t, e.name+" to hear an answer", func() bool { return e.has("_INBOX_" + e.name + ".victim") })
		}
	}
	cells := map[string]string{}
	for _, subject := range addressed() {
		var who []string
		for _, e := range ears {
			if e.has(subject) {
				who = append(who, e.name)
			}
		}
		cells[subject] = strings.Join(who, ", ")
	}
	return cells
}

// lastSequences are those of every stream.
func lastSequences(t *testing.T, srv *testenv.NATS) map[string]uint64 {
	t.Helper()
	nc, err := byName("admin").connect(t, srv)
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	out := map[string]uint64{}
	list := js.ListStreams(soon(t))
	for info := range list.Info() {
		out[info.Config.Name] = info.State.LastSeq
	}
	must(t, list.Err())
	return out
}
