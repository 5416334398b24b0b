package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/spf13/cobra"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/config"
	"github.com/gofer-mq/gofer/worker/control"
)

// connectTimeout bounds how long a verb looks for its server. It holds for connecting only. What a verb asks
// then has its own bounds.
const connectTimeout = 5 * time.Second

// session is a verb's connection and what it needs to use it. Whoever connects closes it. It lives as long as its
// verb, and any goroutine of the verb may use it.
type session struct {
	nc     *nats.Conn
	client *client.Client
	bus    *bus.Client // for what the streams themselves are about
	config config.Config
	names  jobs.Names
}

// loadConfig reads and checks the environment of this run. It opens no file that holds proxies. The error is a
// *config.Error.
func (a *app) loadConfig() (config.Config, error) {
	env, err := a.environment()
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(env)
}

// loadWorkerConfig also reads the proxies. The error is a *config.Error that names what is wrong with both.
func (a *app) loadWorkerConfig() (config.Config, []proxylist.Proxy, error) {
	env, err := a.environment()
	if err != nil {
		return config.Config{}, nil, err
	}
	return config.LoadWorker(env)
}

// environment returns the variables of the process, or those that a test has given.
func (a *app) environment() (config.Environment, error) {
	env := a.env
	if env == nil {
		var err error
		if env, err = config.OfProcess(); err != nil {
			return nil, err
		}
	}
	// Flags win over the environment: --server and --context replace what the variables say.
	return env.Choose(a.server, a.context)
}

// connect reads the environment and connects for one verb, within connectTimeout. The caller closes the session. Errors:
// *config.Error, bus.ErrUnreachable, bus.ErrCredentials, bus.ErrPermission.
func (a *app) connect(ctx context.Context, verb string) (*session, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	names, err := jobs.NewNames(c.Prefix)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	// The name of the connection tells the operator of the server which verb it is. The log goes to standard
	// error.
	nc, err := bus.Connect(ctx, c.Dial("gofer "+verb), newLogger(&c, a.err))
	// Without any address, the likely cause is that no worker runs on this machine.
	if errors.Is(err, bus.ErrUnreachable) && c.NATSURL == "" {
		return nil, fmt.Errorf("%w (start a server with gofer worker, or name yours in GOFER_NATS_URL)", err)
	}
	// The remedy names the flag as well: a URL may have come from it.
	if errors.Is(err, bus.ErrUnreachable) {
		return nil, fmt.Errorf("%w (start nats-server there, or name yours in GOFER_NATS_URL or by --server)", err)
	}
	if err != nil {
		return nil, err
	}
	// An error from here on must close the connection.
	b, err := bus.NewWithDomain(nc, names, c.NATSJSDomain)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &session{nc: nc, client: client.New(b), bus: b, config: c, names: names}, nil
}

// close ends the connection. Verbs wait for the answer to what they publish, so nothing is lost.
func (s *session) close() { s.nc.Close() }

// askFleet asks the workers for a verb and gathers their answers; limit bounds how many, and zero means all that come in
// time. The error is a control.ErrNoWorkers if none answers. Answers come in any order.
func askFleet[T any](ctx context.Context, s *session, verb string, request any, limit int) ([]T, error) {
	subject := control.Subject(s.names, verb)
	var answers []T
	err := s.bus.Ask(ctx, subject, func(ctx context.Context) (err error) {
		answers, err = control.Ask[T](ctx, s.nc, subject, request, limit)
		return err
	})
	return answers, s.explainNoWorkers(subject, err)
}

// askAll is askFleet for all answers. It notes the workers that run and are missing in them, and returns them.
func askAll[T any](ctx context.Context, a *app, s *session, verb string, request any) ([]T, []control.Silent, error) {
	subject := control.Subject(s.names, verb)
	var answers []T
	var silent []control.Silent
	err := s.bus.Ask(ctx, subject, func(ctx context.Context) (err error) {
		answers, silent, err = control.AskAll[T](ctx, s.nc, s.names, verb, request)
		return err
	})
	if len(answers) > 0 && len(silent) > 0 {
		a.note("no answer from %d of %d workers, which are busy or too old for the question: %s",
			len(silent), len(answers)+len(silent), namesOf(silent))
	}
	return answers, silent, s.explainNoWorkers(subject, err)
}

