package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
)

// queues says of each queue whether its jobs run, and if not, why. The first reason in this order is the one to repair first.
func (d *doctor) queues(queues []client.QueueState) []Finding {
	var list []Finding
	for _, q := range queues {
		name := "queue " + q.Queue
		waiting := q.Queued + q.Due
		switch {
		case !q.Served && !jobs.ValidQueue(q.Queue):
			list = append(list, Finding{fmt.Sprintf("queue %+q", q.Queue), false, fmt.Sprintf("jobs wait (%d) and none will ever be taken, for no queue can bear that name: %s", waiting, d.howToRemove(q.Queue))})
		case !q.Served:
			list = append(list, Finding{name, false, fmt.Sprintf("jobs wait (%d) and no worker has ever served it: add it to GOFER_QUEUES, or is it misspelt?", waiting)})
		case !q.PausedUntil.IsZero():
			list = append(list, Finding{name, false, fmt.Sprintf("paused%s, jobs wait (%d): gofer resume %s", until(q.PausedUntil), waiting, q.Queue)})
		case waiting > 0 && q.Pulls == 0 && q.Running == 0:
			list = append(list, Finding{name, false, fmt.Sprintf("jobs wait (%d) and no worker asks for them: start one", waiting)})
		default:
			list = append(list, Finding{name, true, fmt.Sprintf("%d queued, %d running, %d waiting for their time", waiting, q.Running, q.Waiting)})
		}
	}
	return list
}

// until is the end of a pause in words. A consumer is paused until a time, so gofer pause without an end sets one that is a century
// away; that is not worth showing.
func until(end time.Time) string {
	if time.Until(end) > 10*365*24*time.Hour {
		return ""
	}
	return " until " + end.UTC().Format(time.RFC3339)
}

// howToRemove is how to get rid of the jobs in a queue whose name is none. A name that may hold anything must not make a command
// that empties other queues, or that a shell takes for more than one word.
func (d *doctor) howToRemove(queue string) string {
	stream := d.names.Stream("JOBS")
	if strings.ContainsFunc(queue, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("*>'", r) }) {
		return fmt.Sprintf("find them with nats stream view %s and delete each with nats stream rmm %[1]s SEQUENCE", stream)
	}
	return fmt.Sprintf("nats stream purge %s --subject '%s'", stream, d.names.Jobs(queue))
}

// overdue counts the jobs that the server has not released at their time, and says what to do about them.
func (d *doctor) overdue(ctx context.Context, queues []client.QueueState) Finding {
	const name = "waiting jobs"
	if err := d.client.CountOverdue(ctx, queues); err != nil {
		return Finding{name, false, err.Error()}
	}
	var overdue, waiting uint64
	for _, q := range queues {
		overdue += q.Overdue
		waiting += q.Waiting
	}
	if overdue == 0 {
		return Finding{name, true, fmt.Sprintf("none is overdue of those that wait for their time (%d)", waiting)}
	}
	return Finding{name, false, fmt.Sprintf("overdue (%d): the server has not released them at their time; a worker does within two minutes. "+
		"If it does not, start one of this version and give its NATS user the rights of deploy/nats/server.conf; upgrade nats-server to 2.14.10, 2.15.3 or newer", overdue)}
}
