package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
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

// connectTimeout bounds how long a verb tries to connect.
const connectTimeout = 5 * time.Second

// session is a verb's connection and what it needs to use it. Any goroutine of the verb may use it.
type session struct {
	nc     *nats.Conn
	client *client.Client
	// bus is for requests that client does not have, such as those about buckets and consumers. Both use nc.
	bus *bus.Client
	// config is the checked environment. Verbs read only what is not about a worker: prefix, server, policy, strategy.
	config config.Config
	names  jobs.Names
	// silent is done when noteSilence has noted that nothing answers.
	silent sync.Once
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

// environment returns the variables of the process, or those that a test has given. --server and --context replace some of them.
func (a *app) environment() (config.Environment, error) {
	env := a.env
	if env == nil {
		var err error
		if env, err = config.OfProcess(); err != nil {
			return nil, err
		}
	}
	// Without this check the error would name the variable that the flag replaces.
	if wrong, bad := errors.AsType[*bus.FieldError](bus.Dial{URL: a.server}.Check()); bad && a.server != "" {
		return nil, &config.Error{Reasons: []string{"--server: " + wrong.Err.Error()}}
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
	// A person waits. A worker has another bound: it tries for ever, because it may be started before its server.
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	// The name of the connection shows the operator of the server which verb it is. The log goes to standard error, because standard
	// output is the verb's answer.
	nc, err := bus.Connect(ctx, c.Dial("gofer "+verb), newLogger(&c, a.err))
	if errors.Is(err, bus.ErrUnreachable) {
		return nil, fmt.Errorf("%w (%s)", err, serverRemedy(&c))
	}
	if err != nil {
		return nil, err
	}
	// The session closes the connection later. Without a session it is closed here.
	b, err := bus.NewWithDomain(nc, names, c.NATSJSDomain)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return &session{nc: nc, client: client.New(b), bus: b, config: c, names: names}, nil
}

// serverRemedy is what to do about a server that cannot be reached.
func serverRemedy(c *config.Config) string {
	if c.NATSURL == "" {
		return "start a server with gofer worker, or name yours in GOFER_NATS_URL"
	}
	// The URL may have come from the flag or from the variable, so the remedy names both.
	return "start nats-server there, or name yours in GOFER_NATS_URL or by --server"
}

// silenceNotedAfter is after how long an unanswered publish, which is repeated for client.PublishBudget, is noted.
const silenceNotedAfter = 3 * time.Second

// noteSilence calls note with the sentence that NATS does not answer, unless the caller calls answered within silenceNotedAfter.
// It calls note once in the life of the session: many publishes may be under way, and all of them are silent together.
func (s *session) noteSilence(note func(text string)) (answered func()) {
	// The note comes from a goroutine of the timer, so it may be printed while the caller waits. note has to allow that.
	timer := time.AfterFunc(silenceNotedAfter, func() {
		s.silent.Do(func() {
			note(fmt.Sprintf("NATS at %s has not answered for %s, trying for up to %s: Ctrl-C ends it",
				s.address(), silenceNotedAfter, client.PublishBudget))
		})
	})
	return func() { timer.Stop() }
}

// address is the URL of the server, without its secrets.
func (s *session) address() string { return s.config.Dial("").String() }

// isConnectionLost reports whether err means that the connection broke and did not come back in time. A verb that does many
// things ends with such an error, because each further thing would wait as long.
func isConnectionLost(err error) bool { return errors.Is(err, bus.ErrUnreachable) }

// addRemedy adds to the error of a lost connection what to do about the server.
func (s *session) addRemedy(err error) error {
	if !isConnectionLost(err) {
		return err
	}
	return errors.Join(err, fmt.Errorf("the connection to NATS at %s broke and did not come back: %s", s.address(), serverRemedy(&s.config)))
}

// close ends the connection. Verbs wait for the answer to what they publish, so nothing is lost.
func (s *session) close() { s.nc.Close() }

// askFleet sends a request to all workers and returns their answers, in any order: at most limit, or all that come in time
// if limit is zero. The error is a control.ErrNoWorkers if none answers.
func askFleet[T any](ctx context.Context, s *session, verb string, request any, limit int) ([]T, error) {
	subject := control.Subject(s.names, verb)
	var answers []T
	err := s.bus.Ask(ctx, subject, func(ctx context.Context) (err error) {
		answers, err = control.Ask[T](ctx, s.nc, subject, request, limit)
		return err
	})
	return answers, s.explainNoWorkers(subject, err)
}

// askAll is askFleet for all answers. It also notes and returns the running workers that do not answer.
func askAll[T any](ctx context.Context, a *app, s *session, verb string, request any) ([]T, []control.Silent, error) {
	subject := control.Subject(s.names, verb)
	var answers []T
	var silent []control.Silent
	err := s.bus.Ask(ctx, subject, func(ctx context.Context) (err error) {
		answers, silent, err = control.AskAll[T](ctx, s.nc, s.names, verb, request)
		return err
	})
	// If nobody answers, the caller decides what to note: see noteSilent.
	if len(answers) > 0 && len(silent) > 0 {
		a.note("no answer from %d of %d workers, which are busy or too old for the question: %s",
			len(silent), len(answers)+len(silent), namesOf(silent))
	}
	return answers, silent, s.explainNoWorkers(subject, err)
}

// noteSilent names the running workers if none answers. old says that none of them knows the question.
func (a *app) noteSilent(silent []control.Silent, old bool) {
	why := "do not answer, because they are busy or of a version that does not know the question"
	if old {
		why = "are of a version that does not know the question"
	}
	a.note("the workers that run %s: %s", why, namesOf(silent))
}

// namesOf lists workers with their versions, because an old version is the likeliest reason why a worker does not answer. It
// names the first ten, and counts the others.
func namesOf(list []control.Silent) string {
	var names []string
	for _, w := range list[:min(10, len(list))] {
		names = append(names, w.Worker+" ("+w.Version+")")
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// explainNoWorkers adds to a control.ErrNoWorkers its likely reason, a wrong prefix. For a user who may not ask there are
// no workers either: then the error is both a control.ErrNoWorkers and a bus.ErrPermission.
func (s *session) explainNoWorkers(subject string, err error) error {
	// Callers have something to show without workers, and then they need not know of a missing right.
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
	return func(cmd *cobra.Command, args []string) error {
		s, err := a.connect(cmd.Context(), name)
		if err != nil {
			return err
		}
		defer s.close()
		return s.addRemedy(do(cmd.Context(), s, args))
	}
}

// bucket binds one of the fleet's key-value buckets, such as "deny". Errors: bus.ErrNotSetUp, bus.ErrNoLeader,
// bus.ErrPermission, also of the bucket's own calls.
func (s *session) bucket(ctx context.Context, kind string) (jetstream.KeyValue, error) {
	return s.bus.Bucket(ctx, kind)
}

// key returns the key of the job that name means: QUEUE/ID, or an ID alone, whose queue it looks up unless --queue names
// it. It does not check whether a job with a full name exists. Errors: client.ErrNotFound; a usage error for a name that no
// job can have, and for an ID that several queues have.
func key(ctx context.Context, s *session, queue, name string) (client.Key, error) {
	q, id, named := strings.Cut(name, "/")
	if !named {
		q, id = queue, name
	}
	// Two different queues: one of them is a mistake, and nobody knows which.
	if queue != "" && q != queue {
		return client.Key{}, usage("--queue %s contradicts %s", queue, name)
	}
	if !jobs.ValidID(id) || q != "" && !jobs.ValidQueue(q) {
		return client.Key{}, usage("%q is not the name of a job: an id is [A-Za-z0-9_-]{1,128}, perhaps with QUEUE/ before it", name)
	}
	if q != "" {
		return client.Key{Queue: q, ID: id}, nil
	}
	// Resolve searches the streams of all queues, so it needs more rights and more time than a full name.
	found, err := s.client.Resolve(ctx, id)
	if _, ok := errors.AsType[*client.AmbiguousError](err); ok {
		return client.Key{}, usage("%w", err)
	}
	if errors.Is(err, client.ErrNotFound) {
		return client.Key{}, fmt.Errorf("%w: no queue has it, and no result of it is kept", err)
	}
	return found, err
}

// maxJobLine bounds a line, in bytes. No job is as large.
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

// explainDurable adds to an error of following a stream that its durable is missing, and which command creates it.
func (s *session) explainDurable(stream, durable string, err error) error {
	if durable == "" || !errors.Is(err, bus.ErrNotFound) {
		return err
	}
	stream = s.names.Stream(stream)
	if durable == client.Reader {
		return fmt.Errorf("the stream %s has no consumer %s: gofer setup creates it", stream, durable)
	}
	return fmt.Errorf("the stream %s has no consumer %s: nats consumer add %[1]s %[2]s --pull --deliver all --ack explicit --defaults creates it; gofer creates only %s",
		stream, text.Printable(durable), client.Reader)
}

// checkDurable refuses flags that a prepared consumer would ignore: it has its own filter and its own beginning.
func checkDurable(durable, queue string, all bool) error {
	// If they were ignored in silence, the user would see other messages than the flags ask for.
	if durable != "" && (queue != "" || all) {
		return usage("--durable goes with neither --queue nor --all: the prepared consumer has its own filter and beginning")
	}
	return nil
}
