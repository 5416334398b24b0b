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

// How long Ask waits for the answers of a fleet. Nobody knows how many will come. After the first answer, quietFor without
// another one ends the wait. quietFor is extended by twice the time of the first answer, which measures the way to the fleet.
// A caller that sets a limit expects so many answers, and each of them may take as long as the first one.
// Whoever may answer could go on for ever, so the wait after the first answer ends after ten times that, or after longestWait.
const (
	firstAnswer = 3 * time.Second
	quietFor    = 300 * time.Millisecond
	longestWait = 15 * time.Second
)

// ErrNoWorkers means that nobody answers: no worker runs, or not the one that was asked.
var ErrNoWorkers = errors.New("no worker answers")

// ErrUnknownVerb is an ErrNoWorkers: nobody listens to the verb. Workers that run are of a version without it.
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

// Silent is a worker that runs, and either does not answer in time or does not know the verb.
type Silent struct {
	Worker  string `json:"worker"`
	Version string `json:"version"`
}

// AskAll asks the whole fleet for a verb as Ask does, and also returns the workers that did not answer. It finds these by the
// ping of the micro protocol, which workers of every version answer. It waits for the pings no longer than for the answers. It
// does not know a worker that answers neither. With ErrNoWorkers and ErrUnknownVerb it also returns the silent workers.
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
	// If an answer came, the pings have come, too. Without an answer they may still be on their way, because the server reports
	// at once that nobody listens to the verb.
	patience := time.Duration(0)
	if len(answers) == 0 {
		patience = quietFor
	}
	return answers, missing(ctx, pings, heard, patience), err
}

// missing returns the workers that answered the ping and are not in heard, sorted by name.
func missing(ctx context.Context, pings *nats.Subscription, heard map[string]int, patience time.Duration) (list []Silent) {
	ctx, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	for {
		msg, err := nextAnswer(ctx, pings, patience)
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

// ask sends a request and calls use for each answer, until no more answers come or the wait is over, or for limit answers if
// limit is not zero. The first error of use ends it.
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
	answers, patience, end, isOver := 0, firstAnswer, time.Time{}, false
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
			if limit > 0 {
				patience = max(patience, firstAnswer)
			}
			end = time.Now().Add(min(10*patience, longestWait))
		}
		answers++
		if left := time.Until(end); left > 0 {
			patience = min(patience, left)
		} else if !isOver {
			// The answers that have come are read, however long that takes: a large fleet has large answers.
			come, _, _ := sub.Pending()
			isOver, patience = true, quietFor
			if limit == 0 || answers+come < limit {
				limit = answers + come
			}
		}
	}
	return nil
}

// nextAnswer waits for an answer, at most for patience. An answer that is there is read in any case: after a time without a
// processor, answer and end of the wait are there at once. Errors: nats.ErrTimeout, nats.ErrNoResponders if nobody listens to
// the verb, and ctx's cause.
func nextAnswer(ctx context.Context, sub *nats.Subscription, patience time.Duration) (*nats.Msg, error) {
	if come, _, err := sub.Pending(); err == nil && come > 0 {
		patience = max(patience, time.Second)
	}
	bounded, cancel := context.WithTimeoutCause(ctx, patience, nats.ErrTimeout)
	defer cancel()
	msg, err := sub.NextMsgWithContext(bounded)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case bounded.Err() != nil && err != nil:
		if come, _, err := sub.Pending(); err == nil && come > 0 {
			return nextAnswer(ctx, sub, time.Second)
		}
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
