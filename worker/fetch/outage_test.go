package fetch_test

import (
	"fmt"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

func TestJobsPayNothingWhenTheWholePoolFails(t *testing.T) {
	r := newRig(t, nil)
	var lines []string
	var all []*testenv.Proxy
	for i := range 6 {
		p := r.proxy(testenv.Good, nil)
		all = append(all, p)
		lines = append(lines, p.URL("http")+fmt.Sprint(" id=p", i))
	}
	r.use(lines...)
	for range 60 {
		wantBody(t, r.do("http://shop.test/ok"), "hello from shop.test/ok\n")
	}
	for _, p := range all {
		p.Close()
	}
	for range 20 {
		o := r.do("http://shop.test/ok")
		if o.Kind != jobs.RunScheduled || !o.NoProxy || len(o.Progress.Attempts) > 2 || o.Progress.WaitingSince.IsZero() {
			t.Fatalf("a job while all proxies are away: %+v, want that it waits, with attempts left", o)
		}
	}
	if _, failing := r.pool.Outage(); !failing {
		t.Error("the pool does not say that it fails as a whole")
	}
	if len(r.breakers) != 1 || r.breakers[0].ProxyID != "" {
		t.Errorf("events: %+v, want one of the pool as a whole", r.breakers)
	}
	o := r.do(`{"url":"http://shop.test/ok","when_no_proxy":"fail"}`)
	if o.Kind != jobs.RunFinished || o.Result.Error != jobs.ErrNoProxy {
		t.Errorf("a job that does not wait: %+v, want no_proxy", o)
	}
}
