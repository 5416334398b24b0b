package bus_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

const secret = "s3cr3t"

func TestConnectionFailuresSayWhatIsWrongAndNoSecret(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) { o.Username, o.Password = "u", "right" })
	host := strings.TrimPrefix(srv.URL(), "nats://")
	file := filepath.Join(t.TempDir(), "seed")
	must(t, os.WriteFile(file, []byte("SU"+secret), 0o600))
	for name, c := range map[string]struct {
		dial bus.Dial
		want error
	}{
		"nobody there":         {bus.Dial{URL: "nats://u:" + secret + "@127.0.0.1:1"}, bus.ErrUnreachable},
		"wrong password":       {bus.Dial{URL: srv.URL(), User: "u", Password: secret}, bus.ErrCredentials},
		"password in the URL":  {bus.Dial{URL: "nats://u:" + secret + "@" + host}, bus.ErrCredentials},
		"wrong token":          {bus.Dial{URL: srv.URL(), Token: secret}, bus.ErrCredentials},
		"not a URL":            {bus.Dial{URL: "nats://u:" + secret + "@ho st:4222"}, bus.ErrConfig},
		"no URL":               {bus.Dial{}, bus.ErrConfig},
		"scheme of a page":     {bus.Dial{URL: "http://u:" + secret + "@" + host}, bus.ErrConfig},
		"port beyond the last": {bus.Dial{URL: "nats://u:" + secret + "@127.0.0.1:65536"}, bus.ErrConfig},
		"port zero":            {bus.Dial{URL: "nats://u:" + secret + "@127.0.0.1:0"}, bus.ErrConfig},
		"two kinds of URL":     {bus.Dial{URL: "ws://127.0.0.1:1," + srv.URL()}, bus.ErrConfig},
		"no such file":         {bus.Dial{URL: srv.URL(), CA: "/nowhere/ca.pem"}, bus.ErrConfig},
		"not a seed":           {bus.Dial{URL: srv.URL(), Nkey: secret}, bus.ErrConfig},
		"not a seed in a file": {bus.Dial{URL: srv.URL(), Nkey: file}, bus.ErrConfig},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := bus.Connect(soon(t), c.dial, quiet())
			isError(t, err, c.want)
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

func TestADialPrintsWithoutItsSecrets(t *testing.T) {
	t.Parallel()
	d := bus.Dial{URL: "nats://u:" + secret + "@one:4222,tls://two:4222", User: "u", Password: secret, Token: secret, Nkey: secret}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "dial", d)
	data, err := json.Marshal(d)
	must(t, err)
	for _, got := range []string{d.String(), fmt.Sprintf("%v %+v %#v %s %q %v", d, d, d, d, d, &d), log.String(), string(data)} {
		if strings.Contains(got, secret) || !strings.Contains(got, "nats://one:4222,tls://two:4222") {
			t.Errorf("got %s, want the servers without user information", got)
		}
	}
}

// muteListener is the address of a listener that takes connections and says nothing.
func muteListener(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

func TestConnectEndsWithItsContext(t *testing.T) {
	t.Parallel()
	servers := "nats://" + muteListener(t) + ",nats://" + muteListener(t)
	stop := errors.New("stop")
	for _, patient := range []bool{false, true} {
		// A server has five seconds. A busy machine may be late, but not each time.
		testenv.Eventually(t, fmt.Sprint("the end of a connect, patient ", patient), func() bool {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
			began := time.Now()
			_, err := bus.Connect(ctx, bus.Dial{URL: servers, Patient: patient}, quiet())
			isError(t, err, stop)
			return time.Since(began) < 4*time.Second
		})
	}
	// A deadline holds for all servers together.
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := bus.Connect(ctx, bus.Dial{URL: strings.Repeat(servers+",", 10) + servers}, quiet())
	isError(t, err, bus.ErrUnreachable)
}

func TestAPatientConnectWaitsForTheServerAndSaysSo(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	must(t, l.Close())
	said := make(chan string, 1)
	log := slog.New(slog.NewTextHandler(writer(func(line string) { said <- line }), nil))
	var connected *nats.Conn
	var connecting sync.WaitGroup
	connecting.Go(func() {
		connected, err = bus.Connect(soon(t), bus.Dial{URL: fmt.Sprintf("u:%s@127.0.0.1:%d", secret, port), Patient: true}, log)
	})
	if got := <-said; !strings.Contains(got, "waiting") || !strings.Contains(got, "error=") || strings.Contains(got, secret) {
		t.Errorf("got log line %q, want that it waits and why, and no secret", got)
	}
	testenv.StartNATS(t, func(o *server.Options) { o.Port = port })
	connecting.Wait()
	must(t, err)
	connected.Close()
}

// writer hands the lines of a log to a function.
type writer func(string)

func (w writer) Write(p []byte) (int, error) {
	w(string(p))
	return len(p), nil
}

func TestAPatientConnectEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := bus.Connect(ctx, bus.Dial{URL: "127.0.0.1:1", Patient: true}, quiet())
	isError(t, err, bus.ErrUnreachable)
}

