package main

import (
	"context"
	"net"
	"sync"
	"time"
)

// link stands between a worker and its servers. While it is cut nothing passes in either direction and nothing is
// reset; what was under way arrives late, as after a real partition.
type link struct {
	listener net.Listener
	targets  []string

	mu    sync.Mutex
	open  chan struct{} // closed while traffic passes
	conns sync.WaitGroup
	stop  context.CancelFunc
}

func newLink(targets []string) (*link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	open := make(chan struct{})
	close(open)
	ctx, stop := context.WithCancel(context.Background())
	k := &link{listener: l, targets: targets, open: open, stop: stop}
	k.conns.Go(func() { k.accept(ctx) })
	return k, nil
}

func (k *link) addr() string { return k.listener.Addr().String() }

// cut stops the traffic until join.
func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open = make(chan struct{})
}

func (k *link) join() {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.open:
	default:
		close(k.open)
	}
}

// close ends every connection and waits for that.
func (k *link) close() {
	k.join()
	k.stop()
	_ = k.listener.Close()
	k.conns.Wait()
}

func (k *link) accept(ctx context.Context) {
	for next := 0; ; next++ {
		c, err := k.listener.Accept()
		if err != nil {
			return
		}
		k.conns.Go(func() { k.carry(ctx, c, next) })
	}
}

// carry joins c with the first server that answers, another one first at each connection.
func (k *link) carry(ctx context.Context, c net.Conn, next int) {
	defer func() { _ = c.Close() }()
	k.passable(ctx)
	for i := range k.targets {
		s, err := net.DialTimeout("tcp", k.targets[(next+i)%len(k.targets)], time.Second)
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { _, _ = c.Close(), s.Close() })
		defer stop()
		var ways sync.WaitGroup
		ways.Go(func() { k.pass(ctx, s, c) })
		ways.Go(func() { k.pass(ctx, c, s) })
		ways.Wait()
		return
	}
}

func (k *link) pass(ctx context.Context, to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		k.passable(ctx)
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// passable waits while the link is cut.
func (k *link) passable(ctx context.Context) {
	k.mu.Lock()
	open := k.open
	k.mu.Unlock()
	select {
	case <-open:
	case <-ctx.Done():
	}
}
