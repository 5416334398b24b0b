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

// settingsFindings say what workers cannot read in the fleet's buckets, where anybody with the right may have written by hand.
// What this user may not read is left out, and a bucket that is missing is said with the streams.
func settingsFindings(ctx context.Context, s *session) (list []doctor.Finding) {
	bad := func(format string, args ...any) {
		list = append(list, doctor.Finding{Name: "settings", Detail: fmt.Sprintf(format, args...)})
	}
	kv, err := s.bucket(ctx, "policy")
	if err != nil {
		return nil
	}
	read := false
	if entry, err := kv.Get(ctx, fleet.PolicyKey); err == nil {
		read = true
		if _, err := jobs.DecodePolicy(entry.Value(), s.config.Policy()); err != nil {
			bad("the policy in the bucket is not valid, and workers keep the last good one: %v; gofer policy set replaces it, gofer policy reset removes it", err)
		}
	} else if errors.Is(err, jetstream.ErrKeyNotFound) {
		read = true
	}
	if _, _, err := strategyOf(ctx, kv, s.config.Strategy); errors.Is(err, errBadStrategy) {
		bad("%v; gofer proxies strategy NAME replaces it, gofer proxies strategy reset removes it", err)
	}
	broken := 0
	err = eachSharedProxy(ctx, s, func(key string, _ proxylist.Proxy, err error) {
		if err == nil {
			return
		}
		remedy := "gofer proxies add replaces it, gofer proxies rm " + key + " removes it"
		if !jobs.ValidProxyID(key) { // gofer takes no such id
			remedy = "nats kv del " + s.names.Bucket("proxies") + " " + key + " removes it"
		}
		if broken++; broken <= maxBadProxies {
			bad("proxy %s in the bucket is not valid, and workers do not use it: %v; %s", key, err, remedy)
		}
	})
	if broken > maxBadProxies {
		bad("%d more proxies in the bucket are not valid", broken-maxBadProxies)
	}
	if len(list) == 0 && (read || err == nil) {
		list = append(list, doctor.Finding{Name: "settings", OK: true, Detail: "workers can read those of the fleet's buckets"})
	}
	return list
}
