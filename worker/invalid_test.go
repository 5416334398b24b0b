package worker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
)

// TestThePasswordInTheURLOfAnInvalidJobIsNeverShown publishes invalid jobs whose URL holds a password. Of what the worker writes,
// only the payload of the dead letter may hold it: the job's bytes unchanged.
func TestThePasswordInTheURLOfAnInvalidJobIsNeverShown(t *testing.T) {
	t.Parallel()
	const password = "opensesame"
	w := newWorld(t, bus.Settings{AckWait: longWait})
	all, err := w.nc.SubscribeSync("gofer.>")
	if err != nil {
		t.Fatal(err)
	}
	w.start(func(context.Context, *jobs.Job, *jobs.Progress) *jobs.RunOutcome {
		return finished(jobs.Succeeded, "", nil)
	})
	urls := map[string]string{
		"user":   "http://user:" + password + "@shop.test/",
		"socks":  "socks5://user:" + password + "@shop.test/",
		"broken": "http://user:" + password + "@shop.test:port/%zz",
		"query":  "http://[::1/?key=" + password,
		"field":  "http://shop.test/?key=" + password,
		"long":   "http://shop.test/" + strings.Repeat("x", 9000) + "?key=" + password,
	}
	ids := map[string]bool{}
	for kind, url := range urls {
		w.publish(kind+"-object", fmt.Sprintf(`{"url":%q,"colour":"red"}`, url))
		ids[kind+"-object"] = true
		if kind != "field" { // it is a valid URL
			w.publish(kind+"-text", url)
			ids[kind+"-text"] = true
		}
	}
	for id := range ids {
		w.until("job "+id+" to end", w.hasResult(id))
		r, err := w.client.Result(t.Context(), "default", id)
		if err != nil || r.Error != jobs.ErrInvalidJob || r.URL != "" {
			t.Errorf("job %s ended as %q at %q, %v; want an invalid job without a URL", id, r.Error, r.URL, err)
		}
		w.until("the dead letter of "+id, func() bool {
			letter, err := client.New(w.client).DeadLetter(t.Context(), bus.Key{Queue: "default", ID: id})
			return err == nil && strings.Contains(string(letter.Payload), password)
		})
	}
	w.until("a job, a result and a dead letter of each job to be seen", func() bool {
		n, _, err := all.Pending()
		return err == nil && n >= 3*len(ids)
	})
	for n, _, _ := all.Pending(); n > 0; n-- {
		msg, err := all.NextMsg(time.Second)
		if err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(msg.Header)
		if !isPayloadOfAJob(msg) {
			text += string(msg.Data)
		}
		if strings.Contains(text, password) {
			t.Errorf("a message on %s shows the password: %s", msg.Subject, text)
		}
	}
	if log := w.logged.String(); strings.Contains(log, password) {
		t.Errorf("the log shows the password:\n%s", log)
	}
}

// isPayloadOfAJob tells the messages that hold a job's bytes as they were published.
func isPayloadOfAJob(msg *nats.Msg) bool {
	return strings.HasPrefix(msg.Subject, "gofer.jobs.") || strings.HasPrefix(msg.Subject, "gofer.dead.")
}
