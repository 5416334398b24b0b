package fetch_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/testenv"
)

// A proxy without a network of its own says of every target that it cannot be reached.
func TestAProxyThatReachesNoTargetIsFound(t *testing.T) {
	for name, start := range map[string]func(*rig) string{
		"SOCKS": func(r *rig) string {
			return "socks5h://" + r.script(func(_ int64, c net.Conn) {
				_, _ = io.ReadFull(c, make([]byte, 3))
				_, _ = c.Write([]byte{5, 0})
				_, _ = c.Read(make([]byte, 300))
				_, _ = c.Write([]byte{5, 4, 0, 1, 0, 0, 0, 0, 0, 0})
			}).String()
		},
		"squid": func(r *rig) string {
			return r.replies("HTTP/1.1 503 Service Unavailable\r\nX-Squid-Error: ERR_CONNECT_FAIL 101\r\nContent-Length: 0\r\n\r\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			good := r.proxy(testenv.Good, nil)
			r.use(start(r)+" id=bad", good.URL("http")+" id=good", r.proxy(testenv.Good, nil).URL("http")+" id=good2")
			for i := range 60 {
				o := r.do(fmt.Sprintf(`{"url":"http://shop.test:%d/bytes/1","retry":{"base_delay":0.1,"jitter":false}}`, 80+i%7))
				if o.Result.Status != http.StatusOK {
					t.Fatalf("job %d: %s %s", i, o.Result.Outcome, o.Result.Error)
				}
			}
			for id, state := range r.pool.States() {
				if open := state != breaker.Closed; open != (id == "bad") {
					t.Errorf("%s is %s, want the one open that reaches nothing", id, state)
				}
			}
		})
	}
}
