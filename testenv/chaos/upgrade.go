package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/gofer-mq/gofer/jobs"
)

// oldCommit is the version before contract 1.1. Its workers know neither Job-Contract nor the fields that are new in 1.1.
const oldCommit = "979f215"

// errNoOldVersion: a clone of depth 1 has no history to build an old version from.
var errNoOldVersion = errors.New("the old version cannot be built")

// release is a version that the workers of a scenario are replaced by, or begin with.
type release int

const (
	today    release = iota // what is checked out
	before                  // oldCommit
	tomorrow                // what is checked out, with one more field of a job and a minor version more of the contract
)

// versions builds what a scenario runs beside today's version.
func (t tools) versions(ctx context.Context, s scenario, dir string) (tools, error) {
	t.next = t.gofer
	var err error
	switch {
	case s.from == before:
		t.gofer, err = buildOld(ctx, dir)
	case s.to == tomorrow:
		t.next, err = buildTomorrow(ctx, dir)
	}
	return t, err
}

// buildOld builds the old version from its commit, in a folder of its own: a git worktree would stay in the repository.
func buildOld(ctx context.Context, dir string) (string, error) {
	source, binary := filepath.Join(dir, oldCommit), filepath.Join(dir, "gofer-"+oldCommit)
	if err := os.MkdirAll(source, 0o700); err != nil {
		return "", err
	}
	root, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	archive, err := command(ctx, root, "git", "archive", oldCommit)
	if err != nil {
		return "", fmt.Errorf("%w: commit %s is not in this clone: %w", errNoOldVersion, oldCommit, err)
	}
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", source)
	unpack.Stdin = bytes.NewReader(archive)
	if out, err := unpack.CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpack the old version: %w: %s", err, out)
	}
	if _, err := command(ctx, source, "go", "build", "-buildvcs=false", "-o", binary, "./cmd/gofer"); err != nil {
		return "", fmt.Errorf("build the old version: %w", err)
	}
	return binary, nil
}

// newField is the field of a job that tomorrow's version knows. The contract that its jobs name lies between those of the
// two versions.
const newField, tomorrowsContract = "of_tomorrow", "1.2"

// buildTomorrow builds this version with two files replaced. Each text must be there exactly once.
func buildTomorrow(ctx context.Context, dir string) (string, error) {
	root, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	replaced := map[string]string{}
	for _, change := range []struct{ file, from, to string }{
		{"jobs/contract.go", "ContractMinor = 1\n", "ContractMinor = 3\n"},
		{"jobs/job.go", "\tcase \"url\":\n", "\tcase \"" + newField + "\":\n\t\treturn new(int)\n\tcase \"url\":\n"},
	} {
		path := filepath.Join(root, change.file)
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		if n := strings.Count(string(text), change.from); n != 1 {
			return "", fmt.Errorf("%s has %q %d times", change.file, change.from, n)
		}
		replaced[path] = filepath.Join(dir, "tomorrow-"+filepath.Base(path))
		if err := os.WriteFile(replaced[path], []byte(strings.Replace(string(text), change.from, change.to, 1)), 0o600); err != nil {
			return "", err
		}
	}
	overlay, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "gofer-tomorrow")
	if err := os.WriteFile(overlay, []byte(quoted(map[string]any{"Replace": replaced})), 0o600); err != nil {
		return "", err
	}
	_, err = command(ctx, "", "go", "build", "-overlay", overlay, "-o", binary, "github.com/gofer-mq/gofer/cmd/gofer")
	return binary, err
}

// moduleDir is the top of this repository.
func moduleDir(ctx context.Context) (string, error) {
	dir, err := command(ctx, "", "go", "list", "-m", "-f", "{{.Dir}}")
	return strings.TrimSpace(string(dir)), err
}

// command runs a program in a folder and returns what it prints.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	var out, errOut bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Dir, c.Env, c.Stdout, c.Stderr = dir, cleanEnv(), &out, &errOut
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, errOut.Bytes())
	}
	return out.Bytes(), nil
}

