package config

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/worker"
)

// queueList is GOFER_QUEUES: names with weights, 1 where none is given. The order does not count.
type queueList []worker.Queue

// UnmarshalText reads name[:weight], comma separated. Its errors do not repeat the text, which may be a secret in the wrong
// variable.
func (l *queueList) UnmarshalText(list []byte) error {
	var out queueList
	seen := map[string]bool{}
	for _, item := range text.Items(string(list)) {
		name, weight, weighted := strings.Cut(item, ":")
		name, n := strings.TrimSpace(name), int64(1)
		if weighted {
			var err error
			if n, err = text.Int(strings.TrimSpace(weight)); err != nil || n < 1 || n > 1000 {
				return errors.New("a weight is not between 1 and 1000")
			}
		}
		if !jobs.ValidQueue(name) {
			return errors.New("a name is not a queue's")
		}
		if seen[name] {
			return errors.New("a queue stands twice")
		}
		seen[name] = true
		out = append(out, worker.Queue{Name: name, Weight: int(n)})
	}
	switch {
	case len(out) == 0:
		return errors.New("no queue is named")
	case len(out) > worker.MaxQueues:
		return fmt.Errorf("more than %d queues", worker.MaxQueues)
	}
	*l = out
	return nil
}

// statusList is a list of HTTP statuses. Whether they are in range is checked with the policy.
type statusList []int

// UnmarshalText reads statuses, comma separated. It never repeats the text in its error. An empty list is an error,
// unlike that of bans: to retry no status is written as a policy, not as a forgotten value.
func (l *statusList) UnmarshalText(list []byte) error {
	var out statusList
	for _, item := range text.Items(string(list)) {
		n, err := text.Int(item)
		if err != nil || n < 0 || n > math.MaxInt32 {
			return errors.New("a status is not a whole number")
		}
		out = append(out, int(n))
	}
	if len(out) == 0 {
		return errors.New("no status is named")
	}
	*l = out
	return nil
}

// bans is a list of HTTP statuses that may be empty: set and empty, the variable means that no status is a ban.
type bans []int

// mayBeEmpty marks the type of a variable that has a value when it is set and empty.
func (bans) mayBeEmpty() {}

// UnmarshalText reads statuses, comma separated, or none.
func (b *bans) UnmarshalText(list []byte) error {
	if strings.TrimSpace(string(list)) == "" {
		*b = bans{}
		return nil
	}
	return (*statusList)(b).UnmarshalText(list)
}
