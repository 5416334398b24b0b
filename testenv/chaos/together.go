package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/testenv"
)

// everything goes wrong at once, except that of three nodes two are always there.
func everything(ctx context.Context, w *world) (string, error) {
	nodes := func(ctx context.Context, w *world) (string, error) {
		if err := w.fullFor(ctx, 2, w.pace.load/4); err != nil {
			return "", err
		}
		if err := w.caughtUp(ctx); err != nil {
			return "", err
		}
		return shakeCluster(ctx, w)
	}
	_, err := together(ctx, w, killWorkers, freezeWorkers, cutWorkers, nodes)
	return "all of the above at once, R3", err
}

// together does the parts at once, each with draws of its own, so that the order of the others does not matter.
func together(ctx context.Context, w *world, parts ...func(context.Context, *world) (string, error)) (done []string, err error) {
	done, errs := make([]string, len(parts)), make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() { done[i], errs[i] = part(ctx, w.drawing(uint64(i))) })
	}
	all.Wait()
	return done, errors.Join(errs...)
}

// disturb kills, ends and stops workers in turn, and fills the disk if it is a small one.
func disturb(ctx context.Context, w *world) (string, error) {
	done, err := together(ctx, w, harmWorkers, spoilProxies, func(ctx context.Context, w *world) (string, error) {
		if !w.servers.disks[0].mounted {
			return "no disk filled", nil
		}
		return fillDisk(ctx, w)
	})
	return strings.Join(done, "; "), err
}

// disturbAndOwn does so while the owner of the streams edits and deletes.
func disturbAndOwn(ctx context.Context, w *world) (string, error) {
	done, err := together(ctx, w, harmWorkers, spoilProxies, own)
	return strings.Join(done, "; "), err
}

// harmWorkers does what a supervisor, an operator and a laptop's lid do, to one worker after the other.
func harmWorkers(ctx context.Context, w *world) (string, error) {
	n := 0
	for ; ctx.Err() == nil; n++ {
		sleep(ctx, w.pace.between)
		p := w.victim()
		switch w.rng.IntN(3) {
		case 0:
			w.signal(p, syscall.SIGKILL)
		case 1:
			w.signal(p, syscall.SIGTERM)
		case 2:
			w.signal(p, syscall.SIGSTOP)
			sleep(ctx, w.pace.freeze)
			w.signal(p, syscall.SIGCONT)
			continue
		}
		if !p.wait(drainLimit) {
			return "", fmt.Errorf("%s did not end within its drain timeout", p.name)
		}
		w.hands.Lock()
		err := p.start()
		w.hands.Unlock()
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("a worker killed, ended or stopped %d times", n), nil
}

// spoilProxies lets one good proxy after the other misbehave for a while.
func spoilProxies(ctx context.Context, w *world) (string, error) {
	modes := []testenv.Mode{testenv.Refusing, testenv.Silent, testenv.SilentAfter, testenv.Unauthorized, testenv.BadGateway, testenv.Garbage, testenv.Cutting}
	n := 0
	for ; ctx.Err() == nil; n++ {
		p := w.proxies[w.rng.IntN(8)]
		p.Set(modes[w.rng.IntN(len(modes))])
		sleep(ctx, w.pace.between)
		p.Set(testenv.Good)
	}
	return fmt.Sprintf("a proxy spoiled %d times", n), nil
}

// signal sends a signal, unless the workers have to stand still.
func (w *world) signal(p *process, s syscall.Signal) {
	w.hands.Lock()
	defer w.hands.Unlock()
	p.signal(s)
}

// grow gives every stream three replicas in the midst of the load, while workers die, and waits until the replicas are current,
// as gofer setup does. Then leaders move and nodes die; half of the jobs come only now.
func grow(ctx context.Context, w *world) (string, error) {
	done, err := together(ctx, w, harmWorkers, func(ctx context.Context, w *world) (string, error) {
		defer w.resume()
		sleep(ctx, w.pace.load/4)
		began := time.Now()
		w.settings.Replicas = 3
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		err := until(limited, func(context.Context) error { _, err := w.client.Apply(limited, w.settings); return err })
		if err != nil {
			return "", err
		}
		if err := w.caughtUp(ctx); err != nil {
			return "", err
		}
		fmt.Fprintf(w.progress, "  three replicas are current after %s\n", time.Since(began).Round(100*time.Millisecond))
		w.resume()
		return shakeCluster(ctx, w)
	})
	return "from one replica to three while jobs wait; then " + strings.Join(done, "; "), err
}
