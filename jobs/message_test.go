package jobs_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/testenv"
)

// carrier sends headers through a NATS server, as clients of nats.go encode and decode them.
func carrier(tb testing.TB) func(header map[string][]string) (map[string][]string, error) {
	tb.Helper()
	nc := testenv.StartNATS(tb, func(o *server.Options) { o.JetStream, o.StoreDir, o.MaxPayload = false, "", 8<<20 }).Connect()
	sub, err := nc.SubscribeSync("carried")
	if err != nil {
		tb.Fatal(err)
	}
	return func(header map[string][]string) (map[string][]string, error) {
		if err := nc.PublishMsg(&nats.Msg{Subject: "carried", Header: header}); err != nil {
			return nil, err
		}
		msg, err := sub.NextMsg(time.Minute)
		if err != nil {
			return nil, err
		}
		return msg.Header, nil
	}
}

// carryAlone is carrier without a server, whose own doings would look like finds to a fuzzer.
func carryAlone(header map[string][]string) (map[string][]string, error) {
	var block bytes.Buffer
	block.WriteString("NATS/1.0\r\n")
	for name, values := range header {
		for _, value := range values {
			fmt.Fprintf(&block, "%s: %s\r\n", name, value)
		}
	}
	block.WriteString("\r\n")
	// Zero: nats.go does not encode it; less: nats.go cuts a value.
	if size := (&nats.Msg{Header: header}).Size(); size != block.Len() {
		return nil, fmt.Errorf("nats.go encodes %d of %d bytes", size, block.Len())
	}
	return nats.DecodeHeadersMsg(block.Bytes())
}

func succeeded(header http.Header) *jobs.Result {
	return &jobs.Result{Queue: "q", ID: "j", Outcome: jobs.Succeeded, URL: "http://a.test/", FinishedAt: time.Unix(1, 0), Header: header, Body: []byte("ok")}
}

func message(tb testing.TB, r *jobs.Result) map[string][]string {
	tb.Helper()
	header, _, err := r.Message()
	if err != nil {
		tb.Fatal(err)
	}
	return header
}

// fieldsOf reads names and values of any bytes, each behind its length.
func fieldsOf(data []byte) (fields []jobs.HeaderField) {
	next := func() string {
		if len(data) < 2 {
			data = nil
			return ""
		}
		n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
		text := string(data[2 : 2+n])
		data = data[2+n:]
		return text
	}
	for len(data) > 0 {
		fields = append(fields, jobs.HeaderField{Name: next(), Value: next()})
	}
	return fields
}

func encoded(fields ...string) (data []byte) {
	for _, text := range fields {
		data = append(binary.BigEndian.AppendUint16(data, uint16(len(text))), text...)
	}
	return data
}

func headerOf(fields []jobs.HeaderField) http.Header {
	header := http.Header{}
	for _, field := range fields {
		header[field.Name] = append(header[field.Name], field.Value)
	}
	return header
}

// FuzzHeadersIntoMessages has a target send any bytes as names and values of header fields: NATS carries the message
// unchanged, and the order in which the fields came does not matter to that.
func FuzzHeadersIntoMessages(f *testing.F) {
	f.Add(encoded("X-Powered-By ", "PHP", "X B", "a", "Content-Type", " text/html\t"))
	f.Add(encoded("Set-Cookie", "a=1\r\nGofer-Outcome: failed", "", "", "Connection", "close, X-Hop", "x-hop", "1"))
	f.Add(encoded("X:Y", "\x00", "\u00fc", "\xff", "Content-Length", "2", "X-Big", strings.Repeat("b", 20000)))
	f.Fuzz(func(t *testing.T, data []byte) {
		fields := fieldsOf(data)
		ordered := succeeded(nil)
		ordered.Fields = fields
		ordered.Meta = map[string]string{"k": string(data)}
		for _, r := range []*jobs.Result{succeeded(headerOf(fields)), ordered} {
			want := message(t, r)
			got, err := carryAlone(want)
			if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
				t.Fatalf("carried %q, %v; want %q", got, err, want)
			}
		}
	})
}

func TestNATSCarriesWhateverHeadersATargetSends(t *testing.T) {
	carry := carrier(t)
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 12).Draw(t, "bytes")) })
		text := rapid.OneOf(raw, rapid.StringN(0, 12, -1), rapid.SampledFrom([]string{"Connection", "X A", "Set-Cookie", "a, b\t", " ", "\n"}))
		r := succeeded(http.Header{})
		for range rapid.IntRange(0, 8).Draw(t, "fields") {
			name := text.Draw(t, "name")
			r.Header[name] = append(r.Header[name], text.Draw(t, "value"))
		}
		// None of these comes from a target alone, but what no message can carry must not get through elsewhere either.
		r.URL, r.Worker, r.Meta = text.Draw(t, "url"), text.Draw(t, "worker"), map[string]string{text.Draw(t, "key"): text.Draw(t, "meta")}
		want, _, err := r.Message()
		if err != nil {
			t.Fatal(err)
		}
		got, err := carry(want)
		if err != nil || !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("carried %q, %v; want %q", got, err, want)
		}
	})
}

