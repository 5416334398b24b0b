package jobs

import (
	"fmt"
	"maps"
	"slices"
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
	c.choice("when_no_proxy", j.WhenNoProxy, NoProxyWait, NoProxyFail)
	c.choice("when_site_down", j.WhenSiteDown, SiteDownWait, SiteDownFail)
	c.number("follow_redirects", int64(j.Redirects()), 0, MaxFollowRedirects)
	if j.MaxBodyBytes < 0 {
		c.fail("max_body_bytes: %d is below zero", j.MaxBodyBytes)
	}
	return c.reasons
}

// checks gathers reasons.
type checks struct{ reasons []string }

// fail adds a reason.
func (c *checks) fail(format string, args ...any) {
	c.reasons = append(c.reasons, fmt.Sprintf(format, args...))
}

// ok adds a reason if a condition does not hold. Its arguments are made for each job, valid or not, so they must cost
// little: anything dear goes to fail.
func (c *checks) ok(ok bool, format string, args ...any) {
	if !ok {
		c.fail(format, args...)
	}
}

// choice wants one of two words, or none.
func (c *checks) choice(name, value, one, other string) {
	if value != "" && value != one && value != other {
		c.fail("%s: %q is neither %s nor %s", name, clip(value, 40), one, other)
	}
}

// number refuses a value out of its bounds, which both belong to the range.
func (c *checks) number(name string, value, low, high int64) {
	if value < low || value > high {
		c.fail("%s: %d is not between %d and %d", name, value, low, high)
	}
}

// url never prints the URL: a query often holds a key.
func (c *checks) url(text string) URL {
	if text == "" {
		c.fail("url: required")
		return URL{}
	}
	u, err := ParseURL(text)
	if err != nil {
		c.fail("url: %v", err)
	}
	return u
}

// request checks method, body and headers. Reasons quote names, and never values, which may be secrets.
func (c *checks) request(j *Job) {
	if !httpguts.ValidHeaderFieldName(j.Method) {
		c.fail("method: %q is not a method name", clip(j.Method, 40))
	}
	c.ok(!strings.EqualFold(j.Method, "CONNECT"), "method: CONNECT cannot be fetched")
	c.ok(j.Body == "" || j.BodyBase64 == nil, "body, body_base64: only one of the two can be given")
	for name, values := range j.Headers {
		if !httpguts.ValidHeaderFieldName(name) {
			// Behind a colon may stand the value, such as a password.
			if before, _, found := strings.Cut(name, ":"); found && before != "" {
				name = before + ":…"
			}
			c.fail("headers: %s is not a header name", quoted(name))
		} else if forbiddenHeader(name) {
			c.fail("headers: %s is set by the connection, not by a job", quoted(name))
		}
		if slices.ContainsFunc(values, invalidValue) {
			c.fail("headers: the value of %s has control characters", quoted(name))
		}
	}
	slices.Sort(c.reasons)
}

// invalidValue reports whether a header value may not be sent (RFC 9110, 5.5).
func invalidValue(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }

// forbiddenHeader reports the headers that belong to one connection (RFC 9110, 7.6.1) or that net/http writes itself.
func forbiddenHeader(name string) bool {
	const proxy = "proxy-"
	return len(name) >= len(proxy) && strings.EqualFold(name[:len(proxy)], proxy) ||
		slices.ContainsFunc(connectionHeaders(), func(own string) bool { return strings.EqualFold(name, own) })
}

// connectionHeaders are the names of forbiddenHeader that do not begin with "proxy-", in lower case.
func connectionHeaders() []string {
	return []string{"host", "content-length", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
}

// times checks the durations and times of a job.
func (c *checks) times(j *Job) {
	if j.Timeout < 0 || j.Timeout.Std() > MaxAttemptTimeout {
		c.fail("timeout: %s is not between 0 and %s", j.Timeout, MaxAttemptTimeout)
	}
	if j.FirstByteTimeout < Off {
		c.fail("first_byte_timeout: %d ns is below zero", int64(j.FirstByteTimeout))
	}
	c.year("not_before", j.NotBefore)
	c.year("deadline", j.Deadline)
}

// year refuses a time that the server cannot store.
func (c *checks) year(name string, at time.Time) {
	if at.IsZero() {
		return // none is given
	}
	if year := at.UTC().Year(); year < 1 || year > MaxYear {
		c.fail("%s: the year is not between 1 and %d", name, MaxYear)
	}
}

// proxy checks which proxies the job asks for. Whether there are such proxies is not known here.
func (c *checks) proxy(p *ProxyChoice) {
	if len(p.Tags) > 16 {
		c.fail("proxy.tags: %d of them, at most 16 are allowed", len(p.Tags))
	}
	for _, tag := range p.Tags {
		c.ok(plainText(tag, 64) && tag != "", "proxy.tags: %q is empty, longer than 64 bytes or has control characters", clip(tag, 40))
		c.ok(!strings.Contains(tag, ","), "proxy.tags: %q has a comma: write a list of tags", clip(tag, 40))
	}
	c.ok(plainText(p.Region, 64), "proxy.region: longer than 64 bytes, or has control characters")
	c.ok(plainText(p.Session, 128), "proxy.session: longer than 128 bytes, or has control characters")
	if p.ID != "" && !ValidProxyID(p.ID) {
		c.fail("proxy.id: %q does not match [A-Za-z0-9_-]{1,64}, or is metrics", clip(p.ID, 60))
	}
	c.ok(!p.RegionStrict || p.Region != "", "proxy.region_strict: given without a region")
	others := len(p.Tags) > 0 || p.Region != "" || p.Session != "" || p.ID != ""
	c.ok(!p.Direct || !others, "proxy.direct: cannot be combined with tags, region, session or id")
}

// meta travels in the result's headers: what could not be stored there must not get in here. Readers of headers strip blanks.
func (c *checks) meta(meta map[string]string) {
	if len(meta) > MaxMetaKeys {
		c.fail("meta: %d keys, at most %d are allowed", len(meta), MaxMetaKeys)
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(meta)) {
		value := meta[key]
		size += len(key) + len(value)
		if !plain(key, 64, true) {
			c.fail("meta: key %s does not match [A-Za-z0-9_-]{1,64}", quoted(key))
		}
		if !plainText(value, len(value)) {
			c.fail("meta: the value of %s has control characters", quoted(key))
		}
		if strings.Trim(value, " ") != value {
			c.fail("meta: the value of %s begins or ends with a blank, which the result cannot carry", quoted(key))
		}
	}
	if size > MaxMetaBytes {
		c.fail("meta: %d bytes, at most %d are allowed", size, MaxMetaBytes)
	}
}

// plainText reports whether text has at most most bytes and no control characters.
func plainText(text string, most int) bool {
	return len(text) <= most && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 })
}
