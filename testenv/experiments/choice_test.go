package experiments_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

// choices are the experiments about what is chosen and when, in virtual time: every number in them but those of the strategies
// that draw at random comes out the same on every machine.
func choices(t *testing.T, s size) []row {
	single := s.sum(t, arm{attempts: 1, strategy: rotation.RoundRobin})
	blind := s.sum(t, arm{attempts: 3, strategy: rotation.RoundRobin})
	gofer := s.sum(t, arm{attempts: 3, strategy: rotation.RoundRobin, breakers: true})
	blindLong := s.sum(t, arm{attempts: 10, strategy: rotation.RoundRobin})
	long := s.sum(t, arm{attempts: 10, strategy: rotation.RoundRobin, breakers: true})
	random := s.sum(t, arm{attempts: 3, strategy: rotation.Random})
	performance := s.sum(t, arm{attempts: 3, strategy: rotation.Performance, breakers: true})
	rows := []row{success(single, gofer), waste(blind, gofer), tail(blind, gofer), firstRetry(random, performance), soon(blindLong, long)}
	for i := range rows {
		rows[i].seeds = s.String()
	}
	return rows
}

// sum runs an arm with every seed.
func (s size) sum(t *testing.T, a arm) (sum tally) {
	t.Helper()
	for _, seed := range s.seeds {
		sum.merge(a.run(t, seed, s.jobs))
	}
	return sum
}

func success(single, gofer tally) row {
	a, b := share(single.succeeded, single.jobs), share(gofer.succeeded, gofer.jobs)
	return row{
		name: "1 jobs that succeed, beside a single attempt", aim: "≥ +15 %",
		baseline: percent(a), gofer: percent(b), gain: change(a, b), met: b >= 1.15*a, exact: true,
	}
}

func waste(blind, gofer tally) row {
	a, b := float64(blind.wasted), float64(gofer.wasted)
	return row{
		name: "2 attempts lost on proxies that fail > 70 %, beside no breakers", aim: "≤ −80 %",
		baseline: fmt.Sprint(blind.wasted), gofer: fmt.Sprint(gofer.wasted), gain: change(a, b), met: b <= 0.2*a, exact: true,
	}
}

func tail(blind, gofer tally) row {
	a, b := quantile(blind.retried, 0.95), quantile(gofer.retried, 0.95)
	return row{
		name: "3 p95 of the jobs that succeed after a retry, beside no breakers", aim: "< 5 s",
		baseline: seconds(a), gofer: seconds(b), gain: change(a.Seconds(), b.Seconds()), met: b < 5*time.Second,
	}
}

func firstRetry(random, gofer tally) row {
	a, b := share(random.secondsGot, random.seconds), share(gofer.secondsGot, gofer.seconds)
	return row{
		name: "5 first retries that succeed, beside random choice", aim: "≥ +20 %",
		baseline: percent(a), gofer: percent(b), gain: change(a, b), met: b >= 1.2*a,
	}
}

func soon(blind, gofer tally) row {
	a, b := share(blind.soon, blind.succeeded), share(gofer.soon, gofer.succeeded)
	return row{
		name: "10 of the jobs that succeed in ten attempts, those within two retries", aim: "≥ 90 %",
		baseline: percent(a), gofer: percent(b), gain: change(a, b), met: b >= 0.9, exact: true,
	}
}

func share(part, whole int) float64 { return float64(part) / float64(max(1, whole)) }

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func change(from, to float64) string { return fmt.Sprintf("%+.1f %%", 100*(to/from-1)) }