// noteSilent says which workers run though none answers. old says that none knows the question.
func (a *app) noteSilent(silent []control.Silent, old bool) {
	why := "do not answer, because they are busy or of a version that does not know the question"
	if old {
		why = "are of a version that does not know the question"
	}
	a.note("the workers that run %s: %s", why, namesOf(silent))
}

// namesOf lists workers with their versions: the first ten, and how many more there are.
func namesOf(list []control.Silent) string {
	const most = 10
	var names []string
	for _, w := range list[:min(most, len(list))] {
		names = append(names, w.Worker+" ("+w.Version+")")
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// explainNoWorkers says why no worker may answer. Nobody subscribes under another prefix, so the prefix is named. For a user who
// may not ask there are no workers either: the error is a bus.ErrPermission, too.
func (s *session) explainNoWorkers(subject string, err error) error {
	if errors.Is(err, bus.ErrPermission) {
		return fmt.Errorf("%w: %w", control.ErrNoWorkers, err)
	}
	if errors.Is(err, control.ErrNoWorkers) {
		return fmt.Errorf("%w on %s: none runs with GOFER_PREFIX=%s on this server", err, subject, s.names.Prefix())
	}
	return err
}

// verb returns the function of a cobra command for a verb that needs a connection: it connects, calls do, and closes the
// session.
func (a *app) verb(name string, do func(ctx context.Context, s *session, args []string) error) func(*cobra.Command, []string) error {
	// ctx ends by a signal; the session is closed in any case.
	return func(cmd *cobra.Command, args []string) error {
		s, err := a.connect(cmd.Context(), name)
		if err != nil {
			return err
		}
		defer s.close()
		return do(cmd.Context(), s, args)
	}
}

// bucket binds one of the fleet's key-value buckets, such as "deny". Errors: bus.ErrNotSetUp, bus.ErrNoLeader,
// bus.ErrPermission, also of the bucket's own calls.
func (s *session) bucket(ctx context.Context, kind string) (jetstream.KeyValue, error) {
	return s.bus.Bucket(ctx, kind)
}

// key returns the job that name means: QUEUE/ID, or an ID alone, for which the queue is looked up if --queue does not
// name it. Errors: client.ErrNotFound; a usage error for a name that no job can have, and for an ID that several queues
// have. A full name is not looked up: whether the job exists is found out by what uses the key.
func key(ctx context.Context, s *session, queue, name string) (client.Key, error) {
	q, id, named := strings.Cut(name, "/")
	if !named {
		q, id = queue, name
	}
	// A queue that is given twice has to be the same.
	if queue != "" && q != queue {
		return client.Key{}, usage("--queue %s contradicts %s", queue, name)
	}
	if !jobs.ValidID(id) || q != "" && !jobs.ValidQueue(q) {
		return client.Key{}, usage("%q is not the name of a job: an id is [A-Za-z0-9_-]{1,128}, perhaps with QUEUE/ before it", name)
	}
	if q != "" {
		return client.Key{Queue: q, ID: id}, nil
	}
	// An id alone is looked up in the streams, which needs more rights and more time than a full name. Both errors
	// are explained in the words of the command line.
	found, err := s.client.Resolve(ctx, id)
	if _, ok := errors.AsType[*client.AmbiguousError](err); ok {
		return client.Key{}, usage("%w", err)
	}
	if errors.Is(err, client.ErrNotFound) {
		return client.Key{}, fmt.Errorf("%w: no queue has it, and no result of it is kept", err)
	}
	if err != nil {
		return client.Key{}, err
	}
	return found, nil
}

// maxJobLine bounds a line that holds a job, in bytes; no job is as large.
const maxJobLine = 4 << 20

// eachLine calls use for every line that is neither empty nor a comment, with its number from 1. It ends at the first
// error of use or of reading. A line that is longer than maxJobLine is an error of reading.
func eachLine(r io.Reader, use func(number int, line []byte) error) error {
	for line, err := range text.Lines(r, maxJobLine) {
		if err == nil {
			err = use(line.Number, line.Text)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkDurable refuses flags that a prepared consumer would ignore: it has its own filter and its own beginning.
func checkDurable(durable, queue string, all bool) error {
	// Silently ignoring them would show other messages than the user asked for.
	if durable != "" && (queue != "" || all) {
		return usage("--durable goes with neither --queue nor --all: the prepared consumer has its own filter and beginning")
	}
	return nil
}
