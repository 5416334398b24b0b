package fetch

import (
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gofer-mq/gofer/jobs"
)

// offer is what a server is offered in a TLS handshake. The zero value is the usual: HTTP/2 first, and the cipher suites of
// crypto/tls.
type offer struct {
	http1 bool // no HTTP/2
	rsa   bool // suites with RSA key exchange
}

// protocols are the versions of HTTP, by their names in ALPN.
func (o offer) protocols() []string {
	if o.http1 {
		return []string{"http/1.1"}
	}
	return []string{"h2", "http/1.1"}
}

// suites returns the cipher suites up to TLS 1.2; nil means those of crypto/tls. RSA key exchange comes last, and never
// with 3DES or RC4: it lacks forward secrecy, but old servers support nothing else.
func (o offer) suites() (ids []uint16) {
	if !o.rsa {
		return nil
	}
	for _, suite := range tls.CipherSuites() {
		ids = append(ids, suite.ID)
	}
	for _, suite := range tls.InsecureCipherSuites() {
		if strings.HasPrefix(suite.Name, "TLS_RSA_WITH_AES_") {
			ids = append(ids, suite.ID)
		}
	}
	return ids
}

// wantsRSA reports whether the target, and not a proxy, ended the handshake because it found no common suite. Only an
// alert from the other end says so.
func wantsRSA(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	code, alerted := alert(err)
	return alerted && code == handshakeFailure && ok && op.Op == "remote error" && !hasType[*uncertified](err)
}

// maxHosts bounds how many hosts are remembered.
const maxHosts = 4096

// hosts is a set of hosts that forgets all of them when it is full. The zero value is empty.
type hosts struct {
	nonEmpty atomic.Bool // the set is not empty: most are, and need no lock
	mu       sync.Mutex  // guards set
	set      map[string]struct{}
}

// add adds the host and port of a URL.
func (h *hosts) add(u jobs.URL) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set == nil || len(h.set) >= maxHosts {
		h.set = map[string]struct{}{}
	}
	h.set[u.HostPort()] = struct{}{}
	h.nonEmpty.Store(true)
}

// has reports whether the host and port of a URL are in the set.
func (h *hosts) has(u jobs.URL) bool {
	if !h.nonEmpty.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.set[u.HostPort()]
	return ok
}
