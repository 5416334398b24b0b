package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/gofer-mq/gofer/worker/control"
)

// askFleet asks the workers for a verb and gathers their answers, or only the first most of them if most is not zero.
func askFleet[T any](ctx context.Context, s *session, verb string, request any, most int) ([]T, error) {
	subject := control.Subject(s.names, verb)
	answers, err := control.Ask[T](ctx, s.nc, subject, request, most)
	if errors.Is(err, control.ErrNoWorkers) {
		return nil, fmt.Errorf("%w on %s: none runs with GOFER_PREFIX=%s on this server, or this user may not ask", err, subject, s.names.Prefix())
	}
	return answers, err
}
