package fetch_test

import (
	"io"
	"net"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
)

// TestTheErrorOfAProxyThatIsListedWronglySaysSo has proxies that are listed without credentials, or by the wrong scheme, and that
// are silent where others answer.
func TestTheErrorOfAProxyThatIsListedWronglySaysSo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		scheme string
		serve  func(net.Conn)
		want   string
	}{
		"SOCKS with credentials that nobody offered": {"socks5h", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 512))
			_, _ = io.WriteString(c, "\x05\x02")
			_, _ = io.Copy(io.Discard, c)
		}, "the SOCKS proxy failed: it wants credentials of another kind"},
		"SOCKS with a method of its own": {"socks5", func(c net.Conn) {
			_, _ = c.Read(make([]byte, 512))
			_, _ = io.WriteString(c, "\x05")
			_, _ = io.WriteString(c, "\x80")
			_, _ = io.Copy(io.Discard, c)
		}, "the SOCKS proxy failed: it wants credentials of another kind"},
		"plain HTTP that waits for a line": {"https", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
			"the proxy cannot be reached: timeout; if the proxy speaks plain HTTP, list it as http://"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			r.use(c.scheme + "://" + r.script(func(_ int64, nc net.Conn) { c.serve(nc) }).String() + " id=p")
			o := r.do(`{"url":"http://8.8.8.8/","timeout":1.5,"retry":{"max_attempts":1}}`)
			if len(o.Result.Attempts) != 1 {
				t.Fatalf("%s %s with %d attempts", o.Result.Outcome, o.Result.Error, len(o.Result.Attempts))
			}
			if a := o.Result.Attempts[0]; a.Error != c.want || a.Fault != jobs.FaultProxy {
				t.Errorf("got %q, fault %q; want %q, fault proxy", a.Error, a.Fault, c.want)
			}
		})
	}
}
