package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/doctor"
	"github.com/gofer-mq/gofer/worker/fleet"
)

// maxBadProxies bounds how many proxies that are not valid are named.
const maxBadProxies = 5

// settingsFindings name what workers cannot read in the fleet's buckets, which other programs may have written. They leave
// out what this user may not read, and missing buckets, which the findings of the streams name.
func settingsFindings(ctx context.Context, s *session) (list []doctor.Finding) {
	bad := func(format string, args ...any) {
		list = append(list, doctor.Finding{Name: "settings", Detail: fmt.Sprintf(format, args...)})
	}
	kv, err := s.bucket(ctx, "policy")
	if err != nil {
		return nil
	}
	// The policy is decoded over that of this environment, as a worker does over its own: a document may name a few fields only.
	isRead := false
	if entry, err := kv.Get(ctx, fleet.PolicyKey); err == nil {
		isRead = true
		if _, err := jobs.DecodePolicy(entry.Value(), s.config.Policy()); err != nil {
			bad("the policy in the bucket is not valid, and workers keep the last good one: %v; gofer policy set replaces it, gofer policy reset removes it", err)
		}
	} else if errors.Is(err, jetstream.ErrKeyNotFound) {
		isRead = true
	}
	// Other errors, such as a missing right, say nothing about the setting, so they are no finding.
	if _, _, err := strategyOf(ctx, kv, s.config.Strategy); errors.Is(err, errBadStrategy) {
		bad("%v; gofer proxies strategy NAME replaces it, gofer proxies strategy reset removes it", err)
	}
	// An entry may be of a newer gofer, or of another program with the right to write. A worker skips it in silence but for its log.
	broken := 0
	err = eachSharedProxy(ctx, s, func(key string, _ proxylist.Proxy, err error) {
		if err == nil {
			return
		}
		remedy := "gofer proxies add replaces it, gofer proxies rm " + key + " removes it"
		// gofer proxies rm refuses an id that no proxy can have, so another tool has to remove the entry.
		if !jobs.ValidProxyID(key) {
			remedy = "nats kv del " + s.names.Bucket("proxies") + " " + key + " removes it"
		}
		if broken++; broken <= maxBadProxies {
			bad("proxy %s in the bucket is not valid, and workers do not use it: %v; %s", key, err, remedy)
		}
	})
	if broken > maxBadProxies {
		bad("%d more proxies in the bucket are not valid", broken-maxBadProxies)
	}
	// A good finding needs at least one setting that could be read. Without any right it would be a guess.
	if len(list) == 0 && (isRead || err == nil) {
		list = append(list, doctor.Finding{Name: "settings", OK: true, Detail: "workers can read those of the fleet's buckets"})
	}
	return list
}
