package jobs_test

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
)

// integerJob is a job with n in each field that holds an integer.
func integerJob(n, status string) string {
	return fmt.Sprintf(`{"url":"http://a.test/","follow_redirects":%s,"max_body_bytes":%s,"ban":{"min_bytes":%s,"statuses":[403,%s]},
		"retry":{"max_attempts":%s,"retry_status_codes":[%s,503]}}`, n, n, n, status, n, status)
}

// TestAnIntegerMayBeWrittenWithAPointOrAnExponent: JSON Schema counts 3.0 as an integer, so a job that fits the schema is valid.
func TestAnIntegerMayBeWrittenWithAPointOrAnExponent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, zeros := rapid.IntRange(1, 10).Draw(t, "n"), rapid.IntRange(1, 12).Draw(t, "zeros")
		write := func(n int) string {
			plain := strconv.Itoa(n)
			return rapid.SampledFrom([]string{
				plain, plain + "." + strings.Repeat("0", zeros), plain + "e0", plain + "E+0", plain + strings.Repeat("0", zeros) + "e-" + strconv.Itoa(zeros),
				"0." + strings.Repeat("0", zeros) + plain + "e" + strconv.Itoa(zeros+len(plain)), plain[:1] + "." + plain[1:] + "0e" + strconv.Itoa(len(plain)-1),
			}).Draw(t, "spelling")
		}
		text := integerJob(write(n), write(429))
		got, err := jobs.Decode("default", "j", []byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if want, _ := jobs.Decode("default", "j", []byte(integerJob(strconv.Itoa(n), "429"))); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	})
	policy, err := jobs.DecodePolicy([]byte(`{"max_attempts":5.0,"retry_status_codes":[4.29e2]}`), jobs.DefaultPolicy())
	if err != nil || policy.MaxAttempts != 5 || len(policy.RetryStatusCodes) != 1 || policy.RetryStatusCodes[0] != 429 {
		t.Errorf("got the policy %+v, %v", policy, err)
	}
}

func TestANumberThatIsNoIntegerIsRefused(t *testing.T) {
	for _, n := range []string{
		"3.5", "3.0000000000000000000000001", "35e-1", "1e-1", "1e400", "1e999999999", "0.1e-999999999", "1e99999999999999999999", "9007199254740993.5",
		"99999999999999999999", "-1.0", `"3.0"`, "[3.0]", "3.0.0", "1e", ".5", "+3",
	} {
		if job, err := jobs.Decode("default", "j", []byte(`{"url":"http://a.test/","follow_redirects":`+n+`}`)); err == nil {
			t.Errorf("follow_redirects %s is taken for %d", n, job.Redirects())
		}
	}
	// 2⁵³ + 1 is no float64.
	job, err := jobs.Decode("default", "j", fmt.Appendf(nil, `{"url":"http://a.test/","max_body_bytes":%d.0}`, 1<<53+1))
	if err != nil || job.MaxBodyBytes != 1<<53+1 {
		t.Errorf("got %d, %v, want 2⁵³+1", job.MaxBodyBytes, err)
	}
}
