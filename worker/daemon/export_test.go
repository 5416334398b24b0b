package daemon

import "context"

// Worker is a daemon whose outbox a test fills.
type Worker struct{ d *daemon }

// New builds a worker.
func New(c Config) (*Worker, error) {
	d, err := newDaemon(c.withDefaults())
	return &Worker{d}, err
}

// Run is the package's, on the worker.
func (w *Worker) Run(ctx context.Context) error {
	defer w.d.fetcher.Close()
	return w.d.run(ctx)
}

// Send puts an event into the outbox.
func (w *Worker) Send(publish func(context.Context) error) { w.d.enqueue(publish) }
