package experiments_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/rotation"
)

// choices are the experiments about what is chosen and when, in virtual time. What draws at random (the strategies of experiment
// 5) draws without a seed, so that row moves a little from run to run; the others come out the same on every machine.
func choices(t *testing.T, s size, bad float64) []row {
	t.Helper()
	base := arm{bad: bad, timeout: 3 * time.Second, strategy: rotation.RoundRobin}
	single := s.sum(t, base.with(1, false))
	blind, gofer := s.sum(t, base.with(3, false)), s.sum(t, base.with(3, true))
	blindLong, long := s.sum(t, base.with(10, false)), s.sum(t, base.with(10, true))
	random, better := base, base
	random.strategy, better.strategy = rotation.Random, rotation.Performance
	choice := s.sum(t, better.with(3, true))
	rows := []row{
		success(single, gofer), waste(blind, gofer), tail("3 s", blind, gofer),
		firstRetry("random choice", s.sum(t, random.with(3, false)), choice), soon(blindLong, long),
	}
	if s.more {
		patient := base
		patient.timeout = 30 * time.Second
		rows = append(rows, tail("30 s, the default", s.sum(t, patient.with(3, false)), s.sum(t, patient.with(3, true))),
			firstRetry("random behind the same breakers", s.sum(t, random.with(3, true)), choice))
	}
	for i := range rows {
		rows[i].where, rows[i].seeds = fmt.Sprintf("%.0f %% bad", 100*bad), s.String()
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
	a, b := portion(single.succeeded, single.jobs), portion(gofer.succeeded, gofer.jobs)
	return row{
		name: "1 jobs that succeed, beside a single attempt", aim: "≥ +15 %",
		baseline: percent(a), gofer: percent(b), gain: change(a, b), met: b >= 1.15*a, exact: true,
	}
}

func waste(blind, gofer tally) row {
	a, b := float64(blind.wasted), float64(gofer.wasted)
	return row{
		name: "2 attempts lost on proxies that fail > 70 %, beside no breakers", aim: "≤ −80 %",
		baseline: count(blind.wasted), gofer: count(gofer.wasted), gain: change(a, b), met: b <= 0.2*a, exact: true,
	}
}

func tail(timeout string, blind, gofer tally) row {
	a, b := quantile(blind.retried, 0.95), quantile(gofer.retried, 0.95)
	return row{
		name: "3 p95 of jobs that needed a retry, beside no breakers; an attempt may take " + timeout, aim: "< 5 s",
		baseline: seconds(a), gofer: seconds(b), gain: change(a.Seconds(), b.Seconds()), met: b < 5*time.Second,
	}
}

func firstRetry(beside string, random, gofer tally) row {
	a, b := portion(random.secondsGot, random.seconds), portion(gofer.secondsGot, gofer.seconds)
	return row{
		name: "5 first retries that succeed, beside " + beside, aim: "≥ +20 %",
		baseline: percent(a), gofer: percent(b), gain: change(a, b), met: b >= 1.2*a,
	}
}

func soon(blind, gofer tally) row {
	a, b := portion(blind.soon, blind.succeeded), portion(gofer.soon, gofer.succeeded)
	return row{
		name: "10 of the jobs that succeed in ten attempts, those in three, beside no breakers", aim: "≥ 90 %",
		baseline: percent(a), gofer: percent(b), gain: change(a, b), met: b >= 0.9, exact: true,
	}
}

func portion(part, whole int) float64 { return float64(part) / float64(max(1, whole)) }

func percent(x float64) string { return fmt.Sprintf("%.1f %%", 100*x) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func change(from, to float64) string { return fmt.Sprintf("%+.1f %%", 100*(to/from-1)) }

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

func count(n int) string { return fmt.Sprint(n) }
