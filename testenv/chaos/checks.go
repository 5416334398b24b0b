package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/client"
)

// maxOverdue is how long after its time a waiting job may wait.
const maxOverdue = 2 * time.Minute

// overdue lists the waiting jobs whose time passed long ago.
func (w *world) overdue(ctx context.Context) (ids []string, err error) {
	waiting, err := w.subjects(ctx, "GOFER_RETRIES", "_gofer.at.>")
	if err != nil {
		return nil, err
	}
	s, err := w.client.JetStream().Stream(ctx, "GOFER_RETRIES")
	if err != nil {
		return nil, err
	}
	for _, subject := range waiting {
		m, err := s.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		at, err := time.Parse(time.RFC3339Nano, strings.TrimPrefix(m.Header.Get(jetstream.ScheduleHeader), "@at "))
		if err != nil || time.Since(at) > maxOverdue {
			ids = append(ids, idOf(subject))
		}
	}
	return ids, nil
}

// letters compares the dead letters with the failed jobs, for a while in which the last ones may be written, and counts the jobs
// without one.
func (w *world) letters(ctx context.Context) (missing int, err error) {
	for end := time.Now().Add(3 * w.pace.ackWait); ; sleep(ctx, 200*time.Millisecond) {
		have := map[string]bool{}
		err = client.New(w.client).DeadLetters(ctx, func(l client.DeadLetter) error { have[l.ID] = true; return nil })
		missing = 0
		for _, id := range w.ledger.failed() {
			if !have[id] && !have[hashed(id)] {
				missing++
			}
		}
		if err == nil && missing == 0 || ctx.Err() != nil || time.Now().After(end) {
			return missing, err
		}
	}
}

// memory is the most memory that the process has ever had, in bytes.
func (p *process) memory() int64 {
	p.mu.Lock()
	cmd := p.cmd
	p.mu.Unlock()
	if cmd == nil {
		return 0
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// weigh notes the largest worker until ctx ends.
func (w *world) weigh(ctx context.Context) {
	for ; ctx.Err() == nil; sleep(ctx, 200*time.Millisecond) {
		for _, p := range w.workers {
			w.largest.Store(max(w.largest.Load(), p.memory()))
		}
	}
}

// maxSpareGoroutines is how many more goroutines than at its start an idle worker may have, those of connections left out.
const maxSpareGoroutines = 16

// goroutines counts those of a worker, and shows them. Connections to proxies that wait for their next use are left out: they
// have bounds and a time limit of their own.
func (p *process) goroutines(ctx context.Context) (n int, all string, err error) {
	addr, err := p.said(ctx, `"worker starting".*"http":"([0-9.:]+)"`)
	if err != nil {
		return 0, "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/debug/pprof/goroutine?debug=1", nil)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return 0, "", fmt.Errorf("ask %s for its goroutines: status %d: %w", p.name, resp.StatusCode, err)
	}
	for stack := range strings.SplitSeq(string(text), "\n\n") {
		count, frames, _ := strings.Cut(strings.TrimSpace(stack), " @ ")
		if k, err := strconv.Atoi(lastLine(count)); err == nil && !isConnection(frames) {
			n += k
		}
	}
	return n, string(text), nil
}

// idleGoroutines counts the goroutines of a worker that has nothing to do. On a slow machine its watches begin seconds after the
// worker says that it has started, so it counts the most of a second until a second brings no more.
func (p *process) idleGoroutines(ctx context.Context) (n int, err error) {
	for {
		most := 0
		for range 5 {
			count, _, err := p.goroutines(ctx)
			if err != nil {
				return 0, err
			}
			most = max(most, count)
			sleep(ctx, 200*time.Millisecond)
		}
		if most <= n {
			return most, nil
		}
		n = most
	}
}

// isConnection reports whether a stack is of a connection that a worker keeps for its next attempt, by HTTP/1 or HTTP/2.
func isConnection(frames string) bool {
	return strings.Contains(frames, "net/http.(*persistConn)") || strings.Contains(frames, "http2.(*clientConnReadLoop)") ||
		strings.Contains(frames, "net/http.(*http2clientConnReadLoop)")
}

func lastLine(text string) string { return text[strings.LastIndexByte(text, '\n')+1:] }

// leaks names the workers that have many more goroutines than a fresh one, once they had time to get rid of them.
func (w *world) leaks(ctx context.Context) (leaking []string, err error) {
	for _, p := range w.workers {
		var n int
		var all string
		for end := time.Now().Add(time.Minute); ; sleep(ctx, 500*time.Millisecond) {
			n, all, err = p.goroutines(ctx)
			if err == nil && n <= w.fresh+maxSpareGoroutines || ctx.Err() != nil || time.Now().After(end) {
				break
			}
		}
		if err != nil {
			return leaking, err
		}
		if n > w.fresh+maxSpareGoroutines {
			leaking = append(leaking, fmt.Sprintf("%s has %d goroutines, %d at its start", p.name, n, w.fresh))
			err = os.WriteFile(p.log+".goroutines", []byte(all), 0o600)
		}
	}
	return leaking, err
}
