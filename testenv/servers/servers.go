// Package servers builds gofer and nats-server, and configures servers that run as processes of their own, alone or as a cluster.
package servers

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are the paths of the built programs.
type Programs struct{ Gofer, Server string }

// Build builds gofer and the nats-server of this module's version into a folder.
func Build(ctx context.Context, dir string) (Programs, error) {
	p := Programs{Gofer: filepath.Join(dir, "gofer"), Server: filepath.Join(dir, "nats-server")}
	for path, pkg := range map[string]string{p.Gofer: "github.com/gofer-mq/gofer/cmd/gofer", p.Server: "github.com/nats-io/nats-server/v2"} {
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
			return p, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return p, nil
}

// Config says which servers there are.
type Config struct {
	// Dir holds the configuration of each server, and its store.
	Dir   string
	Count int // a cluster if more than one
	// Cluster is the name of the cluster.
	Cluster string
	// NoAdvertise keeps the addresses of the others from clients: a client that is cut from its server must not find a way round.
	NoAdvertise bool
	// Pages gives each server a page with its numbers.
	Pages bool
	// MaxFile is how much a server may store, such as 20G; empty means its own default.
	MaxFile string
}

// Node is a server that is configured and not started: nats-server gets Args. Its store is the folder Store, which exists.
type Node struct {
	Addr, Store, Config string
	Page                string // http://host:port; empty without Pages
}

// Args are the arguments of nats-server.
func (n Node) Args() []string { return []string{"-c", n.Config} }

// Configure writes the configurations.
func Configure(cfg Config) (nodes []Node, err error) {
	addrs, err := freeAddrs(3 * cfg.Count)
	if err != nil {
		return nil, err
	}
	clients, routes, pages := addrs[:cfg.Count], addrs[cfg.Count:2*cfg.Count], addrs[2*cfg.Count:]
	limit := ""
	if cfg.MaxFile != "" {
		limit = ", max_file: " + cfg.MaxFile
	}
	for i, addr := range clients {
		name := fmt.Sprint("node", i)
		n := Node{Addr: addr, Store: filepath.Join(cfg.Dir, name), Config: filepath.Join(cfg.Dir, name+".conf")}
		text := fmt.Sprintf("server_name: %s\nlisten: %s\njetstream { store_dir: %q%s }\n", name, addr, n.Store, limit)
		if cfg.Pages {
			n.Page = "http://" + pages[i]
			text += "http: " + pages[i] + "\n"
		}
		if cfg.Count > 1 {
			text += fmt.Sprintf("cluster { name: %s, listen: %s, no_advertise: %t, routes: [\"nats://%s\"] }\n",
				cfg.Cluster, routes[i], cfg.NoAdvertise, strings.Join(routes, `", "nats://`))
		}
		if err := os.MkdirAll(n.Store, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(n.Config, []byte(text), 0o600); err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// freeAddrs are loopback addresses that nothing listens on now.
func freeAddrs(n int) (out []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		out = append(out, l.Addr().String())
	}
	return out, nil
}

// URL is the addresses of all servers.
func URL(nodes []Node) string {
	var urls []string
	for _, n := range nodes {
		urls = append(urls, "nats://"+n.Addr)
	}
	return strings.Join(urls, ",")
}
