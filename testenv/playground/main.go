// Command playground runs a gofer worker in a world of its own: a dozen forward proxies on loopback, some of them slow,
// refusing, silent or banned, and a small site, http://shop.test/, that only these proxies can resolve. When proxies are named
// in the environment it runs the worker with those and starts nothing else.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/testenv"
)

func main() {
	gofer := flag.String("gofer", "bin/gofer", "the gofer program to run")
	flag.Parse()
	if err := run(*gofer, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "playground:", err)
		os.Exit(1)
	}
}

func run(gofer string, out io.Writer) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	environ := os.Environ()
	named := os.Getenv("GOFER_PROXIES") != "" || os.Getenv("GOFER_PROXIES_FILE") != ""
	if !named {
		file, stop, err := world()
		if err != nil {
			return err
		}
		defer stop()
		environ = append(environ, "GOFER_PROXIES_FILE="+file)
		if os.Getenv("GOFER_ATTEMPT_TIMEOUT") == "" {
			// The silent proxy would hold its first jobs for the usual 30 s.
			environ = append(environ, "GOFER_ATTEMPT_TIMEOUT=3s")
		}
	}
	addr, page, free := door()
	if free {
		environ = append(environ, "GOFER_HTTP_ADDR="+addr)
	}
	cmd := exec.Command(gofer, "worker")
	cmd.Env, cmd.Stdout, cmd.Stderr = environ, os.Stdout, os.Stderr
	// A group of its own: a Ctrl-C of the terminal reaches the worker through us, once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var helpers sync.WaitGroup
	helpers.Go(func() { pass(ctx, signals, cmd.Process) })
	helpers.Go(func() {
		// Whoever else listens there may be ready, too; the worker will say that it cannot.
		if free && ready(ctx, page) {
			_, _ = fmt.Fprint(out, next(gofer, page, !named))
		}
	})
	err := cmd.Wait()
	cancel()
	helpers.Wait()
	return err
}

// pass hands signals on: the first drains the worker, the second ends it.
func pass(ctx context.Context, signals <-chan os.Signal, worker *os.Process) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			_ = worker.Signal(syscall.SIGTERM)
		}
	}
}

// door is where the worker will listen, with a port in place of 0, how a browser gets there, and whether nobody does yet.
func door() (addr, page string, free bool) {
	l, err := net.Listen("tcp", cmp.Or(os.Getenv("GOFER_HTTP_ADDR"), "127.0.0.1:9090"))
	if err != nil {
		return "", "", false
	}
	defer func() { _ = l.Close() }()
	at := *l.Addr().(*net.TCPAddr)
	addr = at.String()
	if at.IP.IsUnspecified() {
		at.IP = net.IPv4(127, 0, 0, 1)
	}
	return addr, "http://" + at.String(), true
}

// ready waits until the worker takes jobs.
func ready(ctx context.Context, page string) bool {
	for ctx.Err() == nil {
		resp, err := http.Get(page + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return true
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return false
}

func next(gofer, page string, playing bool) string {
	text := `
The worker is ready. In another terminal:

  ` + gofer + ` submit --wait https://example.com/
  ` + gofer + ` events
  ` + gofer + ` --help

The dashboard is at ` + page + `/. Ctrl-C ends it.
`
	if !playing {
		return text
	}
	return `
The worker is ready, with 12 proxies: 7 good, 2 slow, 1 that refuses, 1 that says nothing, 1 that is banned.
In another terminal:

  ` + gofer + ` submit --wait http://shop.test/
  ` + gofer + ` submit --wait http://shop.test/flaky
  echo '{"url":"http://shop.test/","ban":{"statuses":[403]}}' | ` + gofer + ` submit --wait -
  ` + gofer + ` events --all
  curl -s ` + page + `/api/v1/circuit-breakers

The dashboard is at ` + page + `/. Ctrl-C ends all of it.
`
}

// kinds are the proxies: how many of each, and how they behave.
func kinds() []struct {
	name  string
	mode  testenv.Mode
	count int
} {
	return []struct {
		name  string
		mode  testenv.Mode
		count int
	}{
		{"good", testenv.Good, 7}, {"slow", testenv.Slow, 2}, {"refusing", testenv.Refusing, 1},
		{"silent", testenv.Silent, 1}, {"banned", testenv.Banned, 1},
	}
}

// world starts the site and the proxies, and writes the proxies file.
func world() (file string, stop func(), err error) {
	var closers []func()
	stop = func() {
		for _, c := range closers {
			c()
		}
	}
	site, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", stop, err
	}
	server := &http.Server{Handler: testenv.Shop(), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(site) }()
	closers = append(closers, func() { _ = server.Close() })
	resolve := func(target string) string {
		if strings.HasPrefix(target, "shop.test:") {
			return site.Addr().String()
		}
		return ""
	}
	var lines []string
	for _, k := range kinds() {
		for i := range k.count {
			p := &testenv.Proxy{Resolve: resolve, Delay: 700 * time.Millisecond}
			p.Set(k.mode)
			if err := p.Start("127.0.0.1:0"); err != nil {
				return "", stop, err
			}
			closers = append(closers, p.Close)
			lines = append(lines, fmt.Sprintf("%s id=%s-%d tags=%s region=%s", p.URL("http"), k.name, i+1, k.name, []string{"eu", "us"}[i%2]))
		}
	}
	dir, err := os.MkdirTemp("", "gofer-playground")
	if err != nil {
		return "", stop, err
	}
	closers = append(closers, func() { _ = os.RemoveAll(dir) })
	file = filepath.Join(dir, "proxies.txt")
	return file, stop, os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600)
}
