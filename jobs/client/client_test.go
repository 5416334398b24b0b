package client_test

import (
	"context"
	"errors"
	"io"
	"iter"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

// opened is a client on the server of the examples until the test ends.
func opened(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Open(t.Context(), client.Config{URL: serverURL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestEveryMethodOfAZeroClientReturnsAnError calls each exported method that returns an error, with zero arguments.
func TestEveryMethodOfAZeroClientReturnsAnError(t *testing.T) {
	zero := reflect.ValueOf(&client.Client{})
	isError := func(v reflect.Value) bool {
		_, ok := reflect.TypeAssert[error](v)
		return ok
	}
	for i := range zero.NumMethod() {
		name, method := zero.Type().Method(i).Name, zero.Method(i)
		if name == "Close" {
			method.Call(nil)
			continue
		}
		args := []reflect.Value{reflect.ValueOf(t.Context())}
		for j := 1; j < method.Type().NumIn(); j++ {
			args = append(args, reflect.Zero(method.Type().In(j)))
		}
		out := method.Call(args)
		if results, ok := reflect.TypeAssert[iter.Seq2[jobs.Result, error]](out[0]); ok {
			for _, err := range results {
				out = []reflect.Value{reflect.ValueOf(err)}
			}
		}
		if !isError(out[len(out)-1]) {
			t.Errorf("%s of a zero client returns no error", name)
		}
	}
}

func TestMissingSourceOrFunctionIsAnErrorAtOnce(t *testing.T) {
	c := opened(t)
	none := func(func(jobs.Job) bool) { t.Error("a job is taken") }
	for name, err := range map[string]error{
		"SubmitMany without a source":    c.SubmitMany(t.Context(), nil, 0, func(jobs.Job, client.Ack, error) {}),
		"SubmitMany without done":        c.SubmitMany(t.Context(), none, 0, nil),
		"SubmitMany with no window":      c.SubmitMany(t.Context(), none, -1, func(jobs.Job, client.Ack, error) {}),
		"WaitEach without keys":          c.WaitEach(t.Context(), nil, func(jobs.Result) error { return nil }),
		"WaitEach without a function":    c.WaitEach(t.Context(), make(chan client.Key), nil),
		"Follow without a function":      c.Follow(t.Context(), client.Filter{}, nil),
		"Events without a function":      c.Events(t.Context(), client.Filter{}, nil),
		"DeadLetters without a function": c.DeadLetters(t.Context(), nil),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	for _, err := range c.FetchAll(t.Context(), nil) {
		if err == nil {
			t.Error("FetchAll without a source: got no error")
		}
	}
}

func TestBodyOfAJobWithoutOneIsAnError(t *testing.T) {
	c := opened(t)
	failed, err := c.Fetch(t.Context(), jobs.Job{URL: "http://shop.test/broken"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []jobs.Result{{}, failed} {
		if _, err := c.Body(t.Context(), r); !errors.Is(err, client.ErrNoBody) {
			t.Errorf("outcome %q: got %v, want ErrNoBody", r.Outcome, err)
		}
	}
}

func TestBodyOfAResultThatWasFollowedWithoutPayloadIsRead(t *testing.T) {
	c := opened(t)
	fetched, err := c.Fetch(t.Context(), jobs.Job{URL: "http://shop.test/headers"})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	err = c.Follow(t.Context(), client.Filter{All: true, UntilNow: true, HeadersOnly: true}, func(r jobs.Result) error {
		if r.ID != fetched.ID {
			return nil
		}
		body, err := c.Body(t.Context(), r)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(body)
		got = string(data)
		return err
	})
	if err != nil || got != "<h1>headers</h1>" {
		t.Errorf("got %q, %v", got, err)
	}
}

// fetches collects what FetchAll yields, by id.
func fetches(t *testing.T, seq iter.Seq2[jobs.Result, error], each func(jobs.Result)) (ends map[string]error) {
	t.Helper()
	ends = map[string]error{}
	for r, err := range seq {
		if _, twice := ends[r.ID]; twice {
			t.Errorf("job %s is yielded twice", r.ID)
		}
		ends[r.ID] = err
		each(r)
	}
	return ends
}

func source(prefix, path string, ids ...string) iter.Seq[jobs.Job] {
	return func(yield func(jobs.Job) bool) {
		for _, id := range ids {
			if !yield(jobs.Job{ID: prefix + id, URL: "http://shop.test/" + path}) {
				return
			}
		}
	}
}

func TestFetchAllYieldsEachJobOnceAlsoWhenItsContextEnds(t *testing.T) {
	c := opened(t)
	ids := make([]string, 600) // more than SubmitMany has in flight
	for i := range ids {
		ids[i] = string(rune('a'+i/26)) + string(rune('a'+i%26))
	}
	taken := 0
	ours := errors.New("enough")
	ctx, stop := context.WithCancelCause(t.Context())
	jobsOf := func(yield func(jobs.Job) bool) {
		for job := range source("ends-", "page", ids...) {
			if taken++; !yield(job) {
				return
			}
		}
	}
	results := 0
	ends := fetches(t, c.FetchAll(ctx, jobsOf), func(jobs.Result) {
		if results++; results == 5 {
			stop(ours)
		}
	})
	if len(ends) != taken {
		t.Errorf("got %d jobs, want the %d that were taken", len(ends), taken)
	}
	for id, err := range ends {
		if err != nil && !errors.Is(err, ours) {
			t.Errorf("job %s: got %v, want the cause of the end", id, err)
		}
	}
}

func TestFetchAllNamesTheJobsThatGoOnWithoutIt(t *testing.T) {
	c := opened(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() {
		defer cancel(context.DeadlineExceeded)
		for _, id := range []string{"goes-on-1", "goes-on-2"} {
			testenv.Eventually(t, "job "+id+" to be queued", func() bool {
				found, err := c.Find(t.Context(), client.Key{Queue: jobs.DefaultQueue, ID: id})
				return err == nil && len(found) == 1
			})
		}
	}()
	ends := fetches(t, c.FetchAll(ctx, source("goes-on-", "slow", "1", "2")), func(r jobs.Result) {
		if r.URL != "http://shop.test/slow" || r.Queue != jobs.DefaultQueue {
			t.Errorf("got %+v, want the job's queue and URL", r)
		}
	})
	for _, id := range []string{"goes-on-1", "goes-on-2"} {
		if !errors.Is(ends[id], context.DeadlineExceeded) {
			t.Errorf("job %s: got %v, want the deadline", id, ends[id])
		}
		if err := c.Cancel(t.Context(), client.Key{Queue: jobs.DefaultQueue, ID: id}); err != nil {
			t.Errorf("job %s does not go on: %v", id, err)
		}
	}
}

func TestALoopOverFetchAllMayBeBrokenOff(t *testing.T) {
	c := opened(t)
	left := false
	endless := func(yield func(jobs.Job) bool) {
		defer func() { left = true }()
		for yield(jobs.Job{URL: "http://shop.test/page"}) {
		}
	}
	for _, err := range c.FetchAll(t.Context(), endless) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if !left {
		t.Error("the source is still asked for jobs")
	}
}

func TestOneIDTwiceInFetchAllIsOneResultAndOneRefusal(t *testing.T) {
	c := opened(t)
	results, refused := 0, 0
	for _, err := range c.FetchAll(t.Context(), source("twin", "page", "", "")) {
		switch {
		case err == nil:
			results++
		case errors.Is(err, client.ErrQueued), errors.Is(err, client.ErrFinished):
			refused++
		default:
			t.Error(err)
		}
	}
	if results != 1 || refused != 1 {
		t.Errorf("got %d results and %d refusals, want one of each", results, refused)
	}
}

func TestAConfigThatCannotBeMeantIsAnErrorThatNamesItsField(t *testing.T) {
	for field, c := range map[string]client.Config{
		"Prefix":   {URL: serverURL, Prefix: "My.Prefix"},
		"Domain":   {URL: serverURL, Domain: "hub.>"},
		"URL":      {URL: "nats://"},
		"Password": {URL: serverURL, Password: "secret"},
		"Token":    {URL: serverURL, User: "u", Token: "secret"},
		"Nkey":     {URL: serverURL, Nkey: "secret"},
		"Creds":    {URL: serverURL, Creds: t.TempDir()},
		"Key":      {URL: serverURL, Key: "key.pem"},
	} {
		_, err := client.Open(t.Context(), c)
		var bad *client.FieldError
		if !errors.As(err, &bad) || bad.Field != field || strings.Contains(err.Error(), "GOFER_") || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v, want what is wrong with %s, without a secret and without a variable of gofer", err, field)
		}
	}
}

func TestACancelNamesTheConnection(t *testing.T) {
	c, err := client.Open(t.Context(), client.Config{URL: serverURL, Name: "night shift"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ack, err := c.Submit(t.Context(), jobs.Job{URL: "http://shop.test/slow"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Cancel(t.Context(), ack.Key); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Result(t.Context(), ack.Key); err != nil || r.Worker != "night shift" {
		t.Errorf("got worker %q, %v; want the connection's name", r.Worker, err)
	}
}

func TestAClosedClientReturnsErrors(t *testing.T) {
	c := opened(t)
	c.Close()
	c.Close()
	if _, err := c.Submit(t.Context(), jobs.Job{URL: "http://shop.test/page"}); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

func TestZeroArgumentsAreErrorsAtOnce(t *testing.T) {
	c, ctx := opened(t), t.Context()
	_, submit := c.Submit(ctx, jobs.Job{})
	_, fetch := c.Fetch(ctx, jobs.Job{})
	_, result := c.Result(ctx, client.Key{})
	_, wait := c.Wait(ctx, client.Key{})
	_, find := c.Find(ctx, client.Key{})
	_, resolve := c.Resolve(ctx, "")
	_, story := c.Story(ctx, client.Key{ID: "a"})
	_, letter := c.DeadLetter(ctx, client.Key{})
	_, replay := c.Replay(ctx, client.DeadLetter{})
	_, body := c.Body(ctx, jobs.Result{})
	for what, err := range map[string]error{
		"Submit": submit, "Fetch": fetch, "Result": result, "Wait": wait, "Find": find, "Resolve": resolve, "Story": story,
		"DeadLetter": letter, "Replay": replay, "Body": body, "Cancel": c.Cancel(ctx, client.Key{}),
		"RemoveDeadLetter": c.RemoveDeadLetter(ctx, client.DeadLetter{}), "Pause": c.Pause(ctx, "", time.Time{}), "Resume": c.Resume(ctx, ""),
	} {
		if err == nil {
			t.Errorf("%s of nothing returns no error", what)
		}
	}
}
