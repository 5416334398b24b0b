package main

import (
	"testing"
	"time"
)

func TestAClockIsWrongByWhatTheRoundTripCannotExplain(t *testing.T) {
	asked := time.Now()
	answered := asked.Add(200 * time.Millisecond)
	for told, want := range map[time.Duration]time.Duration{
		0: 0, 100 * time.Millisecond: 0, 200 * time.Millisecond: 0, 3200 * time.Millisecond: 3 * time.Second, -3 * time.Second: -3 * time.Second,
	} {
		if got := clockError(asked, answered, asked.Add(told)); got != want {
			t.Errorf("told %s after the question: got %s, want %s", told, got, want)
		}
	}
}
