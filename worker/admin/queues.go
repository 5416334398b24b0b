package admin

import (
	"context"
	"encoding/json"
	"net/http"
)

// queueList answers with the queues of the fleet. Their counts are at most waiting.Stale old, so that many pages cause few
// requests to NATS. Without the parameter limit it lists all queues.
func (a *admin) queueList(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	if a.Operator.Queues == nil {
		return notHere("the queues are not listed here")
	}
	ctx, cancel := context.WithTimeout(r.Context(), changeTimeout)
	defer cancel()
	answer, err := a.Operator.Queues(ctx)
	if err == nil && r.URL.Query().Has("limit") {
		answer, err = withQueues(answer, limit)
	}
	if err != nil {
		return err
	}
	return reply(w, answer)
}

// withQueues is an answer of Operator.Queues with its first queues only.
func withQueues(answer any, limit int) (any, error) {
	data, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	var queues []json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(fields["queues"], &queues); err != nil {
		return nil, err
	}
	fields["queues"], err = json.Marshal(queues[:min(limit, len(queues))])
	return fields, err
}