func TestAFieldThatNATSCannotCarryIsLeftOut(t *testing.T) {
	for _, c := range []struct {
		name, value string
		key         string // of the header in the message; empty if the field is left out
		truncated   bool
	}{
		{"X-Powered-By ", "PHP", "Http-X-Powered-By", false},
		{"x-powered-by\t ", "PHP", "Http-X-Powered-By", false},
		{"X B", "a", "", true},
		{"X(1)", "a", "", true},
		{"X-\u00dcber", "a", "", true},
		{"", "a", "", true},
		{"X-Line", "a\r\nb", "", true},
		{"X-Line", "a\rb", "", true},
		{"X-Bytes", "caf\xe9", "Http-X-Bytes", false},
		{"Transfer-Encoding ", "chunked", "", false},
		{"Proxy-Status", "x", "", false},
	} {
		h := message(t, succeeded(http.Header{c.name: {c.value}, "X-Kept": {"yes"}}))
		_, truncated := h["Gofer-Headers-Truncated"]
		kept := 0
		for name := range h {
			if strings.HasPrefix(name, "Http-") {
				kept++
			}
		}
		want := 1
		if c.key != "" {
			want = 2
			if got := h[c.key]; !slices.Equal(got, []string{c.value}) {
				t.Errorf("%q: %s is %q, want %q", c.name, c.key, got, c.value)
			}
		}
		if truncated != c.truncated || kept != want || !slices.Equal(h["Http-X-Kept"], []string{"yes"}) {
			t.Errorf("%q: %q: got %q; want %d header fields, truncated %v", c.name, c.value, h, want, c.truncated)
		}
	}
}

func TestTheFirst16KiBOfHeaderFieldsAreKeptInTheirOrder(t *testing.T) {
	r := succeeded(nil)
	add := func(name string, size int) {
		r.Fields = append(r.Fields, jobs.HeaderField{Name: name, Value: strings.Repeat("v", size)})
	}
	add("Z-First", 10)
	add("Huge", 17<<10) // a field that never fits keeps out no other one
	add("Connection", 20<<10)
	for i := range 200 {
		add(fmt.Sprintf("X-%03d", i), 120)
	}
	add("A-Last", 1)
	h := message(t, r)
	kept := 0
	for ; len(h[fmt.Sprintf("Http-X-%03d", kept)]) == 1; kept++ { //nolint:revive // counts
	}
	if kept < 100 || kept > 135 {
		t.Errorf("%d fields are kept, want those of 16 KiB", kept)
	}
	for name, want := range map[string]bool{
		"Http-Z-First": true, "Http-Huge": false, "Http-A-Last": false, fmt.Sprintf("Http-X-%03d", kept+1): false, "Gofer-Headers-Truncated": true,
	} {
		if _, there := h[name]; there != want {
			t.Errorf("%s is there %v, want %v", name, there, want)
		}
	}
}

func TestTheSameResultGivesTheSameMessage(t *testing.T) {
	header := http.Header{}
	for name := range strings.FieldsSeq("Content-Type Last-Modified Set-Cookie Link Cache-Control Content-Security-Policy") {
		header.Add(name, strings.Repeat("x", 500))
	}
	for i := range 180 {
		header.Add(fmt.Sprintf("X-Filler-%03d", i), strings.Repeat("f", 120))
	}
	attempts := []jobs.Attempt{{Attempt: 1, Phases: map[string]jobs.Duration{"connect": 1, "tls": 2, "wait": 3, "body": 4, "send": 5}}}
	invalid := func() jobs.Result {
		_, err := jobs.Decode("q", "j", []byte(`{"url":"x","not_before":"0000-01-01T00:00:00Z","deadline":"9999-01-01T00:00:00Z","meta":{"a b":"\u0001","c d":"","e f":""},"headers":{"X Y":"","Host":"","Te":""},"zz":1,"yy":1}`))
		return jobs.Result{Outcome: jobs.Failed, Error: jobs.ErrInvalidJob, Detail: fmt.Sprint(err), Reasons: reasonsOf(err), Attempts: attempts}
	}
	made := map[string]func() (any, error){
		"succeeded": func() (any, error) {
			h, body, err := succeeded(header.Clone()).Message()
			return []any{h, body}, err
		},
		"problem": func() (any, error) {
			r := invalid()
			h, body, err := r.Message()
			return []any{h, string(body)}, err
		},
		"dead letter": func() (any, error) {
			r := invalid()
			return r.Facts(), nil
		},
		"progress": func() (any, error) { return (&jobs.Progress{Attempts: attempts}).Encode() },
		"event": func() (any, error) {
			data, err := json.Marshal(jobs.RetryEvent{JobID: "j", At: time.Unix(1, 0)})
			return string(data), err
		},
	}
	for what, make := range made {
		first, err := make()
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if again, err := make(); err != nil || !reflect.DeepEqual(again, first) {
				t.Fatalf("%s: got %.300q, %v; want %.300q", what, again, err, first)
			}
		}
	}
}