func TestAnNkeyMayBeASeedOrAFile(t *testing.T) {
	t.Parallel()
	pair, err := nkeys.CreateUser()
	must(t, err)
	public, err := pair.PublicKey()
	must(t, err)
	seed, err := pair.Seed()
	must(t, err)
	file := filepath.Join(t.TempDir(), "seed")
	must(t, os.WriteFile(file, append(seed, '\n'), 0o600))
	srv := testenv.StartNATS(t, func(o *server.Options) { o.Nkeys = []*server.NkeyUser{{Nkey: public}} })
	for _, given := range []string{string(seed), file} {
		connect(t, bus.Dial{URL: srv.URL(), Nkey: given})
	}
}

// TestWhatIsSentWhileDisconnectedFailsAtOnce: an ack in a buffer would look done, and arrive when the job is another's.
func TestWhatIsSentWhileDisconnectedFailsAtOnce(t *testing.T) {
	t.Parallel()
	in := bare(t)
	lost := in.nc.StatusChanged(nats.RECONNECTING)
	in.server.Stop()
	<-lost
	if err := in.nc.Publish("x", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("got %v, want %v", err, nats.ErrReconnectBufExceeded)
	}
}

func TestWhatHappensToTheConnectionIsTold(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"no.>"}},
		}}}
	})
	reconnected, failed := make(chan struct{}, 1), make(chan string, 1)
	nc, err := bus.Connect(soon(t), bus.Dial{
		URL: srv.URL(), User: "u", Password: "p",
		Reconnected: func() { reconnected <- struct{}{} }, Failed: func(kind string) { failed <- kind },
	}, nil)
	must(t, err)
	defer nc.Close()
	must(t, nc.Publish("no.way", nil))
	if kind := <-failed; kind != "permission" {
		t.Errorf("error of kind %q, want permission", kind)
	}
	srv.Stop()
	srv.Start()
	<-reconnected
}

func TestARefusedSubjectIsLogged(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"no.>"}},
		}}}
	})
	said := make(chan string, 1)
	nc, err := bus.Connect(soon(t), bus.Dial{URL: srv.URL(), User: "u", Password: "p"}, slog.New(slog.NewTextHandler(writer(func(line string) { said <- line }), nil)))
	must(t, err)
	defer nc.Close()
	must(t, nc.Publish("no.way", nil))
	if got := <-said; !strings.Contains(got, "no.way") || !strings.Contains(got, "level=ERROR") {
		t.Errorf("got log line %q, want an error that names the subject", got)
	}
}

// TestAConnectionThatIsClosedForGoodIsToldOf: nats.go does not connect again after an error of the server that it does not know
// as one that passes.
func TestAConnectionThatIsClosedForGoodIsToldOf(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, nil)
	said, closed := make(chan string, 10), make(chan error, 10)
	log := slog.New(slog.NewTextHandler(writer(func(line string) { said <- line }), nil))
	nc, err := bus.Connect(soon(t), bus.Dial{URL: srv.URL(), Closed: func(reason error) { closed <- reason }}, log)
	must(t, err)
	b, err := bus.New(nc, names(t))
	must(t, err)
	srv.Reload(func(o *server.Options) { o.MaxPayload = 10 })
	must(t, nc.Publish("x", []byte("more than ten bytes")))
	reason := next(t, closed)
	isError(t, reason, bus.ErrUnreachable)
	if text := reason.Error() + next(t, said); strings.Count(text, "Maximum Payload Violation") != 2 {
		t.Errorf("told and logged %s, want the server's words twice", text)
	}
	isError(t, client.New(b).Follow(soon(t), bus.Filter{}, func(jobs.Result) error { return nil }), bus.ErrUnreachable)
}

// TestAUserWhoIsRefusedForAWhileStaysConnected changes the password under a connection, and back.
func TestAUserWhoIsRefusedForAWhileStaysConnected(t *testing.T) {
	t.Parallel()
	srv := testenv.StartNATS(t, func(o *server.Options) { o.Username, o.Password = "u", "p" })
	back, refused := make(chan struct{}, 1), make(chan struct{}, 100)
	nc, err := bus.Connect(soon(t), bus.Dial{
		URL: srv.URL(), User: "u", Password: "p", Reconnected: func() { back <- struct{}{} }, Failed: func(string) { refused <- struct{}{} },
		Closed: func(reason error) { t.Error(reason) },
	}, quiet())
	must(t, err)
	defer nc.Close()
	srv.Reload(func(o *server.Options) { o.Password = "another" })
	for range 4 { // nats.go would end the connection at the second
		next(t, refused)
	}
	srv.Reload(func(o *server.Options) { o.Password = "p" })
	next(t, back)
}

// next is what comes next over a channel.
func next[T any](t *testing.T, from <-chan T) (what T) {
	t.Helper()
	select {
	case what = <-from:
	case <-soon(t).Done():
		t.Fatal("waited 20 s in vain")
	}
	return what
}
