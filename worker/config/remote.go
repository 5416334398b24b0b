package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gofer-mq/gofer/jobs/text"
	"github.com/gofer-mq/gofer/rotation/proxylist"
)

const (
	// maxRemote bounds a list that is fetched, in bytes after decoding; remoteTimeout bounds the time for all of it.
	maxRemote     = 16 << 20
	remoteTimeout = 30 * time.Second
	// maxReasons is how many broken lines of such a list are named: its server may send a page, whose every line is one.
	maxReasons = 10
	// maxReason bounds the text of an error that a server has a part in.
	maxReason = 300
)

// proxiesURL reads GOFER_PROXIES_URL; nil means that it is not set. The error is a reason that holds nothing of the
// URL. It parses at each call, so Config keeps the URL in one form only.
func (c *Config) proxiesURL() (*url.URL, error) {
	written := strings.TrimSpace(c.ProxiesURL)
	if written == "" {
		return nil, nil
	}
	u, err := url.Parse(written)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || len(written) > 8<<10:
		return nil, errors.New("GOFER_PROXIES_URL: not an absolute https URL of at most 8 KiB")
	case u.Scheme != "https" && (u.Scheme != "http" || !loopbackHost(u.Hostname())):
		return nil, errors.New("GOFER_PROXIES_URL: neither https nor http on loopback: everybody on the way could read and change the list")
	case u.User != nil && !c.urlFile:
		return nil, errors.New("GOFER_PROXIES_URL: it has a user or a password, which every process can see there: write the URL into a file, and set GOFER_PROXIES_URL_FILE to its name")
	}
	return u, nil
}

// loopbackHost reports whether a host of a URL is this machine. A name other than localhost may be looked up as
// anything, so it does not count.
func loopbackHost(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// FetchProxies fetches the list of GOFER_PROXIES_URL once; it is empty without such a URL. Each line of the error begins with
// the variable, and none holds the URL or a line's text.
func (c *Config) FetchProxies(ctx context.Context) ([]proxylist.Proxy, error) {
	u, err := c.proxiesURL()
	if err != nil {
		return nil, err
	}
	if u == nil {
		return nil, nil
	}
	// A list of its own, without the state of a running watch.
	list := newRemoteList(u, c.UserAgent)
	if _, err := list.refresh(ctx); err != nil {
		return nil, err
	}
	return list.proxies, nil
}

// remoteList is a list of proxies that a URL names, and its last good state. Its methods are called one after the other.
type remoteList struct {
	url       *url.URL // may hold credentials, also in its path and query: never shown
	userAgent string
	client    *http.Client

	proxies        []proxylist.Proxy
	known          bool // the list was read once
	sum            [sha256.Size]byte
	etag, modified string // of the last good answer
}

// newRemoteList makes a list that was not read yet. It is fetched directly: the variables HTTPS_PROXY and the like have no
// influence, and a redirect is not followed, for another server would choose its target.
func newRemoteList(u *url.URL, userAgent string) *remoteList {
	dialer := &net.Dialer{}
	if u.Scheme == "http" {
		dialer.Control = onlyLoopback // whatever the name stands for
	}
	// The bounds on header and body are for a hostile server.
	return &remoteList{url: u, userAgent: userAgent, client: &http.Client{
		// Each fetch has its own connection: minutes lie between two of them.
		Transport:     &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// onlyLoopback refuses a connection to another machine.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if host, _, err := net.SplitHostPort(address); err != nil || !loopbackHost(host) {
		return errors.New("the host is not on loopback")
	}
	return nil
}

// refresh fetches the list and reports whether it has changed. After an error the last good list stays. Each line of the error
// begins with the variable, and none holds the URL or a line's text.
func (l *remoteList) refresh(ctx context.Context) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	if changed, err = l.fetch(ctx); err == nil {
		return changed, nil
	}
	// The context's own error would only say that a deadline was exceeded.
	if ctx.Err() != nil {
		err = fmt.Errorf("not read within %s", remoteTimeout)
	}
	return false, joined(linesOf("GOFER_PROXIES_URL", err))
}

// transportError is why no answer came. What a server sent stands in quotes, and ends the text here: it may have sent back the
// request.
func transportError(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // the outer one holds the URL
	}
	reason, _, _ := strings.Cut(err.Error(), `"`)
	if reason = text.Printable(strings.TrimSpace(reason)); len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return errors.New(reason)
}

