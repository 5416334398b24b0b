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
	// Moving says that the cluster is changing the replicas. Otherwise a server is missing or late.
	Moving bool `json:"moving"`
}

// String is the name and the reason.
func (b ReplicaLag) String() string { return b.Name + ": " + b.Why }

// ReplicaLags lists the streams, and the consumers of s, whose replicas are not all current, or that do not say. Nothing is
// behind on a server without a cluster. Errors: ErrPermission.
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
	stream, err := c.js.Stream(ctx, name)
	if err != nil {
		return nil, 0, err
	}
	info := stream.CachedInfo()
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

// whyBehind says which replicas are not current; empty if all of them are. moving is true while the cluster itself
// changes them. A server of version 2.15 or newer calls replicas current while it still moves the group, so Desired,
// which is there until the move has ended, counts.
func whyBehind(cluster *jetstream.ClusterInfo, replicas int) (why string, moving bool) {
	// The cases go from what the cluster is doing to what single servers lack.
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

// behindPause is the time between two requests of AwaitReplicas.
const behindPause = time.Second

// AwaitReplicas waits until nothing is behind, for as long as ctx lasts, and calls report with each list that is not empty.
//
// Nothing must be behind twice in a row: a replica may be called current a moment before it asks its leader for what it lacks.
// Errors: ErrPermission; else the cause of the end of ctx, with what is behind.
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
		case <-time.After(behindPause):
		}
	}
}

// describe names what is behind, as the end of an error text.
func describe(list []ReplicaLag) (text string) {
	for i, b := range list {
		text += []string{": ", "; "}[min(i, 1)] + b.String()
	}
	return text
}