// verb runs a verb of a gofer against the servers of this world.
func (w *world) verb(ctx context.Context, gofer string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, gofer, args...)
	c.Env = append(cleanEnv(), "GOFER_NATS_URL="+w.servers.url(), fmt.Sprint("GOFER_REPLICAS=", w.settings.Replicas), "GOFER_QUEUES=default,idle")
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("gofer %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// install creates streams and buckets with the version that comes first, and writes a value into each bucket that has any.
func (w *world) install(ctx context.Context) error {
	for _, args := range [][]string{
		{"setup"}, {"policy", "set", `{"max_attempts":8,"base_delay":0.1,"max_backoff_delay":7}`}, {"deny", "add", "denied.test"}, {"pause", "idle", "--for", "1h"},
	} {
		if _, err := w.verb(ctx, w.tools.gofer, args...); err != nil {
			return err
		}
	}
	return nil
}

// upgrade replaces the workers in the order that deploy/README.md states: gofer setup, the workers one by one, the stream
// of rollups, the publishers.
func upgrade(ctx context.Context, w *world) (string, error) {
	sleep(ctx, w.pace.load/8)
	if err := w.setUpAllButRollups(ctx); err != nil {
		return "", err
	}
	if err := w.replaceWorkers(ctx); err != nil {
		return "", err
	}
	if err := w.client.JetStream().DeleteStream(ctx, "GOFER_ROLLUPS"); err != nil {
		return "", err
	}
	if _, err := w.verb(ctx, w.tools.next, "setup"); err != nil {
		return "", err
	}
	w.resume()
	if err := w.readsAll(context.WithoutCancel(ctx)); err != nil {
		return "", err
	}
	<-ctx.Done()
	return fmt.Sprintf("%d workers of an older version replaced one by one, then jobs with new fields", fleet), nil
}

// setUpAllButRollups runs gofer setup beside old workers. The old stream of rollups is the only thing that the server
// cannot change.
func (w *world) setUpAllButRollups(ctx context.Context) error {
	_, err := w.verb(ctx, w.tools.next, "setup")
	if err == nil || !strings.Contains(err.Error(), "nats stream rm GOFER_ROLLUPS") {
		return fmt.Errorf("gofer setup does not name the old stream of rollups: %w", err)
	}
	left, err := w.verb(ctx, w.tools.next, "setup", "--dry-run")
	for line := range strings.Lines(left) {
		if !strings.HasPrefix(line, "stream GOFER_ROLLUPS") && !strings.HasPrefix(line, "Nothing was changed") {
			return fmt.Errorf("gofer setup left this undone: %s", line)
		}
	}
	return err
}

// mixed replaces the workers while jobs of the newer contract come from the first moment on.
func mixed(ctx context.Context, w *world) (string, error) {
	sleep(ctx, w.pace.load/8)
	if err := w.replaceWorkers(ctx); err != nil {
		return "", err
	}
	<-ctx.Done()
	return fmt.Sprintf("%d workers replaced one by one by a newer version, whose contract a tenth of the jobs name", fleet), nil
}

// replaceWorkers ends one worker after the other and starts the next version in its place, over half of the load's time.
func (w *world) replaceWorkers(ctx context.Context) error {
	for _, p := range w.workers {
		p.signal(syscall.SIGTERM)
		if !p.wait(drainLimit) {
			return fmt.Errorf("%s did not end within its drain timeout", p.name)
		}
		p.path = w.tools.next
		p.log += ".next"
		if err := p.start(); err != nil {
			return err
		}
		if _, err := p.said(context.WithoutCancel(ctx), "worker started"); err != nil {
			return err
		}
		sleep(ctx, w.pace.load/(2*fleet))
	}
	return nil
}

// readsAll compares what the new version reads of what the old version wrote.
func (w *world) readsAll(ctx context.Context) error {
	for _, read := range []struct {
		args []string
		want string
	}{
		{[]string{"policy", "show", "--json"}, `"max_backoff_delay":7`}, {[]string{"deny", "ls", "--json"}, "denied.test"},
		{[]string{"queues", "--json"}, `"idle"`}, {[]string{"dead", "ls", "--json"}, kindFails + "-"},
		{[]string{"results", "--limit", "1", "--since", "1h", "--json"}, `"outcome"`}, {[]string{"setup", "--dry-run"}, ""},
	} {
		out, err := w.verb(ctx, w.tools.next, read.args...)
		if err != nil {
			return err
		}
		var compact bytes.Buffer
		if json.Compact(&compact, []byte(out)) != nil {
			compact.WriteString(out)
		}
		if !strings.Contains(compact.String(), read.want) {
			return fmt.Errorf("gofer %s does not show %s: %.500s", strings.Join(read.args, " "), read.want, out)
		}
	}
	return nil
}

// aged is the load of a publisher that waits for the new workers: no header and no new field before the second half, and
// then a tenth of the jobs has fields of contract 1.1.
func aged(w *world, n int) order {
	o := restOrder(w, n)
	if n < w.jobs/2 {
		return raw(o, "", "")
	}
	if n%10 == 0 {
		o.job.FirstByteTimeout, o.job.WhenSiteDown = jobs.AutoDuration(4*time.Second), jobs.SiteDownWait
	}
	return o
}

// early is the load of a publisher that is newer than most workers: a tenth of the jobs has the field of tomorrow and names
// its contract.
func early(w *world, n int) order {
	o := restOrder(w, n)
	if n%10 == 0 {
		return raw(o, `,"`+newField+`":1}`, tomorrowsContract)
	}
	return o
}

// restOrder is a plain job, or one for a site that rests: workers keep such jobs in places that older ones do not know.
func restOrder(w *world, n int) order {
	if n%100 != 51 {
		return plainOrder(w, n)
	}
	id := fmt.Sprintf("dead-%06d", n)
	job := tried(10, time.Second)(id, "http://"+deadSite+"/")
	limit := jobs.Duration(10 * time.Second)
	job.Retry.Timeout = &limit
	return order{id: id, job: job, waits: 10 * time.Second}
}

// raw is the order as a message of its own, with a tail in place of the last brace and a contract that the header names.
func raw(o order, tail, contract string) order {
	o.job.Queue = jobs.DefaultQueue
	payload, err := o.job.Encode()
	if err != nil {
		panic(err) // the jobs of this load are valid
	}
	if tail != "" {
		payload = append(payload[:len(payload)-1], tail...)
	}
	o.raw = &nats.Msg{Subject: "gofer.jobs.default." + o.id, Header: nats.Header{nats.MsgIdHdr: {nuid.Next()}}, Data: payload}
	if contract != "" {
		o.raw.Header.Set(jobs.HeaderContract, contract)
	}
	return o
}

// invalid counts the jobs that a worker did not understand. All jobs of these loads are valid.
func (l *ledger) invalid() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.results {
		if r.reason == jobs.ErrInvalidJob {
			n++
		}
	}
	return n
}

// newerDelay is the longest delay with which a worker hands back a job of a newer contract.
const newerDelay = 30 * time.Second
