package testenv

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Traffic counts what clients send to a server, by subject. It is a logger of the server: traces name each message that comes in,
// whether or not it has a reply subject, and nobody else's subscription changes what a request meets.
type Traffic struct {
	client string
	mu     sync.Mutex // guards sent
	sent   map[string]int
}

// Trace counts what the connections send that are made from now on and whose name begins with prefix; empty means all of them.
func (n *NATS) Trace(prefix string) *Traffic {
	n.tb.Helper()
	t := &Traffic{client: ":" + prefix, sent: map[string]int{}}
	n.srv.SetLogger(t, false, true)
	return t
}

// Sent is how many messages were sent to each subject since the last call.
func (t *Traffic) Sent() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	sent := t.sent
	t.sent = map[string]int{}
	return sent
}

// Tracef takes a trace of the server: the name of the client, an operation and its arguments.
func (t *Traffic) Tracef(format string, v ...any) {
	if !strings.Contains(format, t.client) || !strings.HasSuffix(format, "<<- %s") || len(v) != 1 {
		return
	}
	words := strings.Fields(strings.Trim(fmt.Sprint(v[0]), "[]"))
	if len(words) < 2 || !slices.Contains([]string{"PUB", "HPUB"}, words[0]) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent[words[1]]++
}

// Debugf and the others below are the rest of a logger.
func (t *Traffic) Debugf(string, ...any) {}

// Noticef takes nothing.
func (t *Traffic) Noticef(string, ...any) {}

// Warnf takes nothing.
func (t *Traffic) Warnf(string, ...any) {}

// Errorf takes nothing.
func (t *Traffic) Errorf(string, ...any) {}

// Fatalf takes nothing.
func (t *Traffic) Fatalf(string, ...any) {}
