package jobs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

func TestAMemberWithTheNameOfAnotherToolIsExplained(t *testing.T) {
	for _, c := range []struct{ members, want string }{
		{`"retries":3`, "did you mean retry.max_attempts (which counts the first attempt, too)?"},
		{`"max_retries":3`, "did you mean retry.max_attempts (which counts the first attempt, too)?"},
		{`"maxRetries":3`, "did you mean retry.max_attempts (which counts the first attempt, too)?"},
		{`"attempts":3`, "did you mean retry.max_attempts?"},
		{`"max_attempts":3`, "did you mean retry.max_attempts?"},
		{`"retry":{"retries":3}`, `retry."retries": unknown field, did you mean max_attempts (which counts the first attempt, too)?`},
		{`"retry":{"delay":3}`, "did you mean base_delay?"},
		{`"retry":{"status_codes":[503]}`, "did you mean retry_status_codes?"},
		{`"retry":{"ban_status_codes":[403]}`, "did you mean ban.statuses of the job?"},
		{`"retry":{"when_no_proxy":"fail"}`, "did you mean when_no_proxy of the job?"},
		{`"delay":"5s"`, "did you mean not_before?"},
		{`"notBefore":"5s"`, "did you mean not_before?"},
		{`"proxy_url":"http://p.test:1"`, "did you mean proxy.id (the id of a proxy of the pool)?"},
		{`"proxy":{"proxy_url":"http://p.test:1"}`, "did you mean id (the id of a proxy of the pool)?"},
		{`"proxy":{"url":"http://p.test:1"}`, "did you mean id (the id of a proxy of the pool)?"},
		{`"proxy":{"address":"p.test:1"}`, "did you mean id (the id of a proxy of the pool)?"},
		{`"ban":{"url":"http://a.test/"}`, "did you mean url of the job?"},
		{`"region":"DE"`, "did you mean proxy.region?"},
		{`"proxy":{"country":"DE"}`, "did you mean region?"},
		{`"proxy":{"timeout":3}`, "did you mean timeout of the job?"},
		{`"header":{}`, "did you mean headers?"},
		{`"data":"a"`, "did you mean body?"},
		{`"timeout_ms":3`, `did you mean timeout (in seconds, or a text such as "1.5s")?`},
		{`"id":"a"`, `"id": unknown field: the subject of the message names queue and id`},
		{`"status_codes":[403]`, "did you mean ban.statuses?"},
	} {
		_, err := decode(`{"url":"http://a.test/",` + c.members + `}`)
		if err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%s: got %v, want …%s", c.members, err, c.want)
		}
	}
	if _, err := jobs.DecodePolicy([]byte(`{"statuses":[403]}`), jobs.DefaultPolicy()); err == nil || strings.Contains(err.Error(), "did you mean") {
		t.Errorf("a policy with a member of a job: got %v, want no hint", err)
	}
}

// TestManyUnknownMembersCostLittle: a crafted payload has a hundred thousand of them, and only the first fifty reasons are kept.
func TestManyUnknownMembersCostLittle(t *testing.T) {
	const n = 2000
	members := func(prefix string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"%s%04d":1,`, prefix, i)
		}
		return b.String()
	}
	for _, payload := range []string{
		`{` + members("x") + `"maxRetries":1,"url":"http://a.test/"}`, `{"url":"http://a.test/","proxy":{` + members("x") + `"country":"DE"}}`,
	} {
		var err error
		allocated := testing.AllocsPerRun(1, func() { _, err = decode(payload) })
		if err == nil || !strings.Contains(err.Error(), "did you mean ") {
			t.Errorf("got %v, want a hint for the first ones", err)
		}
		if allocated > 200*n { // a hint costs more than a thousand
			t.Errorf("%.0f allocations for %d members", allocated, n)
		}
	}
}

func TestAMisspeltSchemeIsNamedWithTheRightOne(t *testing.T) {
	for url, want := range map[string]string{
		"http//s3cret.test/":  "http://",
		"htp://s3cret.test/":  "http://",
		"http:/s3cret.test/":  "http://",
		"http:s3cret.test/":   "http://",
		"HTTPS//s3cret.test/": "https://",
		"htps://s3cret.test/": "https://",
		"http;//s3cret.test/": "http://",
		"ttps:s3cret.test/":   "",
		"ftp://s3cret.test/":  "",
		"s3cret.test/http//":  "",
		"httpd.test/s3cret":   "",
		"http:":               "http://",
		"//s3cret.test/":      "",
	} {
		_, err := jobs.ParseURL(url)
		if err == nil || want != "" && !strings.Contains(err.Error(), "did you mean "+want+" in place of ") || want == "" && strings.Contains(err.Error(), "did you mean") {
			t.Errorf("%s: got %v, want %q to be suggested", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the error repeats the URL: %v", url, err)
		}
		if near := jobs.NearURL(url); (want != "") != strings.HasPrefix(near, "http") || near != "" && strings.Count(near, "//") != 1 {
			t.Errorf("%s: got %q as the URL that was meant", url, near)
		}
	}
}

func TestALineIsRefusedWithEveryReasonOfAWorker(t *testing.T) {
	const payload = `{"url":"htp://a.test/","timeout":"xx","headers":{"a b":"c"},"meta":{"a b":"c"},"retry":{"max_attempts":99},"colour":1}`
	_, worker := decode(payload)
	_, line := jobs.DecodeLine([]byte(payload), func(*jobs.Job) {})
	if worker == nil || line == nil || worker.Error() != line.Error() || strings.Count(line.Error(), "; ") != 5 {
		t.Errorf("a worker refuses it as\n%v\nand a line is refused as\n%v", worker, line)
	}
	// The members of a line are checked with the others.
	_, line = jobs.DecodeLine([]byte(`{"id":"a b","queue":"A","url":"http://a.test/","meta":{"a":"\ud800"},"taskId":1}`), func(*jobs.Job) {})
	for _, want := range []string{`job id "a b"`, `queue "A"`, "half of a character", "did you mean id?"} {
		if line == nil || !strings.Contains(line.Error(), want) {
			t.Errorf("got %v, want %s", line, want)
		}
	}
}

func TestWhatALineLacksIsFilledInBeforeItIsChecked(t *testing.T) {
	job, err := jobs.DecodeLine([]byte(`{"id":"a","url":"http://a.test/","proxy":{"region_strict":true}}`), func(job *jobs.Job) { job.Proxy.Region = "DE" })
	if err != nil || job.ID != "a" || job.Queue != "" || job.Method != "" || job.Proxy.Region != "DE" {
		t.Errorf("got %+v, %v; want the job as it is written and filled in", job, err)
	}
}