// answerBody is the body of an answer. What a server sent, such as the reason why it ends the connection, is in no
// error of it. io.EOF passes unchanged, since readers compare it.
type answerBody struct{ io.Reader }

// Read reads from the body.
func (b answerBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = transportError(err)
	}
	return n, err
}

// fetch asks for the list, unless the server says that it is the one that is known.
func (l *remoteList) fetch(ctx context.Context) (changed bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url.String(), http.NoBody)
	if err != nil {
		return false, errors.New("no request can be made of it")
	}
	request.Header.Set("User-Agent", l.userAgent)
	if l.etag != "" {
		request.Header.Set("If-None-Match", l.etag)
	}
	if l.modified != "" {
		request.Header.Set("If-Modified-Since", l.modified)
	}
	answer, err := l.client.Do(request)
	if err != nil {
		return false, transportError(err)
	}
	defer func() { _ = answer.Body.Close() }()
	switch status := answer.StatusCode; {
	// A server that answers 304 before it was asked conditionally is wrong, and is an error below.
	case status == http.StatusNotModified && l.known:
		return false, nil
	case slices.Contains([]int{301, 302, 303, 307, 308}, status):
		return false, fmt.Errorf("the server answers %d, a redirect, which is not followed: set the URL that it leads to", status)
	case status != http.StatusOK:
		return false, fmt.Errorf("the server answers %d %s", status, http.StatusText(status))
	}
	return l.take(answer)
}

// take reads the list of an answer.
func (l *remoteList) take(answer *http.Response) (changed bool, err error) {
	sum := sha256.New()
	proxies, err := parseRemote(answerBody{answer.Body}, sum)
	if err != nil {
		return false, err
	}
	now := [sha256.Size]byte(sum.Sum(nil))
	// The sum notices a change even if the server knows no ETag.
	changed = !l.known || now != l.sum
	// The state of the last good response changes as a whole, and only here.
	l.proxies, l.known, l.sum = proxies, true, now
	l.etag, l.modified = answer.Header.Get("Etag"), answer.Header.Get("Last-Modified")
	return changed, nil
}

// parseRemote reads a list as sellers write them, and adds its bytes to a sum. One broken line refuses all of it, as in a file.
// The error names the first broken lines and counts the others.
func parseRemote(body io.Reader, sum hash.Hash) ([]proxylist.Proxy, error) {
	// One byte more than allowed, so that a list of exactly the limit is taken.
	bounded := &io.LimitedReader{R: body, N: maxRemote + 1}
	var proxies []proxylist.Proxy
	var reasons []string
	broken := 0
	for line, err := range proxylist.SoldLines(io.TeeReader(bounded, sum), "http") {
		switch {
		case bounded.N <= 0:
			return nil, fmt.Errorf("the list has more than %d bytes", maxRemote)
		case err != nil:
			return nil, err
		case line.Err == nil:
			proxies = append(proxies, line.Proxy)
			continue
		}
		if broken++; broken <= maxReasons {
			reasons = append(reasons, fmt.Sprintf("line %d: %v", line.Number, line.Err))
		}
	}
	switch {
	case bounded.N <= 0:
		return nil, fmt.Errorf("the list has more than %d bytes", maxRemote)
	case broken > maxReasons:
		reasons = append(reasons, fmt.Sprintf("and %d more lines", broken-maxReasons))
	case broken == 0 && len(proxies) == 0:
		return nil, errors.New("the list is empty")
	}
	if broken > 0 {
		return nil, joined(reasons)
	}
	return proxies, nil
}
