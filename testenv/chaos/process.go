package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/testenv/servers"
)

// tools are the built programs.
type tools struct{ gofer, server, next string }

// build builds gofer and the nats-server of this module's version.
func build(ctx context.Context, dir string) (tools, error) {
	built, err := servers.Build(ctx, dir)
	return tools{gofer: built.Gofer, server: built.Server}, err
}

// process is a program that is started again and again under one name, with one log.
type process struct {
	name string
	log  string // path
	path string
	args []string
	env  []string

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts it. It dies with this program, whatever happens to that.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.path, p.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(cleanEnv(), p.env...), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	p.cmd, p.done = cmd, done
	return nil
}

// cleanEnv is the environment without the variables of a gofer that its owner may have set.
func cleanEnv() (out []string) {
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GOFER_") {
			out = append(out, v)
		}
	}
	return out
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// kill ends it as a power switch would, and waits for that.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	p.wait(time.Minute)
}

// wait reports whether it ended in time.
func (p *process) wait(limit time.Duration) bool {
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done == nil {
		return true
	}
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

// said waits until a line of the log matches, for at most a minute, and returns its first group.
func (p *process) said(ctx context.Context, pattern string) (string, error) {
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(time.Minute); time.Now().Before(end) && ctx.Err() == nil; sleep(ctx, 50*time.Millisecond) {
		if found := p.find(re); found != nil {
			return found[len(found)-1], nil
		}
	}
	return "", errors.Join(fmt.Errorf("%s did not say %q", p.name, pattern), ctx.Err())
}

func (p *process) find(re *regexp.Regexp) (last []string) {
	f, err := os.Open(p.log)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if m := re.FindStringSubmatch(lines.Text()); m != nil {
			last = m
		}
	}
	return last
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
