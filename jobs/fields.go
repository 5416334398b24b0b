package jobs

// Field describes one member of a JSON document to people. Help texts and documents are made from it.
type Field struct {
	Name string
	// Type is the JSON type: "string", "integer", "duration", "time", "list of strings", …
	Type string
	// Default is what an absent member means.
	Default string
	// Bounds are the values that are allowed; empty means all of the type.
	Bounds  string
	Meaning string
	// Schema says the same to programs, in keywords of JSON Schema: the type, the bounds, the choices and the default. The caller
	// does not change it.
	Schema map[string]any
}

// JobFields describes the members of a job.
func JobFields() []Field {
	return []Field{
		{"url", "string", "required", "8 KiB", "absolute `http` or `https` URL without user information", with(patternRule(urlPattern), rule{"maxLength": MaxURLBytes})},
		{"method", "string", "`GET`", "a method name, not `CONNECT`", "the request's method", with(patternRule(tokenPattern), rule{"not": rule{"pattern": "^" + anyCase("connect") + "$"}}, defaultRule("GET"))},
		{"headers", "object: string or list of strings", "none", "not `Host`, `Content-Length`, hop-by-hop, `Proxy-*`", "request headers, sent as they are", headersRule()},
		{"body", "string", "none", "not with `body_base64`", "request body as text", textRule()},
		{"body_base64", "string", "none", "not with `body`", "request body as base64", with(patternRule(base64Pattern), rule{"contentEncoding": "base64"})},
		{"timeout", "duration", "`GOFER_ATTEMPT_TIMEOUT`", "at most 10 m; 0 means the default", "bounds one attempt, redirects included", durationRule(rule{"minimum": 0, "maximum": MaxAttemptTimeout.Seconds()})},
		{"first_byte_timeout", "`auto`, `off` or duration", "`GOFER_FIRST_BYTE_TIMEOUT`", "above 0", "bounds the wait for the first byte of each answer, and each of dialling, CONNECT and TLS", autoRule()},
		{"not_before", "time", "now", "year at most 2261", "the job waits for this time without a slot", with(timeRule(), rule{"pattern": yearPattern})},
		{"deadline", "time", "none", "year at most 2261", "no attempt starts or goes on after it: `expired`", with(timeRule(), rule{"pattern": yearPattern})},
		{"retry", "object", "the fleet's policy", "see Retry policy", "replaces members of the fleet's policy", overrideRule()},
		{"proxy", "object", "any proxy", "see Proxy", "which proxies may be used", proxyRule()},
		{"ban", "object", "the fleet's `ban_status_codes`", "see Ban", "which answers mean that the site has banned the proxy", objectRule(BanFields())},
		{"when_no_proxy", "string", "`wait`", "`wait`, `fail`", "what the job does while no proxy can be used", with(choiceRule(NoProxyWait, NoProxyFail), defaultRule(NoProxyWait))},
		{"when_site_down", "string", "`wait`", "`wait`, `fail`", "what the job does while its site rests", with(choiceRule(SiteDownWait, SiteDownFail), defaultRule(SiteDownWait))},
		{"follow_redirects", "integer", "10", "0–50", "how many redirects are followed; 0 returns the 3xx itself", with(rangeRule(0, MaxFollowRedirects), defaultRule(DefaultRedirects))},
		{"max_body_bytes", "integer", "`GOFER_MAX_BODY_BYTES`", "at most the default; 0 means the default", "a larger decoded body is `body_too_large`", countRule(0)},
		{"meta", "object of strings", "none", "32 keys `[A-Za-z0-9_-]{1,64}`, 8 KiB together, no control characters, no blank at either end of a value", "handed back in the result", metaRule()},
	}
}

