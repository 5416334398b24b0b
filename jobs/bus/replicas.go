package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// metadataVersion is where the leader of a stream names its version.
const metadataVersion = "_nats.ver"

// refuseReplicas refuses a change of the replicas of a stream with scheduled messages if a server would then forget when to
// release them. It knows the versions of two servers: the stream's leader and the one that the client is connected to.
func (c *Client) refuseReplicas(info *jetstream.StreamInfo, differences []Difference) {
	if !info.Config.AllowMsgSchedules || info.State.Msgs == 0 {
		return
	}
	// Both must keep timers: the present leader, and the server that may lead next.
	for _, version := range []string{info.Config.Metadata[metadataVersion], c.nc.ConnectedServerVersion()} {
		if keepsTimers(version) {
			continue
		}
		for i, d := range differences {
			if d.Field == "num_replicas" {
				differences[i].Refused = fmt.Sprintf("the stream holds jobs (%d), and nats-server %s forgets the times of waiting jobs when the "+
					"replicas change: upgrade all servers to 2.14.10, 2.15.3 or newer first, or wait until no job waits", info.State.Msgs, version)
			}
		}
	}
}

// keepsTimers reports whether a version of nats-server keeps the timers of scheduled messages when a stream's replicas change
// (nats-io/nats-server#8423). An unreadable version does not.
func keepsTimers(version string) bool {
	var major, minor, patch int
	// The suffix of a pre-release does not matter.
	if _, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); err != nil {
		return false
	}
	switch {
	case major != 2:
		return major > 2
	case minor == 14:
		return patch >= 10
	case minor == 15:
		return patch >= 3
	}
	return minor > 15
}

// setupBound is how long one step of a set-up is repeated. While a cluster moves a stream or its consumers to other
// replicas and elects their leaders, it does not answer requests about them.
const (
	// setupBound is how long one step of a set-up is repeated. While a cluster moves a stream or its consumers to other
	// replicas and elects their leaders, it does not answer requests about them.
	setupBound = 30 * time.Second
	setupPause = 250 * time.Millisecond
)

// retryWhileMoving makes a call at least once, and repeats it after a transient error until setupBound has passed.
func (c *Client) retryWhileMoving(ctx context.Context, try func(context.Context) error) error {
	for end := time.Now().Add(setupBound); ; {
		limited, cancel := Bounded(ctx)
		err := try(limited)
		cancel()
		if !IsTransient(err) || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(setupPause):
		}
	}
}
