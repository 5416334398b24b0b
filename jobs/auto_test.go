package jobs_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

func TestAnAutoDurationIsReadAsWordsAndDurations(t *testing.T) {
	for written, want := range map[string]jobs.AutoDuration{
		`"auto"`: jobs.Auto, `"off"`: jobs.Off, `"1.5s"`: jobs.AutoDuration(1500 * time.Millisecond), `2`: jobs.AutoDuration(2 * time.Second), `"0.5"`: jobs.AutoDuration(time.Second / 2),
	} {
		var got jobs.AutoDuration
		if err := json.Unmarshal([]byte(written), &got); err != nil || got != want {
			t.Errorf("%s is read as %s, %v; want %s", written, got, err, want)
		}
	}
	for written, want := range map[jobs.AutoDuration]string{jobs.Auto: `"auto"`, jobs.Off: `"off"`, jobs.AutoDuration(1500 * time.Millisecond): "1.5", 0: "null"} {
		if got, err := json.Marshal(written); err != nil || string(got) != want {
			t.Errorf("%s is written as %s, %v; want %s", written, got, err, want)
		}
	}
	for _, written := range []string{`""`, `"none"`, `"AUTO"`, `0`, `-1`, `"0s"`, `"-2ns"`, `[]`, `1e300`} {
		var got jobs.AutoDuration
		if err := json.Unmarshal([]byte(written), &got); err == nil {
			t.Errorf("%s is read as %s, want an error", written, got)
		}
	}
}
