package experiments_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv/network"
)

// socketSites is the world of silent sites in real time, with a connection of the kernel for each one. Its three ways run beside
// each other. Before the first sites rest, each has cost attempts of a second.
func socketSites(t *testing.T, s size) row {
	t.Helper()
	const slots, settle = 64, 4 * time.Second
	ways := []struct{ answers, rests bool }{{true, false}, {false, false}, {false, true}}
	perSecond := make([]float64, len(ways))
	var running sync.WaitGroup
	for i, way := range ways {
		running.Go(func() {
			net := network.NewWeb(s.seeds[0], func(host string, _ time.Duration) bool { return !way.answers && strings.HasPrefix(host, "silent") })
			net.Quick = func(host string) bool { return strings.HasPrefix(host, "silent") }
			w := network.NewStation(net, network.Config{Slots: slots, Rests: way.rests, Timeout: time.Second, Next: network.PartlySilent})
			net.Listen(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(settle+s.sockets, func() { cancel(jobs.ErrStopping) })
			w.Run(ctx, t)
			perSecond[i] = w.Succeeded(settle) / s.sockets.Seconds()
		})
	}
	running.Wait()
	ideal, plain, rested := perSecond[0], perSecond[1], perSecond[2]
	return row{
		name: "27 throughput of others as in 21, on sockets of the kernel in real time", where: fmt.Sprintf("%d slots, attempts of 1 s, %s after %s", slots, s.sockets, settle),
		aim: "≥ 90 %", baseline: percent(plain / ideal), gofer: percent(rested / ideal), gain: fmt.Sprintf("×%.1f", rested/plain), seeds: "–", met: rested >= 0.9*ideal,
	}
}
