package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gofer-mq/gofer/jobs/client"
)

func TestQuestionsWhyJobsWaitBecomeRare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &submission{open: map[client.Key]ackFacts{}, ended: map[string]int{}}
		began := time.Now()
		var asked []string
		set := func(change func()) {
			synctest.Wait()
			s.mu.Lock()
			defer s.mu.Unlock()
			change()
		}
		ctx, stop := context.WithCancel(t.Context())
		go s.hintWhileSilent(ctx, func(_ context.Context, open, said map[string]bool) {
			asked = append(asked, fmt.Sprint(time.Since(began), len(open), open["slow"], open["paused"]))
			if open["paused"] {
				said["paused"] = true
			}
		})
		time.Sleep(12 * time.Second) // nothing is open, so nobody is asked
		set(func() { s.open[client.Key{Queue: "slow"}] = ackFacts{} })
		time.Sleep(3*time.Minute + 10*time.Second) // 202 s
		set(func() { s.ended["succeeded"]++; s.open[client.Key{Queue: "paused"}] = ackFacts{} })
		time.Sleep(60 * time.Second)
		set(func() { delete(s.open, client.Key{Queue: "slow"}) }) // the open queue was named
		time.Sleep(time.Hour)
		stop()
		synctest.Wait()
		want := []string{
			"15s 1 true false", "25s 1 true false", "45s 1 true false", "1m25s 1 true false", "2m25s 1 true false",
			"3m30s 2 true true", "3m40s 1 true false", "4m0s 1 true false",
		}
		if !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
	})
}
