package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/worker"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/daemon"
)

// Explain returns an error on one line and, if a setting of gofer or of the server repairs it, what to do.
func Explain(err error) string {
	var lines []string
	// The consumers of a queue mostly fail for one reason.
	for _, line := range Lines(err) {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

// Lines are the lines of an error: those of each error that was joined, and each reason of a configuration. A line end
// within an error's text comes from untrusted input, and ends no line. If a setting of gofer or of the server repairs
// the error, its line says what to do. It names the variable where a package names the field of its Config.
func Lines(err error) (lines []string) {
	if err == nil {
		return nil
	}
	var parts []error
	// A type switch and not errors.As: the parts of this error are taken apart one level at a time.
	switch e := any(err).(type) { // of this error, not of one that it wraps
	case *Error:
		return e.lines()
	case interface{ Unwrap() []error }:
		parts = e.Unwrap()
	case interface{ Unwrap() error }:
		// A wrapper with a text of its own keeps it: below, only a text that equals its parts is replaced by them.
		parts = []error{e.Unwrap()}
	}
	var texts []string
	for _, part := range parts {
		if part == nil {
			continue
		}
		texts = append(texts, part.Error())
		lines = append(lines, Lines(part)...)
	}
	switch text := withVariable(err); {
	// The error is nothing but its parts, so the parts speak for themselves.
	case len(texts) > 0 && err.Error() == strings.Join(texts, "\n"):
		return lines
	case text == "":
		return nil
	default:
		if remedy := remedyOf(err); remedy != "" {
			text += ": " + remedy
		}
		return []string{text}
	}
}

// remedyOf returns what to do about an error; empty if that is not known, or if the error itself says it.
func remedyOf(err error) string {
	if setup, ok := errors.AsType[*bus.SetupError](err); ok {
		return setupRemedy(setup)
	}
	if bad, ok := errors.AsType[*bus.UnchangeableError](err); ok {
		return Repair(bad.Difference)
	}
	if bad, ok := errors.AsType[*bus.UnusableError](err); ok {
		return repairs(bad.Differences)
	}
	if bad, ok := errors.AsType[*worker.StreamsError](err); ok {
		return repairs(bad.Differences)
	}
	// The first remedy in the list wins, so the more special ones stand first.
	for _, known := range remedies() {
		if errors.Is(err, known.cause) {
			return known.remedy
		}
	}
	return ""
}

// remedies are the remedies of the errors that a variable repairs, whatever their text. Errors whose remedy depends on
// what the server said have a type, which remedyOf asks first.
func remedies() []struct {
	cause  error
	remedy string
} {
	return []struct {
		cause  error
		remedy string
	}{
		{worker.ErrRetriesNearlyFull, "raise GOFER_JOBS_MAX_BYTES and run gofer setup, or wait until jobs have ended"},
		{bus.ErrQueueFull, "try again later, or raise GOFER_JOBS_MAX_MSGS or GOFER_JOBS_MAX_BYTES and run gofer setup"},
		{bus.ErrTooManyResults, "run gofer setup, which takes that limit from the stream"},
		{bus.ErrNoStorage, "raise max_file of the account or max_file_store of the server, free disk space, or lower GOFER_RESULTS_MAX_AGE and run gofer setup"},
		{bus.ErrResultsFull, "raise GOFER_RESULTS_MAX_BYTES and run gofer setup, or free disk space"},
		{bus.ErrDeadLettersFull, "gofer dead purge makes room, and gofer setup lets the stream drop its oldest ones again; if the account or the disk is full, make room there"},
		{bus.ErrBucketFull, "raise GOFER_RESULTS_MAX_BYTES and run gofer setup, which raises the limit of the bucket too, or free disk space"},
		{bus.ErrCredentials, "check GOFER_NATS_CREDS, _NKEY, _USER, _PASSWORD and _TOKEN, or those of the context"},
		{bus.ErrNoJetStream, "set GOFER_NATS_JS_DOMAIN for that"},
		{admin.ErrNoToken, "set GOFER_ADMIN_TOKEN, or use 127.0.0.1"},
		{daemon.ErrNoProxies, "gofer proxies add URL gives the fleet one; or set GOFER_PROXIES, GOFER_PROXIES_FILE or GOFER_PROXIES_URL"},
		// A cluster that has just lost its majority answers nothing until it knows that. A server that could not write to its disk takes
		// no messages for the streams concerned until it is restarted.
		{bus.ErrNotAnswered, "perhaps its cluster has no leader, or its disk was full: look whether all servers of the NATS cluster run (nats server list), start those that are down, and restart one that logged a critical write error"},
	}
}

// withVariable returns the text of an error. If the error names a field of bus.Dial, the variable stands in place of the
// field: packages below know no variables.
func withVariable(err error) string {
	text := err.Error()
	bad, ok := errors.AsType[*bus.FieldError](err)
	if !ok {
		return text
	}
	variables := map[string]string{
		"InboxPrefix": "GOFER_NATS_INBOX_PREFIX", "TLSFirst": "GOFER_NATS_TLS_FIRST", "Cert, Key": "GOFER_NATS_CERT, GOFER_NATS_KEY",
	}
	variable := cmp.Or(variables[bad.Field], "GOFER_NATS_"+strings.ToUpper(bad.Field))
	// Replaced once: the field's name may occur in the text again.
	return strings.Replace(text, bad.Error(), variable+": "+bad.Err.Error(), 1)
}

// setupRemedy is what to do when the server refuses a stream or a consumer, by the error code of JetStream
// (nats-server/server/errors.json). The text of the error names the problem; this names the setting that repairs it. An
// unknown code has no remedy, rather than a guess.
func setupRemedy(e *bus.SetupError) string {
	switch e.Code {
	case 10113:
		return "set GOFER_JOBS_MAX_BYTES and GOFER_RESULTS_MAX_BYTES, so that every stream has a limit"
	case 10122:
		return "set GOFER_JOBS_MAX_BYTES and GOFER_RESULTS_MAX_BYTES, both of them and lower, or raise the account's store_max_stream_bytes"
	case 10002, 10028, 10047:
		return "set GOFER_JOBS_MAX_BYTES and GOFER_RESULTS_MAX_BYTES, both of them and lower, or raise max_file of the account or max_file_store of the server"
	case 10027:
		return "raise the account's max_streams: gofer needs 11"
	case 10026:
		return "raise max_consumers of the account or the stream, or serve fewer queues: GOFER_QUEUES"
	case 10074:
		return "set GOFER_REPLICAS=1, or run a cluster of nats-server"
	case 10005, 10023:
		return "are as many servers up as GOFER_REPLICAS says, and have they room?"
	case 10120:
		return "give the account limits for streams of as many replicas as GOFER_REPLICAS says, or change that"
	case 10099, 10100:
		return "delete it with nats consumer rm, for one consumer alone may take a queue's jobs"
	case 10065:
		return "take the subject from it, or choose another GOFER_PREFIX"
	}
	return ""
}

// repairs returns how to repair all differences, each repair once: those of an old installation mostly have the same one.
func repairs(differences []bus.Difference) string {
	var out []string
	seen := map[string]bool{}
	for _, d := range differences {
		if text := Repair(d); text != "" && !seen[text] {
			seen[text] = true
			out = append(out, text)
		}
	}
	return strings.Join(out, "; ")
}

// Repair says how to repair one difference. It promises nothing of gofer setup that the server refuses. Empty means
// that nothing is to be done, or that the difference itself says it.
func Repair(d bus.Difference) string {
	if d.Refused != "" {
		// The code of the refusal may have a remedy of its own.
		return setupRemedy(&bus.SetupError{Code: d.Code}) // or said with the difference
	}
	switch d.Repair {
	case bus.ByCreation:
		return "a worker or gofer setup creates it, or says what the server has against that"
	case bus.ByUpdate:
		return "gofer setup changes it"
	case bus.ByRecreation:
		return "gofer setup deletes the consumer and creates it again, and the jobs that run then are fetched again"
	case bus.ByOwner:
		if kind, name, ok := strings.Cut(d.Name, " "); ok && kind == "stream" {
			return fmt.Sprintf("the server never changes that: save what is in it with nats stream backup %[1]s DIR, delete it with nats stream rm %[1]s, and run gofer setup", name)
		}
		return "the server never changes that: delete the consumer with nats consumer rm, and run gofer setup; its readers begin again with the oldest message"
	case bus.OwnersChoice:
		// What an owner may choose needs no repair, unless it costs jobs: then it is another stream that takes them.
		if d.Use == bus.Unusable || d.Use == bus.Lossy {
			return "that takes jobs away: delete the other stream with nats stream rm, or let it copy results, events or dead letters only"
		}
	}
	return ""
}

// joined returns an error with these lines; Lines returns them again as they are.
func joined(lines []string) error {
	errs := make([]error, len(lines))
	for i, line := range lines {
		errs[i] = errors.New(line)
	}
	return errors.Join(errs...)
}
