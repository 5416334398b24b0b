package testenv

import (
	"fmt"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Cluster is three JetStream servers in one cluster.
type Cluster struct {
	tb      testing.TB
	servers []*server.Server
}

// StartCluster starts a cluster and waits until JetStream has a leader; the test's end stops it.
func StartCluster(tb testing.TB) *Cluster {
	tb.Helper()
	c := &Cluster{tb: tb}
	routes := make([]*url.URL, 3) // a server of a JetStream cluster does not start without routes
	for i := range routes {
		routes[i] = &url.URL{Scheme: "nats", Host: FreeAddr(tb)}
	}
	for i, route := range routes {
		port, err := strconv.Atoi(route.Port())
		if err != nil {
			tb.Fatal(err)
		}
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("node", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: tb.TempDir(),
			NoSigs: true, NoLog: true, Routes: routes, Cluster: server.ClusterOpts{Name: "testenv", Host: "127.0.0.1", Port: port},
		})
		if err != nil {
			tb.Fatalf("start nats-server: %v", err)
		}
		srv.Start()
		tb.Cleanup(func() { stop(srv) })
		c.servers = append(c.servers, srv)
	}
	for _, srv := range c.servers {
		if !srv.ReadyForConnections(10 * time.Second) {
			tb.Fatal("nats-server is not ready after 10 s")
		}
	}
	c.awaitLeader()
	return c
}

func stop(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

// awaitLeader waits until every server is known to the leader, so that it can place three replicas.
func (c *Cluster) awaitLeader() {
	c.tb.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); <-tick.C {
		for _, srv := range c.servers {
			if srv.JetStreamIsLeader() && len(srv.JetStreamClusterPeers()) == len(c.servers) {
				return
			}
		}
	}
	c.tb.Fatal("JetStream has no leader after 30 s")
}

// Kill stops server i, counted from 0, for good.
func (c *Cluster) Kill(i int) { stop(c.servers[i]) }

// URL is where server i listens.
func (c *Cluster) URL(i int) string { return c.servers[i].ClientURL() }

// Connect connects to server i alone until the test ends.
func (c *Cluster) Connect(i int) *nats.Conn {
	c.tb.Helper()
	nc, err := nats.Connect(c.URL(i), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.IgnoreDiscoveredServers())
	if err != nil {
		c.tb.Fatalf("connect to nats-server: %v", err)
	}
	c.tb.Cleanup(nc.Close)
	return nc
}
