package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/control"
)

// workerSites is what a worker says of the sites that it remembers.
type workerSites struct {
	// Only the fields that a finding uses are decoded, so an older or newer worker with other fields is read as
	// well.
	Sites []struct {
		Site   string     `json:"site"`
		State  string     `json:"state"`
		Reason string     `json:"reason"`
		Next   *time.Time `json:"next_test_time"`
	} `json:"sites"`
}

// sites names the sites that rest. They are a fault only where jobs wait for one.
func (d *doctor) sites(ctx context.Context, queues []queue) []Finding {
	subject := control.Subject(d.names, control.Sites)
	var list []workerSites
	err := d.Bus.Ask(ctx, subject, func(ctx context.Context) (err error) {
		list, err = control.Ask[workerSites](ctx, d.NATS, subject, control.SiteRequest{}, 0)
		return err
	})
	if err != nil {
		return nil // said with the workers
	}
	// Each worker has its own knowledge. The last answer about a site wins, since any one of them suffices for
	// the text.
	resting := map[string]string{}
	for _, w := range list {
		for _, site := range w.Sites {
			// A site under test rests for all jobs but the one that tests it.
			if site.State != "resting" && site.State != "testing" {
				continue
			}
			text := SiteReason(site.Reason)
			if site.Next != nil {
				text += ", the next test is at " + site.Next.UTC().Format("15:04:05Z")
			}
			resting[site.Site] = text
		}
	}
	if len(resting) == 0 {
		return []Finding{{"sites", true, "none rests"}}
	}
	var awaited []Finding
	for _, q := range queues {
		for _, r := range q.counted.Reasons {
			// The reason's site and the worker's are both the authority of the URL, so they compare as text.
			if why, rests := resting[r.Site]; rests && r.State == jobs.StateSiteDown {
				awaited = append(awaited, Finding{"site " + r.Site, false, fmt.Sprintf(
					"does not answer (%s), and jobs of queue %s wait for it (%d): gofer sites show %[4]s shows more; when it works again, gofer sites reset %[4]s ends its rest", why, q.Queue, r.Jobs, r.Site)})
			}
		}
	}
	if len(awaited) == 0 {
		return []Finding{{"sites", true, fmt.Sprintf("some rest (%d), and no jobs wait for them: %s", len(resting), some(slices.Sorted(maps.Keys(resting))))}}
	}
	return awaited
}

// SiteReason puts the code of why a site rests into words. A code that is not known is shown as it is. The codes are a contract
// with programs; these words are not.
func SiteReason(code string) string {
	words, known := map[string]string{
		"failures": "its attempts failed one after the other", "share": "fewer than one in ten attempts brought an answer", "test": "it is being tested",
		"test_failed": "its last test failed", "test_void": "its last test decided nothing", "answer": "it has answered", "slower": "an attempt failed while its jobs came back",
		"outage": "the worker's own network failed", "reset": "its rest was ended by hand", "finding": "another worker reported it",
	}[code]
	if !known {
		return strings.ReplaceAll(code, "_", " ")
	}
	return words
}