// ProxyFields describes the members of a job's proxy.
func ProxyFields() []Field {
	return []Field{
		{"tags", "list of strings", "none", "16, each 1–64 bytes, no comma", "the proxy must have all of them", with(listRule(with(shortRule(64), rule{"minLength": 1, "not": rule{"pattern": ","}})), rule{"maxItems": 16})},
		{"region", "string", "none", "64 bytes", "preferred region", shortRule(64)},
		{"region_strict", "boolean", "false", "needs `region`", "demands the region", with(booleanRule(), defaultRule(false))},
		{"session", "string", "none", "128 bytes", "all jobs of one session use the same proxy while it works", shortRule(128)},
		{"id", "string", "none", "`[A-Za-z0-9_-]{1,64}`, not `metrics`", "only this proxy", with(patternRule(proxyIDPattern), rule{"not": rule{"const": reservedProxyID}})},
		{"direct", "boolean", "false", "alone; needs `GOFER_ALLOW_DIRECT`", "no proxy", with(booleanRule(), defaultRule(false))},
	}
}

// BanFields describes the members of a job's ban.
func BanFields() []Field {
	return []Field{
		{"statuses", "list of integers", "none", "100–999", "an answer with one of these statuses is a ban; a redirect with one is not followed", listRule(rangeRule(100, MaxBanStatus))},
		{"body_regexp", "Go regexp", "none", "512 bytes; about 2,000 instructions once compiled", "an answer whose decoded body matches in its first 1 MiB is a ban", rule{"type": "string", "maxLength": MaxPatternBytes}},
		{"not_body_regexp", "Go regexp", "none", "as `body_regexp`", "an answer whose decoded body does not match in its first 1 MiB is a ban", rule{"type": "string", "maxLength": MaxPatternBytes}},
		{"min_bytes", "integer", "0", "0 or more", "an answer whose decoded body is shorter is a ban", with(countRule(0), defaultRule(0))},
		{"redirect_to_regexp", "Go regexp", "none", "as `body_regexp`", "a redirect to an absolute URL that matches is a ban, and is not followed", rule{"type": "string", "maxLength": MaxPatternBytes}},
	}
}

// PolicyFields describes the members of a retry policy.
func PolicyFields() []Field {
	return []Field{
		{"max_attempts", "integer", "3", "1–10", "attempts, not retries", with(rangeRule(1, MaxMaxAttempts), defaultRule(3))},
		{"backoff_strategy", "string", "`exponential`", "`exponential`, `linear`, `fixed`", "how the delay grows", with(choiceRule(Exponential, Linear, Fixed), defaultRule(Exponential))},
		{"base_delay", "duration", "1 s", "0.1–60 s", "first delay, before jitter", with(durationRule(rule{"minimum": MinBaseDelay.Seconds(), "maximum": MaxBaseDelay.Seconds()}), defaultRule(1))},
		{"multiplier", "number", "2", "1.1–10", "growth of an exponential delay", with(numberRule(), rule{"minimum": MinMultiplier, "maximum": MaxMultiplier}, defaultRule(2))},
		{"max_backoff_delay", "duration", "30 s", "1–300 s", "longest computed delay", with(durationRule(rule{"minimum": MinMaxBackoffDelay.Seconds(), "maximum": MaxMaxBackoffDelay.Seconds()}), defaultRule(30))},
		{"jitter", "boolean", "true", "", "draws each delay evenly from zero to the computed one", with(booleanRule(), defaultRule(true))},
		{"retry_status_codes", "list of integers", "408, 429, 502, 503, 504", "100–599", "answers with these statuses are tried again", with(listRule(rangeRule(100, 599)), defaultRule([]int{408, 429, 502, 503, 504}))},
		{"timeout", "duration", "none", "above 0", "bounds all attempts and waits together: `timed_out`. It runs from the first attempt, or from the first wait for a proxy or a resting site", durationRule(rule{"minimum": 0})},
		{"retry_non_idempotent", "boolean", "false", "", "tries POST and PATCH again although the target may have received them", with(booleanRule(), defaultRule(false))},
		{"hedge", "`auto`, `off` or duration", "`off`", "above 0", "time without a first byte after which one more attempt begins through another proxy", with(autoRule(), defaultRule("off"))},
		{"ban_status_codes", "list of integers", "403", "100–999; `[]` means none", "answers with these statuses are bans for jobs without a `ban`; not in a job's `retry`", with(listRule(rangeRule(100, MaxBanStatus)), defaultRule([]int{403}))},
	}
}
