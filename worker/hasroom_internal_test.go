package worker

import (
	"testing"

	"github.com/gofer-mq/gofer/jobs/bus"
)

// TestAJobMayWaitOnlyWhileItsShareOfTheStreamIsFree: a job that was scheduled before has a larger share than a fresh one, and
// the largest due job fits beside all of them.
func TestAJobMayWaitOnlyWhileItsShareOfTheStreamIsFree(t *testing.T) {
	t.Parallel()
	const kib, mib = 1 << 10, 1 << 20
	for name, c := range map[string]struct {
		fill         bus.Fill
		size         int64
		fresh, again bool
	}{
		"no limit":                     {bus.Fill{Bytes: 1 << 40, Msgs: 1 << 40}, mib, true, true},
		"just a fresh job's share":     {bus.Fill{Bytes: 74 * mib, MaxBytes: 100 * mib}, mib, true, true},
		"beyond a fresh job's share":   {bus.Fill{Bytes: 74 * mib, MaxBytes: 100 * mib}, mib + 1, false, true},
		"just the share of another":    {bus.Fill{Bytes: 94 * mib, MaxBytes: 100 * mib}, mib, false, true},
		"beyond every share":           {bus.Fill{Bytes: 94 * mib, MaxBytes: 100 * mib}, mib + 1, false, false},
		"just room for a due job":      {bus.Fill{Bytes: 3*mib - 100*kib, MaxBytes: 4 * mib}, 100 * kib, true, true},
		"no room for a due job":        {bus.Fill{Bytes: 3 * mib, MaxBytes: 4 * mib}, 100 * kib, false, false},
		"messages of a fresh job":      {bus.Fill{Msgs: 74, MaxMsgs: 100}, mib, true, true},
		"messages beyond a fresh job":  {bus.Fill{Msgs: 75, MaxMsgs: 100}, mib, false, true},
		"messages beyond every share":  {bus.Fill{Msgs: 95, MaxMsgs: 100}, mib, false, false},
		"bytes are free, messages not": {bus.Fill{Bytes: mib, MaxBytes: 100 * mib, Msgs: 99, MaxMsgs: 100}, mib, false, false},
	} {
		if got := hasRoom(c.fill, c.size, false); got != c.fresh {
			t.Errorf("%s: a fresh job has room: %t, want %t", name, got, c.fresh)
		}
		if got := hasRoom(c.fill, c.size, true); got != c.again {
			t.Errorf("%s: a job that is scheduled again has room: %t, want %t", name, got, c.again)
		}
	}
}
