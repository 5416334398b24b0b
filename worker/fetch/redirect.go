package fetch

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/gofer-mq/gofer/jobs"
)

// redirect is the request that the answer asks for; nil when the answer is the one to keep.
func (x *exchange) redirect(ctx context.Context, req *http.Request, hop int) (*http.Request, error) {
	most := x.run.job.Redirects()
	status, location := x.resp.StatusCode, x.resp.Header.Get("Location")
	if !isRedirect(status) || location == "" || most == 0 || slices.Contains(x.run.job.Ban.Statuses, status) {
		return nil, nil
	}
	if hop >= most {
		return nil, errRedirects
	}
	target, err := x.locate(location)
	if err != nil {
		return nil, err
	}
	x.skipBody()
	x.cookies.store(x.target, x.resp)
	sameOrigin := x.target.SameOrigin(target)
	x.target = target
	return x.redirected(ctx, req, sameOrigin)
}

// redirectWait is how long the rest of a redirect is waited for. Its head says where to go.
const redirectWait = 100 * time.Millisecond

// skipBody reads the body that nobody wants, to keep its connection, if the whole of it is there or nearly so.
func (x *exchange) skipBody() {
	body := x.resp.Body
	timer := time.AfterFunc(redirectWait, func() { _ = body.Close() })
	n, err := io.Copy(io.Discard, io.LimitReader(body, maxDrained))
	if !timer.Stop() || err != nil || n == maxDrained {
		x.resp.Close = true
	}
}

// locate is where a Location leads to.
func (x *exchange) locate(location string) (jobs.URL, error) {
	target, err := x.target.Resolve(location)
	if bad := (*jobs.URLError)(nil); errors.As(err, &bad) && bad.Malformed {
		return jobs.URL{}, &locationError{bad.Reason}
	}
	if err != nil {
		return jobs.URL{}, &deniedError{"a redirect leads to a URL that no job may name: " + err.Error()}
	}
	if reason := x.run.f.refuses(target); reason != "" {
		return jobs.URL{}, &deniedError{"after a redirect: " + reason}
	}
	return target, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirected is the request for the new target (RFC 9110, 15.4): after a 303 it is a GET, or stays a HEAD; after a 301 or a 302 a
// POST becomes a GET, as it does everywhere. Anything else repeats method and body.
func (x *exchange) redirected(ctx context.Context, req *http.Request, sameOrigin bool) (*http.Request, error) {
	status, method, body := x.resp.StatusCode, req.Method, io.Reader(http.NoBody)
	switch {
	case status == http.StatusSeeOther && method != http.MethodHead, method == http.MethodPost && status <= http.StatusFound:
		method = http.MethodGet
	case req.GetBody != nil:
		again, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		body = again
	}
	next, err := x.request(ctx, method, body)
	if err != nil {
		return nil, err
	}
	if body != http.NoBody {
		next.ContentLength, next.GetBody = req.ContentLength, req.GetBody
	}
	x.keepHeader(next, req, sameOrigin)
	return next, nil
}
