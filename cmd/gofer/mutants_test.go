package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/jobs/client"
	"github.com/gofer-mq/gofer/testenv"
)

const (
	mutants       = 1000
	mutantTimeout = time.Second
	mutantSeed    = 20260210
)

// soundAnswers are what the mutants are made of. The redirect leads to an answer that is sound.
func soundAnswers() []string {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, "packed text, packed text, packed text") // into memory, which never fails
	_ = z.Close()
	const tail = "Date: Tue, 10 Feb 2026 10:00:00 GMT\r\nContent-Type: text/html; charset=utf-8\r\nSet-Cookie: a=b; Path=/\r\nX-Powered-By: PHP\r\n"
	return []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + tail + "\r\nhello",
		"HTTP/1.1 302 Found\r\nLocation: /sound\r\nContent-Length: 0\r\n" + tail + "\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + tail + "\r\n5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nX-Trailer: z\r\n\r\n",
		fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n%s\r\n%s", packed.Len(), tail, packed.String()),
		"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\n" + tail + "\r\nwait",
	}
}

// mutant is a sound answer in which one to four bytes are replaced, inserted or missing.
func mutant(i int) []byte {
	luck := rand.New(rand.NewPCG(mutantSeed, uint64(i)))
	sound := soundAnswers()
	answer := []byte(sound[i%len(sound)])
	for range 1 + luck.IntN(4) {
		at, b := luck.IntN(len(answer)), byte(luck.UintN(256))
		if luck.IntN(2) == 0 { // what is likely to mean something
			const special = " \t\r\n:;,\x00\x7f\xff-0129"
			b = special[luck.IntN(len(special))]
		}
		switch luck.IntN(4) {
		case 0:
			answer = append(answer[:at], answer[at+1:]...)
		case 1:
			answer = append(answer[:at], append([]byte{b}, answer[at:]...)...)
		default:
			answer[at] = b
		}
	}
	return answer
}

// mutantProxy is a proxy that plays every site: m12.test sends mutant 12, and any other a sound answer. It leaves every other
// connection open, so that what is missing from an answer never comes.
func mutantProxy(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = c.Close() }()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })()
				in := bufio.NewReader(c)
				open := true
				for open {
					open = answerMutant(c, in)
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); stop(); serving.Wait() })
	return l.Addr().String()
}

func answerMutant(c net.Conn, in *bufio.Reader) (open bool) {
	req, err := http.ReadRequest(in)
	if err != nil {
		return false
	}
	name := strings.TrimSuffix(req.URL.Hostname(), ".test")
	i, err := strconv.Atoi(strings.TrimPrefix(name, "m"))
	answer := []byte(soundAnswers()[0])
	if err == nil && req.URL.Path == "/" {
		answer = mutant(i)
	}
	_, err = c.Write(answer)
	return err == nil && i%2 == 0
}

// TestEachMutantOfAnAnswerEndsInOneResult has sites send answers in which a few bytes are wrong.
func TestEachMutantOfAnAnswerEndsInOneResult(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	addr := mutantProxy(t)
	var proxies []string
	for i := range 20 { // users of one address: what one answer does to its proxy keeps no other job from running
		proxies = append(proxies, fmt.Sprintf("http://u%d:pw@%s id=p%[1]d", i, addr))
	}
	setenv(t, "GOFER_PROXIES", strings.Join(proxies, ","))
	setenv(t, "GOFER_BREAKER_FAILURE_THRESHOLD", "1000")
	setenv(t, "GOFER_LOG_LEVEL", "error")
	w.named("w1")
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(id, host string) {
		job := fmt.Sprintf(`{"url":"http://%s/","timeout":%g,"retry":{"max_attempts":1}}`, host, mutantTimeout.Seconds())
		if _, err := js.PublishAsync("gofer.jobs.default."+id, []byte(job)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range mutants {
		publish(fmt.Sprint("m", i), fmt.Sprintf("m%d.test", i))
	}
	publish("healthy", "healthy.test")
	<-js.PublishAsyncComplete()
	missing := map[string]bool{"healthy": true}
	for i := range mutants {
		missing[fmt.Sprint("m", i)] = true
	}
	late := w.collect(missing)
	for id := range missing {
		i, _ := strconv.Atoi(strings.TrimPrefix(id, "m"))
		t.Errorf("job %s has no result; seed %d, its site sent %q", id, mutantSeed, mutant(i))
	}
	for _, r := range late {
		t.Errorf("job %s took %v with a time-out of %v", r.ID, r.Duration, mutantTimeout)
	}
	if r := w.result("healthy"); r.Outcome != jobs.Succeeded || string(r.Body) != "hello" {
		t.Errorf("the healthy job behind them: %+v, want it succeeded", r)
	}
	for _, name := range []string{"GOFER_JOBS", "GOFER_RETRIES"} {
		testenv.Eventually(t, "each job to be gone from "+name, func() bool {
			stream, err := js.Stream(t.Context(), name)
			return err == nil && stream.CachedInfo().State.Msgs == 0
		})
	}
}

// collect takes the results of missing jobs off it as they come, until none is missing or patience is over. It returns those that
// took more than 5 s longer than their time-out.
func (w *world) collect(missing map[string]bool) (late []jobs.Result) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	done := errors.New("all results are there")
	err := client.New(w.client).Follow(ctx, bus.Filter{All: true}, func(r jobs.Result) error {
		if !missing[r.ID] {
			w.Errorf("job %s has a second result, or was never published", r.ID)
		}
		delete(missing, r.ID)
		if r.Duration > mutantTimeout+5*time.Second {
			late = append(late, r)
		}
		if len(missing) == 0 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) && len(missing) == 0 {
		w.Error(err)
	}
	return late
}
