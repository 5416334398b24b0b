package control

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/gofer-mq/gofer/jobs"
)

// How long the answers of a fleet are waited for. Nobody knows how many there will be: once the first one has come, a
// while without another ends it. That while grows with the way to the fleet, which the first answer has measured.
const (
	firstAnswer = 3 * time.Second
	quietFor    = 300 * time.Millisecond
)

// ErrNoWorkers tells that nobody answers: no worker runs, or none that was meant.
var ErrNoWorkers = errors.New("no worker answers")

// ErrUnknownVerb is an ErrNoWorkers: nobody listens to the verb. If workers run, they are older than it.
var ErrUnknownVerb = fmt.Errorf("%w", ErrNoWorkers)

// RefusedError is a worker's refusal.
type RefusedError struct{ Code, Reason string }

// Error is the worker's reason.
func (e *RefusedError) Error() string { return e.Reason }

// Ask sends a request to a verb's subject and gathers the answers of the whole fleet, or only the first limit of them if
// limit is not zero. Errors: ErrNoWorkers, a *RefusedError if some worker refuses, ctx's cause.
func Ask[T any](ctx context.Context, nc *nats.Conn, subject string, request any, limit int) (answers []T, err error) {
	err = ask(ctx, nc, subject, request, limit, func(msg *nats.Msg) error {
		answer, err := decodeAnswer[T](msg)
		answers = append(answers, answer)
		return err
	})
	if err != nil {
		return nil, err
	}
	return answers, nil
}

// Silent is a worker that runs, and that does not answer in time or does not know the verb.
type Silent struct {
	Worker  string `json:"worker"`
	Version string `json:"version"`
}

// AskAll asks the whole fleet for a verb as Ask does, and names the workers that are missing in the answers. It knows them by the
// ping of the micro protocol, which workers of every version answer. It waits for the pings no longer than for the answers. A
// worker that answers neither is not known. With ErrNoWorkers and ErrUnknownVerb it names the workers that run, if there are any.
func AskAll[T any](ctx context.Context, nc *nats.Conn, n jobs.Names, verb string, request any) (answers []T, silent []Silent, err error) {
	pings, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return nil, nil, fmt.Errorf("ping workers: %w", err)
	}
	defer func() { _ = pings.Unsubscribe() }()
	if err := nc.PublishRequest("$SRV.PING."+n.Prefix(), pings.Subject, nil); err != nil {
		return nil, nil, fmt.Errorf("ping workers: %w", err)
	}
	heard := map[string]int{} // several workers may bear one name
	err = ask(ctx, nc, Subject(n, verb), request, 0, func(msg *nats.Msg) error {
		answer, err := decodeAnswer[T](msg)
		if err != nil {
			return err
		}
		var from struct {
			Worker string `json:"worker"`
		}
		if json.Unmarshal(msg.Data, &from) == nil {
			heard[from.Worker]++
		}
		answers = append(answers, answer)
		return nil
	})
	if err != nil && !errors.Is(err, ErrNoWorkers) {
		return nil, nil, err
	}
	// With an answer nothing is waited for. Without one, the pings are on their way: the server may have said at once that nobody
	// listens to the verb.
	patience := time.Duration(0)
	if len(answers) == 0 {
		patience = quietFor
	}
	return answers, missing(ctx, pings, heard, patience), err
}

// missing returns who answered the ping and is not among those that were heard, by name.
func missing(ctx context.Context, pings *nats.Subscription, heard map[string]int, patience time.Duration) (list []Silent) {
	for {
		wait := patience
		if n, _, err := pings.Pending(); err == nil && n > 0 {
			wait = time.Second // a context that has ended brings not even what is there
		}
		if wait == 0 {
			break
		}
		msg, err := nextAnswer(ctx, pings, wait)
		if err != nil {
			break
		}
		ping, err := decodeAnswer[micro.Ping](msg)
		name := cmp.Or(ping.Metadata["worker"], ping.ID)
		if heard[name]--; err == nil && heard[name] < 0 {
			list = append(list, Silent{Worker: name, Version: ping.Version})
		}
	}
	slices.SortFunc(list, func(a, b Silent) int { return cmp.Compare(a.Worker, b.Worker) })
	return list
}

// ask sends a request and uses the answers until no more come, or limit of them if it is not zero. The first error of use
// ends it.
func ask(ctx context.Context, nc *nats.Conn, subject string, request any, limit int, use func(*nats.Msg) error) error {
	data, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	asked := time.Now()
	if err := nc.PublishRequest(subject, sub.Subject, data); err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	answers, patience := 0, firstAnswer
	for limit == 0 || answers < limit {
		msg, err := nextAnswer(ctx, sub, patience)
		switch {
		case errors.Is(err, nats.ErrNoResponders) && answers == 0:
			return ErrUnknownVerb
		case errors.Is(err, nats.ErrTimeout) && answers == 0:
			return ErrNoWorkers
		case errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders):
			return nil
		case err == nil:
			err = use(msg)
		}
		if err != nil {
			return fmt.Errorf("ask %s: %w", subject, err)
		}
		if answers == 0 {
			patience = quietFor + 2*time.Since(asked)
		}
		answers++
	}
	return nil
}

// nextAnswer waits for an answer for patience at most. Errors: nats.ErrTimeout, nats.ErrNoResponders if nobody listens to
// the verb, and ctx's cause.
func nextAnswer(ctx context.Context, sub *nats.Subscription, patience time.Duration) (*nats.Msg, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, patience, nats.ErrTimeout)
	defer cancel()
	msg, err := sub.NextMsgWithContext(bounded)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case bounded.Err() != nil && err != nil:
		return nil, nats.ErrTimeout
	case err == nil && len(msg.Data) == 0 && msg.Header.Get("Status") == "503":
		return nil, nats.ErrNoResponders
	}
	return msg, err
}

// decodeAnswer reads an answer, or the error headers of the micro protocol as a *RefusedError.
func decodeAnswer[T any](msg *nats.Msg) (answer T, err error) {
	if reason := msg.Header.Get(micro.ErrorHeader); reason != "" {
		return answer, &RefusedError{Code: msg.Header.Get(micro.ErrorCodeHeader), Reason: reason}
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return answer, fmt.Errorf("read the answer: %w", err)
	}
	return answer, nil
}
