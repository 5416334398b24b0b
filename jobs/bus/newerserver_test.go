package bus_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/testenv"
)

// behind makes a client on a server without JetStream, whose requests to the JetStream API pass through to behind in: with the
// request that ask returns, and with the answer that reply returns.
func behind(t *testing.T, in *installation, ask, reply func(subject string, data []byte) []byte) *installation {
	t.Helper()
	front := on(t, testenv.StartNATS(t, func(o *server.Options) { o.JetStream = false }), bus.Dial{})
	_, err := front.nc.Subscribe("$JS.API.>", func(m *nats.Msg) {
		answer, err := in.nc.Request(m.Subject, ask(m.Subject, m.Data), testenv.Patience)
		if err != nil {
			t.Error(m.Subject, err)
			return
		}
		answer.Data = reply(m.Subject, answer.Data)
		_ = m.RespondMsg(answer)
	})
	must(t, err)
	return front
}

func unchanged(_ string, data []byte) []byte { return data }

// TestAnUpdateKeepsTheSettingsOfANewerServer gives each stream and consumer a setting that nats.go does not know.
func TestAnUpdateKeepsTheSettingsOfANewerServer(t *testing.T) {
	t.Parallel()
	in := install(t, bus.Settings{ResultsMaxAge: time.Hour, AckWait: time.Second})
	const setting = `"future_setting":{"most":9007199254740993}`
	var mu sync.Mutex
	updates := map[string]bool{} // whether the setting was sent, by subject
	front := behind(t, in, func(subject string, data []byte) []byte {
		if !strings.HasPrefix(subject, "$JS.API.STREAM.UPDATE.") && !strings.HasPrefix(subject, "$JS.API.CONSUMER.CREATE.") {
			return data
		}
		mu.Lock()
		defer mu.Unlock()
		updates[subject] = bytes.Contains(data, []byte(setting))
		// This server would refuse it.
		return bytes.ReplaceAll(bytes.ReplaceAll(data, []byte(setting+","), nil), []byte(","+setting), nil)
	}, func(subject string, data []byte) []byte {
		if strings.Contains(subject, ".INFO.") {
			return bytes.Replace(data, []byte(`"config":{`), []byte(`"config":{`+setting+","), 1)
		}
		return data
	})
	_, err := front.Apply(soon(t), bus.Settings{ResultsMaxAge: 2 * time.Hour, AckWait: 2 * time.Second})
	must(t, err)
	mu.Lock()
	defer mu.Unlock()
	if len(updates) < 3 {
		t.Errorf("got updates %v, want those of a stream and of two consumers", updates)
	}
	for subject, kept := range updates {
		if !kept {
			t.Errorf("%s resets a setting that only the server knows", subject)
		}
	}
	stream, err := in.js.Stream(soon(t), "GOFER_RESULTS")
	must(t, err)
	if got := stream.CachedInfo().Config.MaxAge; got != 2*time.Hour {
		t.Errorf("got max age %s, want that of the update", got)
	}
}

// leaderless answers one request about the account, the nth, as a cluster without a leader does.
func leaderless(nth int) func(subject string, data []byte) []byte {
	asked := 0
	return func(subject string, data []byte) []byte {
		if subject != "$JS.API.INFO" {
			return data
		}
		if asked++; asked != nth {
			return data
		}
		return []byte(`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`)
	}
}

func TestApplyWaitsForTheLeaderOfACluster(t *testing.T) {
	t.Parallel()
	in := bare(t)
	_, err := behind(t, in, unchanged, leaderless(1)).Apply(soon(t), bus.Settings{})
	must(t, err)
	left, err := in.Plan(soon(t), bus.Settings{})
	if err != nil || len(left) > 0 {
		t.Errorf("got %v, %v; want nothing left", left, err)
	}
}

// TestAnErrorAboutTheAccountIsNoRefusal: limits of zero would say that the account has no storage.
func TestAnErrorAboutTheAccountIsNoRefusal(t *testing.T) {
	t.Parallel()
	front := behind(t, bare(t), unchanged, leaderless(2)) // the first request is about the version
	found, err := front.Plan(soon(t), bus.Settings{})
	var failure *jetstream.APIError
	if !errors.As(err, &failure) || failure.ErrorCode != 10008 {
		t.Errorf("got error %v, want that of the server", err)
	}
	for _, d := range found {
		if d.Refused != "" {
			t.Errorf("%s: refused, %s: the server has not said so", d.Name, d.Refused)
		}
	}
}
