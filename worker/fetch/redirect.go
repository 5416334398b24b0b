package fetch

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

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
	target, err := req.URL.Parse(location)
	if err != nil {
		return nil, &deniedError{"a redirect leads to something that is not a URL"}
	}
	if len(target.String()) > jobs.MaxURLBytes {
		return nil, &deniedError{"a redirect leads to a URL that is too long"}
	}
	if reason := jobs.URLReason(target); reason != "" {
		return nil, &deniedError{"a redirect leads to a URL that no job may name: " + reason}
	}
	if reason := x.run.f.refuses(target); reason != "" {
		return nil, &deniedError{"after a redirect: " + reason}
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(x.resp.Body, maxDrained)); err != nil || n == maxDrained {
		x.resp.Close = true
	}
	return redirected(ctx, req, target, status)
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirected is the next request (RFC 9110, 15.4): after a 303 it is a GET, or stays a HEAD; after a 301 or a 302 a POST becomes
// a GET, as it does everywhere. Anything else repeats method and body.
// Across origins only what says nothing about the user goes along.
func redirected(ctx context.Context, req *http.Request, target *url.URL, status int) (*http.Request, error) {
	method, body := req.Method, io.Reader(http.NoBody)
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
	next, err := request(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if body != http.NoBody {
		next.ContentLength, next.GetBody = req.ContentLength, req.GetBody
	}
	sameOrigin := req.URL.Scheme == target.Scheme && hostPort(req.URL) == hostPort(target)
	for name, values := range req.Header {
		about := body == http.NoBody && strings.HasPrefix(name, "Content-") // a body that is not sent again
		if sameOrigin && !about || name == "User-Agent" || strings.HasPrefix(name, "Accept") {
			next.Header[name] = values
		}
	}
	return next, nil
}
