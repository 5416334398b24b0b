package fetch

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// redirect is the request that the answer asks for; nil when the answer is the one to keep.
func (x *exchange) redirect(ctx context.Context, req *http.Request, hop int) (*http.Request, error) {
	most := x.run.job.Redirects()
	location := x.resp.Header.Get("Location")
	if !isRedirect(x.resp.StatusCode) || location == "" || most == 0 {
		return nil, nil
	}
	if hop >= most {
		return nil, errRedirects
	}
	target, err := req.URL.Parse(location)
	if err != nil {
		return nil, &deniedError{"a redirect leads to something that is not a URL"}
	}
	target.User = nil // never sent, never shown
	if len(target.String()) > jobs.MaxURLBytes || jobs.URLReason(target) != "" {
		return nil, &deniedError{"a redirect leads to something that no job may name"}
	}
	if reason := x.run.f.refuses(target); reason != "" {
		return nil, &deniedError{"after a redirect: " + reason}
	}
	if n, err := io.Copy(io.Discard, io.LimitReader(x.resp.Body, maxDrained)); err != nil || n == maxDrained {
		x.resp.Close = true
	}
	return redirected(ctx, req, target, x.resp.StatusCode)
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// redirected is the next request: 307 and 308 repeat method and body (RFC 9110, 15.4), the others become GET or stay HEAD.
// Across origins only what says nothing about the user goes along.
func redirected(ctx context.Context, req *http.Request, target *url.URL, status int) (*http.Request, error) {
	method, body := req.Method, io.Reader(http.NoBody)
	switch {
	case status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect:
		if req.GetBody != nil {
			again, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			body = again
		}
	case method != http.MethodHead:
		method = http.MethodGet
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