func reasonsOf(err error) []string {
	invalid, _ := errors.AsType[*jobs.InvalidError](err)
	return invalid.Reasons
}

// TestAMessageCostsNoMoreThanItsSize takes header fields so many that only work in proportion to them comes to an end.
func TestAMessageCostsNoMoreThanItsSize(t *testing.T) {
	const names = 100_000
	named := succeeded(http.Header{"Connection": {strings.Repeat("a,", names)}})
	options := succeeded(http.Header{})
	for i := range names {
		named.Header[fmt.Sprintf("B%06d", i)] = []string{""}
		options.Header["Connection"] = append(options.Header["Connection"], fmt.Sprintf("B%06d", i))
		options.Header[fmt.Sprintf("B%06d", i)] = []string{"v"}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, r := range []*jobs.Result{named, options} {
			if _, _, err := r.Message(); err != nil {
				t.Error(err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("the messages are not built after a minute")
	}
}

func TestOmitLeavesTheFacts(t *testing.T) {
	r := jobs.Result{
		Queue: "q", ID: "j", Outcome: jobs.Succeeded, Status: 200, URL: "http://a.test/", Attempts: []jobs.Attempt{{Attempt: 1}}, AttemptCount: 1, Bytes: 7,
		Proxy: "p", Worker: "w", FinishedAt: time.Unix(1, 0), Header: http.Header{"X": {"y"}}, Body: []byte("b"), Meta: map[string]string{"k": "v"}, JobSeq: 3,
	}
	steps := 0
	for r.Omit() {
		steps++
	}
	header, body, err := r.Message()
	if err != nil {
		t.Fatal(err)
	}
	back := jobs.ParseResult(header, body)
	if want := []string{"headers", "attempts", "meta", "url", "body"}; steps != 5 || !slices.Equal(back.Omitted, want) {
		t.Errorf("%d steps, omitted %q; want %q", steps, back.Omitted, want)
	}
	if back.Outcome != jobs.Succeeded || back.Status != 200 || back.AttemptCount != 1 || back.Bytes != 7 || back.Proxy != "p" || back.JobSeq != 3 || !back.Truncated || len(back.Body) != 0 {
		t.Errorf("got %+v, want the facts", back)
	}
}

// FuzzProgress reads any text as what a waiting job takes along. What can be read goes on as it is, and ends in a result.
func FuzzProgress(f *testing.F) {
	for _, p := range []jobs.Progress{
		{},
		{JobSeq: 1 << 60, Bytes: -5, Started: time.Unix(1, 0).UTC(), WaitingSince: time.Unix(1<<33, 0).UTC()},
		{Attempts: []jobs.Attempt{{Attempt: -1, Error: "Nats-ScheduleNats-Schedule\r\n\xff", Phases: map[string]jobs.Duration{"\n": -1}}}},
	} {
		value, err := p.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value)
	}
	f.Add(`{"attempts":[{"started_at":"9999-12-31T23:59:59-23:59","duration":"-2562047h"}],"started":"0000-01-01T00:00:00Z"}`)
	f.Add(`{"started":"9999-12-31T23:59:59-23:59"}`)
	f.Add(`{"started":"0000-01-01T00:00:00+23:59"}`)
	f.Add(`{"attempts":null,"turn":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := jobs.ParseProgress(text)
		if err != nil {
			return
		}
		value, err := p.Encode()
		if err != nil {
			t.Fatalf("%+v cannot be written again: %v", p, err)
		}
		if strings.ContainsAny(value, "\r\n") || strings.Contains(value, "Nats-") {
			t.Errorf("%q cannot stand in a header", value)
		}
		back, err := jobs.ParseProgress(value)
		if again, _ := back.Encode(); err != nil || again != value {
			t.Errorf("%q is read back as %q, %v", value, again, err)
		}
		r := p.Result(&jobs.Job{Queue: "q", ID: "j"}, time.Unix(1, 0))
		r.Outcome, r.Error = jobs.Failed, jobs.ErrExpired
		if _, _, err := r.Message(); err != nil {
			t.Errorf("%+v has no result: %v", p, err)
		}
	})
}
