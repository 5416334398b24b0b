package config_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// TestErrorsNameTheVariableAndTheRemedy: packages name the field of their Config, or nothing.
func TestErrorsNameTheVariableAndTheRemedy(t *testing.T) {
	tlsFirst := &bus.FieldError{Field: "TLSFirst", Err: errors.New("it is set")}
	for _, c := range []struct {
		err  error
		want string
	}{
		{bus.Dial{URL: "nats://a", Password: "p"}.Check(), "NATS has to be set up differently: GOFER_NATS_PASSWORD: given without a user name"},
		{fmt.Errorf("connect: %w (%w)", bus.ErrUnreachable, tlsFirst), "connect: NATS cannot be reached (GOFER_NATS_TLS_FIRST: it is set)"},
		{&bus.FieldError{Field: "InboxPrefix", Err: errors.New("bad")}, "GOFER_NATS_INBOX_PREFIX: bad"},
		{&bus.FieldError{Field: "Cert, Key", Err: errors.New("bad")}, "GOFER_NATS_CERT, GOFER_NATS_KEY: bad"},
		{fmt.Errorf("submit job a: %w", bus.ErrQueueFull), "submit job a: the queue is full: try again later, or raise GOFER_JOBS_MAX_MSGS or GOFER_JOBS_MAX_BYTES and run gofer setup"},
		{errors.Join(daemon.ErrNoProxies, nil, bus.ErrCredentials), "no proxy is configured: gofer proxies add URL gives the fleet one; or set GOFER_PROXIES, GOFER_PROXIES_FILE or GOFER_PROXIES_URL; " +
			"NATS refuses these credentials: check GOFER_NATS_CREDS, _NKEY, _USER, _PASSWORD and _TOKEN, or those of the context"},
		{bus.Plain(fmt.Errorf("look for stream GOFER_JOBS: %w", context.DeadlineExceeded)), "look for stream GOFER_JOBS: the NATS server did not answer in time: " +
			"perhaps its cluster has no leader, or its disk was full: look whether all servers of the NATS cluster run (nats server list), start those that are down, and restart one that logged a critical write error"},
		{fmt.Errorf("store: %w", bus.ErrNoStorage), "store: there is no room for results: the storage of the account or of the server is used up: raise max_file of the account or " +
			"max_file_store of the server, free disk space, or lower GOFER_RESULTS_MAX_AGE and run gofer setup"},
		{&worker.StreamsError{Differences: []bus.Difference{{Name: "stream J", Field: "mirrored or sourced by", Have: "stream M", Want: "no stream", Use: bus.Lossy, Repair: bus.OwnersChoice}}},
			"stream J: mirrored or sourced by is stream M, no stream is wanted: that takes jobs away: delete the other stream with nats stream rm, or let it copy results, events or dead letters only"},
		{errors.New("a line\nof a stranger"), "a line\nof a stranger"},
		{&config.Error{Reasons: []string{"A: bad", "B: bad"}}, "configuration: A: bad; configuration: B: bad"},
	} {
		if got := config.Explain(c.err); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
	if got := config.Lines(nil); got != nil {
		t.Errorf("no error has the lines %q", got)
	}
}
