package deploy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// certificates makes an authority and a certificate that it signs for the servers of the cluster, in a folder of its own.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	dir := t.TempDir()
	sign := func(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		if parentKey == nil {
			parentKey = own
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &own.PublicKey, parentKey)
		must(t, err)
		return der, own
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o644)) // a container's user reads it
		return path
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gofer test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, caKey := sign(authority, authority, nil)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "nats"}, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"nats-1", "nats-2", "nats-3", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, leafKey := sign(leaf, authority, caKey)
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	must(t, err)
	return write("ca.pem", "CERTIFICATE", caDER), write("cert.pem", "CERTIFICATE", der), write("key.pem", "EC PRIVATE KEY", keyDER)
}

// startCluster runs three servers with cluster.conf on loopback, where they find each other by ports instead of names.
func startCluster(t *testing.T) (urls []string, ca string, servers []*server.Server) {
	t.Helper()
	testenv.DependOn(t, folder+"cluster.conf", folder+"server.conf")
	passwords(t, "worker", "admin", "publisher", "reader")
	ca, cert, key := certificates(t)
	t.Setenv("NATS_CA", ca)
	t.Setenv("NATS_CERT", cert)
	t.Setenv("NATS_KEY", key)
	var routes []*url.URL
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: l.Addr().String()})
		must(t, l.Close())
	}
	for i := range routes {
		t.Setenv("NATS_NAME", fmt.Sprint("nats-", i+1))
		t.Setenv("NATS_STORE", t.TempDir())
		opts, err := server.ProcessConfigFile(folder + "cluster.conf")
		must(t, err)
		opts.Host, opts.Port, opts.HTTPPort, opts.NoLog, opts.NoSigs = "127.0.0.1", server.RANDOM_PORT, 0, true, true
		opts.Routes, opts.Cluster.Host = routes, "127.0.0.1"
		_, port, err := net.SplitHostPort(routes[i].Host)
		must(t, err)
		_, err = fmt.Sscan(port, &opts.Cluster.Port)
		must(t, err)
		srv, err := server.NewServer(opts)
		must(t, err)
		srv.Start()
		t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
		servers = append(servers, srv)
	}
	for _, srv := range servers {
		if !srv.ReadyForConnections(testenv.Patience) {
			t.Fatal("nats-server is not ready")
		}
		urls = append(urls, strings.Replace(srv.ClientURL(), "nats://", "tls://", 1))
	}
	testenv.Eventually(t, "a leader that knows three servers", func() bool {
		for _, srv := range servers {
			if srv.JetStreamIsLeader() && len(srv.JetStreamClusterPeers()) == 3 {
				return true
			}
		}
		return false
	})
	return urls, ca, servers
}

// TestAClusterOfThreeKeepsJobsInThreePlaces submits on one server and reads on another.
func TestAClusterOfThreeKeepsJobsInThreePlaces(t *testing.T) {
	urls, ca, _ := startCluster(t)
	open := func(i int, user string) *bus.Client {
		nc, err := bus.Connect(soon(t), bus.Dial{URL: urls[i], CA: ca, User: user, Password: "p-" + user, InboxPrefix: "_INBOX_" + user}, nil)
		must(t, err)
		t.Cleanup(nc.Close)
		return clientOn(t, nc)
	}
	admin := open(0, "admin")
	testenv.Eventually(t, "the set-up", func() bool {
		_, err := admin.Apply(soon(t), bus.Settings{Replicas: 3})
		return err == nil
	})
	stream, err := admin.JetStream().Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	if got := stream.CachedInfo().Config.Replicas; got != 3 {
		t.Errorf("got %d replicas, want 3", got)
	}
	worker := open(1, "worker")
	testenv.Eventually(t, "a stored result", func() bool {
		_, err := worker.StoreResult(soon(t), success("a"))
		return err == nil
	})
	publisher := open(2, "publisher")
	testenv.Eventually(t, "the result on another server", func() bool {
		r, err := publisher.Result(soon(t), "default", "a")
		return err == nil && string(r.Body) == "page"
	})
}

func TestTheClusterTalksTLSOnly(t *testing.T) {
	urls, ca, servers := startCluster(t)
	plain := nats.UserInfo("admin", "p-admin")
	if _, err := nats.Connect(strings.Replace(urls[0], "tls://", "nats://", 1), plain); err == nil {
		t.Error("a client that does not trust the authority is let in")
	}
	if _, err := nats.Connect(urls[0], nats.RootCAs(ca)); err == nil {
		t.Error("a client without a password is let in")
	}
	// A server without a certificate of the authority is no member.
	_, other, otherKey := certificates(t)
	pair, err := tls.LoadX509KeyPair(other, otherKey)
	must(t, err)
	for what, certs := range map[string][]tls.Certificate{"no certificate": nil, "a certificate of another authority": {pair}} {
		if err := route(t, servers[0].ClusterAddr().String(), certs); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a server with %s: got %v, want it refused", what, err)
		}
	}
	must(t, route(t, servers[0].ClusterAddr().String(), []tls.Certificate{mine(t)}))
}

// mine is the certificate that the cluster's servers have.
func mine(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(os.Getenv("NATS_CERT"), os.Getenv("NATS_KEY"))
	must(t, err)
	return pair
}

// route makes the TLS handshake of a server that wants to be a member, and reads the first byte of the other's.
func route(t *testing.T, addr string, certs []tls.Certificate) error {
	t.Helper()
	plain, err := net.Dial("tcp", addr)
	must(t, err)
	defer func() { _ = plain.Close() }()
	conn := tls.Client(plain, &tls.Config{Certificates: certs, InsecureSkipVerify: true}) //nolint:gosec // the question is what the server checks
	if err := conn.Handshake(); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}
