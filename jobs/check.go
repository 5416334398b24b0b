package jobs

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// methods are those whose names are written in capitals (RFC 9110, 9.3; RFC 5789), however a job writes them: what is known
// of them, such as that a POST may not be sent twice, must not depend on that.
func methods() []string {
	return []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
}

// finish fills in what is derived (method, pattern) and lists everything that is out of bounds.
func (j *Job) finish() []string {
	if j.Method == "" {
		j.Method = "GET"
	}
	if upper := strings.ToUpper(j.Method); slices.Contains(methods(), upper) {
		j.Method = upper
	}
	var c checks
	j.target = c.url(j.URL)
	c.request(j)
	c.times(j)
	c.proxy(&j.Proxy)
	if j.Ban != nil {
		ban := *j.Ban // the caller may use its own for other jobs at the same time
		j.Ban = &ban
		c.ban(j.Ban)
	}
	c.meta(j.Meta)
	if j.Retry != nil {
		for _, reason := range j.Retry.reasons() {
			c.fail("retry.%s", reason)
		}
	}
	c.ok(slices.Contains([]string{"", NoProxyWait, NoProxyFail}, j.WhenNoProxy), "when_no_proxy: %q is neither wait nor fail", clip(j.WhenNoProxy, 40))
	c.ok(slices.Contains([]string{"", SiteDownWait, SiteDownFail}, j.WhenSiteDown), "when_site_down: %q is neither wait nor fail", clip(j.WhenSiteDown, 40))
	c.ok(j.Redirects() >= 0 && j.Redirects() <= MaxFollowRedirects, "follow_redirects: %d is not between 0 and %d", j.Redirects(), MaxFollowRedirects)
	c.ok(j.MaxBodyBytes >= 0, "max_body_bytes: %d is below zero", j.MaxBodyBytes)
	return c.reasons
}

// checks gathers reasons.
type checks struct{ reasons []string }

func (c *checks) fail(format string, args ...any) {
	c.reasons = append(c.reasons, fmt.Sprintf(format, args...))
}

func (c *checks) ok(ok bool, format string, args ...any) {
	if !ok {
		c.fail(format, args...)
	}
}

// url never prints the URL: a query often holds a key.
func (c *checks) url(text string) URL {
	if text == "" {
		c.fail("url: required")
		return URL{}
	}
	u, err := ParseURL(text)
	c.ok(err == nil, "url: %v", err)
	return u
}

func (c *checks) request(j *Job) {
	c.ok(httpguts.ValidHeaderFieldName(j.Method), "method: %q is not a method name", clip(j.Method, 40))
	c.ok(!strings.EqualFold(j.Method, "CONNECT"), "method: CONNECT cannot be fetched")
	c.ok(j.Body == "" || j.BodyBase64 == nil, "body, body_base64: only one of the two can be given")
	for name, values := range j.Headers {
		shown := clip(strconv.Quote(name), 60)
		if !httpguts.ValidHeaderFieldName(name) {
			c.fail("headers: %s is not a header name", shown)
		} else if forbiddenHeader(name) {
			c.fail("headers: %s is set by the connection, not by a job", shown)
		}
		if !slices.ContainsFunc(values, invalidValue) {
			continue
		}
		c.fail("headers: the value of %s has control characters", shown)
	}
	slices.Sort(c.reasons)
}

func invalidValue(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }

// forbiddenHeader tells the headers that belong to one connection (RFC 9110, 7.6.1) or that net/http writes itself.
func forbiddenHeader(name string) bool {
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "proxy-") || slices.Contains(connectionHeaders(), lower)
}

// connectionHeaders are the names of forbiddenHeader that do not begin with "proxy-", in lower case.
func connectionHeaders() []string {
	return []string{"host", "content-length", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
}

func (c *checks) times(j *Job) {
	c.ok(j.Timeout >= 0 && j.Timeout.Std() <= MaxAttemptTimeout, "timeout: %s is not between 0 and %s", j.Timeout, MaxAttemptTimeout)
	c.ok(j.FirstByteTimeout >= Off, "first_byte_timeout: %d ns is below zero", int64(j.FirstByteTimeout))
	c.year("not_before", j.NotBefore)
	c.year("deadline", j.Deadline)
}

func (c *checks) year(name string, at time.Time) {
	if year := at.UTC().Year(); year < 1 || year > MaxYear {
		c.fail("%s: the year is not between 1 and %d", name, MaxYear)
	}
}

func (c *checks) proxy(p *ProxyChoice) {
	c.ok(len(p.Tags) <= 16, "proxy.tags: %d of them, at most 16 are allowed", len(p.Tags))
	for _, tag := range p.Tags {
		c.ok(plainText(tag, 64) && tag != "", "proxy.tags: %q is empty, longer than 64 bytes or has control characters", clip(tag, 40))
		c.ok(!strings.Contains(tag, ","), "proxy.tags: %q has a comma: write a list of tags", clip(tag, 40))
	}
	c.ok(plainText(p.Region, 64), "proxy.region: longer than 64 bytes, or has control characters")
	c.ok(plainText(p.Session, 128), "proxy.session: longer than 128 bytes, or has control characters")
	c.ok(p.ID == "" || ValidProxyID(p.ID), "proxy.id: %q does not match [A-Za-z0-9_-]{1,64}", clip(p.ID, 60))
	c.ok(!p.RegionStrict || p.Region != "", "proxy.region_strict: given without a region")
	others := len(p.Tags) > 0 || p.Region != "" || p.Session != "" || p.ID != ""
	c.ok(!p.Direct || !others, "proxy.direct: cannot be combined with tags, region, session or id")
}

// meta travels in the result's headers: what could not be stored there must not get in here. Readers of headers strip blanks.
func (c *checks) meta(meta map[string]string) {
	c.ok(len(meta) <= MaxMetaKeys, "meta: %d keys, at most %d are allowed", len(meta), MaxMetaKeys)
	size := 0
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		value := meta[key]
		size += len(key) + len(value)
		c.ok(plain(key, 64, true), "meta: key %s does not match [A-Za-z0-9_-]{1,64}", clip(strconv.Quote(key), 80))
		c.ok(plainText(value, MaxMetaBytes), "meta: the value of %s has control characters", clip(strconv.Quote(key), 80))
		c.ok(strings.Trim(value, " ") == value, "meta: the value of %s begins or ends with a blank, which the result cannot carry", clip(strconv.Quote(key), 80))
	}
	c.ok(size <= MaxMetaBytes, "meta: %d bytes, at most %d are allowed", size, MaxMetaBytes)
}

// plainText reports whether text has at most most bytes and no control characters.
func plainText(text string, most int) bool {
	return len(text) <= most && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
}
