package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// redirect returns the request that the response asks for; nil if the response is the one to keep. n counts the redirects
// before it. Errors: errRedirects, errMatch, *locationError, *deniedError. A status that the job calls a ban is no
// redirect to follow.
func (x *exchanges) redirect(ctx context.Context, l connLease, req request, n int) (*request, error) {
	limit := x.run.job.Redirects()
	status, location := x.resp.StatusCode, x.resp.Header.Get("Location")
	if !isRedirect(status) || location == "" || x.run.isBan(status) {
		return nil, nil
	}
	if err := x.matchRedirect(ctx, location); err != nil || x.matched || limit == 0 {
		return nil, err
	}
	if n >= limit {
		return nil, errRedirects
	}
	target, err := x.locate(location)
	if err != nil {
		return nil, err
	}
	if x.proxy != nil {
		x.run.f.cfg.Pool.Times().AddResponse(x.site, x.firstByte, time.Now())
	}
	x.skipBody(l)
	x.cookies.store(x.target, x.resp.Response)
	sameOrigin := x.target.SameOrigin(target)
	x.target = target
	return x.redirected(req, sameOrigin), nil
}

// redirectWait bounds the wait for the body of a redirect, which is not needed: the header says where to go.
const redirectWait = 100 * time.Millisecond

// skipBody reads an unwanted body, so that its connection can be used again. It gives up after redirectWait or
// maxDrained bytes: then a new connection costs less.
func (x *exchanges) skipBody(l connLease) {
	body := x.resp.Body
	if l.http1 != nil {
		_ = l.meter.SetReadDeadline(time.Now().Add(redirectWait))
		_, _ = io.Copy(io.Discard, io.LimitReader(body, maxDrained))
		return
	}
	timer := time.AfterFunc(redirectWait, func() { _ = body.Close() })
	n, err := io.Copy(io.Discard, io.LimitReader(body, maxDrained))
	if !timer.Stop() || err != nil || n == maxDrained {
		x.resp.Close = true
	}
}

// locate resolves a Location against the present URL (RFC 3986, 5) and checks that gofer may fetch it. Errors:
// *locationError if it is no URL, *deniedError if the URL may not be fetched.
func (x *exchanges) locate(location string) (jobs.URL, error) {
	target, err := x.target.Resolve(location)
	if bad := (*jobs.URLError)(nil); errors.As(err, &bad) && bad.Malformed {
		return jobs.URL{}, &locationError{bad.Reason}
	}
	if err != nil {
		return jobs.URL{}, &deniedError{"a redirect leads to a URL that no job may name: " + err.Error()}
	}
	if reason := x.run.f.denyReason(target); reason != "" {
		return jobs.URL{}, &deniedError{"after a redirect: " + reason}
	}
	return target, nil
}

// isRedirect reports whether a status asks for another request (RFC 9110, 15.4). 300 and 304 do not.
func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirected is the request for the new target (RFC 9110, 15.4): after a 303 it is a GET, or stays a HEAD; after a 301 or a 302 a
// POST becomes a GET, as it does everywhere. Anything else repeats method and body.
func (x *exchanges) redirected(last request, sameOrigin bool) *request {
	next, status := &request{method: last.method, header: http.Header{}, body: last.body}, x.resp.StatusCode
	if status == http.StatusSeeOther && last.method != http.MethodHead || last.method == http.MethodPost && status <= http.StatusFound {
		next.method, next.body = http.MethodGet, nil
	}
	x.keepHeader(next, last, sameOrigin)
	return next
}
