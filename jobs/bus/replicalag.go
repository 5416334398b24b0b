package bus

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ReplicaLag is a stream or a consumer whose replicas are not all current: if a server stops now, data may be lost.
type ReplicaLag struct {
	Name string `json:"name"` // such as "stream GOFER_JOBS"
	Why  string `json:"why"`
	// Moving is true while the cluster changes the replicas. Otherwise a server is missing or lags.
	Moving bool `json:"moving"`
}

// String is the name and the reason.
func (l ReplicaLag) String() string { return l.Name + ": " + l.Why }

// ReplicaLags lists the streams, and the consumers of s, whose replicas are not all current. It also lists those that give no
// answer. Without a cluster it lists none. Errors: ErrPermission.
func (c *Client) ReplicaLags(ctx context.Context, s Settings) (out []ReplicaLag, err error) {
	s = s.withDefaults()
	add := func(name string, cluster *jetstream.ClusterInfo, replicas int, failure error) {
		why, moving := "", false
		switch {
		case failure == nil:
			why, moving = whyBehind(cluster, replicas)
		// A missing right is the same for every stream, so it is reported once, as the error.
		case IsPermanent(failure):
			err = failure
		default:
			why = failure.Error()
		}
		if why != "" {
			out = append(out, ReplicaLag{name, why, moving})
		}
	}
	replicas := map[string]int{} // of each stream; its consumers have as many
	for _, want := range s.streams(c.names) {
		cluster, n, err := c.streamCluster(ctx, want.Name)
		replicas[want.Name] = n
		add("stream "+want.Name, cluster, n, err)
	}
	for _, want := range s.durables(c.names) {
		cluster, err := c.consumerCluster(ctx, want)
		add(want.String(), cluster, replicas[want.stream], err)
	}
	return out, c.Explain("look for replicas", err)
}

// streamCluster returns the state of a stream's replicas, nil on a server without a cluster, and how many it is to have.
func (c *Client) streamCluster(ctx context.Context, name string) (*jetstream.ClusterInfo, int, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	info, err := c.StreamInfo(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	return info.Cluster, info.Config.Replicas, nil
}

// consumerCluster returns the state of a consumer's replicas, nil on a server without a cluster.
func (c *Client) consumerCluster(ctx context.Context, d durable) (*jetstream.ClusterInfo, error) {
	ctx, cancel := Bounded(ctx)
	defer cancel()
	info, err := c.ConsumerInfo(ctx, d.stream, d.config.Durable)
	if err != nil {
		return nil, err
	}
	return info.Cluster, nil
}

// whyBehind says which replicas are not current; empty if all of them are. moving is true while the cluster itself changes them:
// then Desired is set. Since version 2.15, a server calls replicas current before the move has ended.
func whyBehind(cluster *jetstream.ClusterInfo, replicas int) (why string, moving bool) {
	// The first cases are about the cluster, the last ones about single servers.
	switch {
	case cluster == nil:
		return "", false
	case cluster.Desired != nil && cluster.Desired.Status != nil:
		return "it is being moved, " + cluster.Desired.Status.Description, true
	case cluster.Desired != nil:
		return "it is being moved", true
	case cluster.Leader == "":
		return "it has no leader", false
	// The leader is not among the replicas, hence one more.
	case len(cluster.Replicas)+1 < replicas:
		return fmt.Sprintf("%d of %d replicas are there", len(cluster.Replicas)+1, replicas), true
	}
	var late []string
	for _, peer := range cluster.Replicas {
		switch {
		case peer.Offline:
			late = append(late, peer.Name+" is offline")
		case !peer.Current:
			late = append(late, peer.Name+" is behind")
		}
	}
	slices.Sort(late)
	return strings.Join(late, ", "), false
}

// lagPause is the time between two requests of AwaitReplicas.
const lagPause = time.Second

// AwaitReplicas waits until all replicas are current, and calls report with each list of those that are not. They have to be
// current twice in a row: a server may call a replica current a moment before that asks its leader for what it lacks.
//
// Errors: ErrPermission; the cause of the end of ctx, with the last list.
func (c *Client) AwaitReplicas(ctx context.Context, s Settings, report func([]ReplicaLag)) error {
	var last []ReplicaLag
	for clears := 0; ; {
		behind, err := c.ReplicaLags(ctx, s)
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
		case len(behind) == 0:
			clears++
		default:
			clears, last = 0, behind
			report(behind)
		}
		if clears == 2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for replicas: %w%s", context.Cause(ctx), describe(last))
		case <-time.After(lagPause):
		}
	}
}

// describe returns the list as the end of an error text.
func describe(list []ReplicaLag) (text string) {
	for i, b := range list {
		text += []string{": ", "; "}[min(i, 1)] + b.String()
	}
	return text
}
