package bus

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"
)

// handlers returns the options that log and report the events of the connection.
func (d Dial) handlers(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			// A close by the owner is no loss.
			if !nc.IsClosed() && err != nil {
				log.Warn("NATS connection lost, reconnecting", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("NATS connection is back", "url", nc.ConnectedUrlRedacted())
			if d.Reconnected != nil {
				d.Reconnected()
			}
		}),
		nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
			if d.Failed != nil {
				d.Failed(failureKind(err))
			}
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			// A missing permission lasts; other errors may be transient.
			if errors.Is(err, nats.ErrPermissionViolation) {
				log.Error("NATS refuses this user something", "error", err)
				return
			}
			// While the connection is lost, each subscription reports that it receives nothing. The loss itself
			// is logged already.
			report := log.Warn
			if !nc.IsConnected() {
				report = log.Debug
			}
			report("NATS reports an error", "error", err, "subject", subject)
		}),
	}
}

// closedHandler reports that the connection is closed for good. NoCallbacksAfterClientClose keeps it from running for
// the owner's own Close.
func (d Dial) closedHandler(log *slog.Logger) nats.Option {
	return nats.ClosedHandler(func(nc *nats.Conn) {
		reason := fmt.Errorf("%w: the connection is closed for good: %w", ErrUnreachable, d.withoutSecrets(closedBy(nc)))
		log.Error("NATS connection closed for good", "error", reason)
		if d.Closed != nil {
			d.Closed(reason)
		}
	})
}

// closedBy returns the reason why a connection is closed for good.
func closedBy(nc *nats.Conn) error { return cmp.Or(nc.LastError(), nats.ErrConnectionClosed) }

// failureKind returns the kind of an error for Dial.Failed.
func failureKind(err error) string {
	switch {
	case errors.Is(err, nats.ErrPermissionViolation):
		return "permission"
	case errors.Is(err, nats.ErrSlowConsumer):
		return "slow_consumer"
	}
	return "other"
}
