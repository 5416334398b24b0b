package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// How long the answers of a fleet are waited for. Nobody knows how many there will be: once the first one has come, a
// while without another ends it. That while grows with the way to the fleet, which the first answer has measured.
const (
	firstAnswer = 3 * time.Second
	quietFor    = 300 * time.Millisecond
)

// ErrNoWorkers tells that nobody answers: no worker runs, or none that was meant.
var ErrNoWorkers = errors.New("no worker answers")

// RefusedError is a worker's refusal.
type RefusedError struct{ Code, Reason string }

// Error is the worker's reason.
func (e *RefusedError) Error() string { return e.Reason }

// Ask sends a request to a verb's subject and gathers the answers of the whole fleet, or only the first limit of them if
// limit is not zero. Errors: ErrNoWorkers, a *RefusedError if some worker refuses, ctx's cause.
func Ask[T any](ctx context.Context, nc *nats.Conn, subject string, request any, limit int) ([]T, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	asked := time.Now()
	if err := nc.PublishRequest(subject, sub.Subject, data); err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	var answers []T
	patience := firstAnswer
	for limit == 0 || len(answers) < limit {
		msg, err := nextAnswer(ctx, sub, patience)
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", subject, err)
		}
		answer, err := decodeAnswer[T](msg)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", subject, err)
		}
		if len(answers) == 0 {
			patience = quietFor + 2*time.Since(asked)
		}
		answers = append(answers, answer)
	}
	if len(answers) == 0 {
		return nil, ErrNoWorkers
	}
	return answers, nil
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
