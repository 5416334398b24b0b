package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker"
)

// queueList is GOFER_QUEUES: names with weights.
type queueList []worker.Queue

// UnmarshalText reads name[:weight], comma separated. It never repeats the text in its error.
func (l *queueList) UnmarshalText(text []byte) error {
	var out queueList
	seen := map[string]bool{}
	for part := range strings.SplitSeq(string(text), ",") {
		name, weight, weighted := strings.Cut(strings.TrimSpace(part), ":")
		n := 1
		if weighted {
			var err error
			if n, err = strconv.Atoi(weight); err != nil || n < 1 || n > 1000 {
				return errors.New("a weight is not between 1 and 1000")
			}
		}
		if !jobs.ValidQueue(name) || seen[name] {
			return errors.New("a name is not a queue's, or stands twice")
		}
		seen[name] = true
		out = append(out, worker.Queue{Name: name, Weight: n})
	}
	if len(out) > worker.MaxQueues {
		return fmt.Errorf("more than %d queues", worker.MaxQueues)
	}
	*l = out
	return nil
}
