package fetch_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

// TestAResultHasTheHeaderFieldsInTheOrderInWhichTheyCame: an http.Header has none.
func TestAResultHasTheHeaderFieldsInTheOrderInWhichTheyCame(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX-Last: 1\r\nX-First: 2\r\nx-last: 3\r\nContent-Length: 2\r\n\r\nok")
			}
			_ = c.Close()
		}
	}()
	r := newRig(t, nil)
	r.use("http://" + l.Addr().String() + " id=p")
	result := r.do(`{"url":"http://shop.test/"}`).Result
	var got []string
	for _, f := range result.Fields {
		if strings.HasPrefix(strings.ToLower(f.Name), "x-") {
			got = append(got, f.Name+": "+f.Value)
		}
	}
	if text := strings.Join(got, ", "); result.Outcome != jobs.Succeeded || text != "X-Last: 1, X-First: 2, x-last: 3" {
		t.Errorf("%s %s, fields %q; want them as they came", result.Outcome, result.Detail, text)
	}
}
