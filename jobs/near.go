package jobs

import (
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs/text"
)

// alias is what users of other tools call a member of a job.
type alias struct {
	// path names the member. A second one holds in the object that has it: a delay of a job is no delay of its retries.
	path, second string
	// note says what differs; it may be empty.
	note string
	// names are as squeeze returns them, with blanks between.
	names string
}

func aliases() []alias {
	return []alias{
		{"retry.max_attempts", "", "which counts the first attempt, too", "retries retry retrycount retrymax maxretry maxretries"},
		{"retry.max_attempts", "", "", "attempts tries maxtries"},
		{"retry.base_delay", "", "", "backoff backoffdelay retrydelay retryinterval initialdelay"},
		{"retry.backoff_strategy", "", "", "strategy backofftype"},
		{"not_before", "retry.base_delay", "", "delay"},
		{"not_before", "", "a time", "at eta runat startat processat processin schedule scheduleat scheduledat delayuntil"},
		{"deadline", "", "a time", "ttl expires expiresat expireat expiration"},
		{"timeout", "", `in seconds, or a text such as "1.5s"`, "timeoutms timeoutsecs timeoutseconds requesttimeout attempttimeout maxtime"},
		{"body", "", "", "data content payload postdata json form"},
		{"headers", "", "", "useragent cookie cookies auth authorization contenttype referer"},
		{"url", "", "", "link href address"},
		{"method", "", "", "verb httpmethod"},
		{"meta", "", "", "metadata label labels context"},
		{"follow_redirects", "", "a number", "redirects maxredirects allowredirects followlocation"},
		{"max_body_bytes", "", "", "maxbytes maxsize maxbody maxbodysize maxresponsesize"},
		{"proxy.id", "", "the id of a proxy of the pool", "proxyurl proxyid proxyname proxies"},
		{"proxy.region", "", "", "country countrycode geo location"},
		{"proxy.session", "", "", "sticky stickysession sessionid"},
		{"proxy.tags", "", "", "pool group proxytags"},
		{"ban.statuses", "retry.retry_status_codes", "", "status statuscode statuscodes codes"},
		{"ban.statuses", "", "", "bancodes banstatus banstatuses banstatuscodes"},
	}
}

// suggestion asks whether another member was meant; empty if none is near. The tables of Field hold the names of every object;
// field tells which of them belong to the object at hand.
func suggestion(name string, field func(name string) any) string {
	word := squeeze(name)
	if ofJob := field("url") != nil; ofJob && (word == "id" || word == "jobid" || word == "taskid" || word == "queue") {
		// A line of gofer submit has both. A member of proxy is called id, too, and is not meant.
		if field("id") != nil {
			return ask("id", "")
		}
		return ": the subject of the message names queue and id"
	}
	// In proxy it is the address of the proxy that is written so, and not that of the page.
	if field("region_strict") != nil && slices.Contains(strings.Fields("url uri link href address server host name"), word) {
		return ask("id", "the id of a proxy of the pool")
	}
	var here []string
	elsewhere := ""
	for _, table := range []struct {
		parent string
		fields []Field
	}{{"", JobFields()}, {"proxy.", ProxyFields()}, {"ban.", BanFields()}, {"retry.", PolicyFields()}} {
		for _, f := range table.fields {
			switch {
			case field(f.Name) != nil && squeeze(f.Name) == word:
				return ask(f.Name, "")
			case field(f.Name) != nil:
				here = append(here, f.Name)
			case elsewhere == "" && squeeze(f.Name) == word && f.Name != "ban_status_codes": // only a policy of the fleet has it
				elsewhere = table.parent + f.Name
			}
		}
	}
	for _, a := range aliases() {
		if slices.Contains(strings.Fields(a.names), word) {
			return ask(placed(a, field), a.note)
		}
	}
	if elsewhere != "" {
		return ask(placed(alias{path: elsewhere}, field), "")
	}
	return ask(text.Nearest(strings.ToLower(name), here, 2), "")
}

// squeeze is a name without what languages write in different ways: maxRetries, max-retries and max_retries are one.
func squeeze(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

// placed is what an alias means in the object of field: a member of it, or a member of the job.
func placed(a alias, field func(name string) any) string {
	for _, path := range []string{a.path, a.second} {
		if last := path[strings.LastIndexByte(path, '.')+1:]; field("url") == nil && field(last) != nil {
			return last
		}
	}
	switch {
	case field("url") != nil:
		return a.path
	case field("ban_status_codes") != nil: // a policy of the fleet has no job
		return ""
	}
	return a.path + " of the job"
}

// ask is the question behind the reason; empty if nothing is meant.
func ask(meant, note string) string {
	switch {
	case meant == "":
		return ""
	case note != "":
		return ", did you mean " + meant + " (" + note + ")?"
	}
	return ", did you mean " + meant + "?"
}

// NearURL returns text with "http://" or "https://" in place of a beginning that is spelt nearly so, such as "htp://", "http//"
// or "http:"; empty if its beginning is not near.
func NearURL(text string) string {
	if written, meant := misspeltScheme(text); meant != "" {
		return meant + text[len(written):]
	}
	return ""
}

// misspeltScheme returns the beginning of text that NearURL replaces, and what was meant. Nothing of the host is in it.
func misspeltScheme(text string) (written, meant string) {
	const longest = len("https") + 1
	name := strings.ToLower(text[:min(len(text), longest+1)])
	name = name[:len(name)-len(strings.TrimLeft(name, "abcdefghijklmnopqrstuvwxyz"))]
	marks := len(text) - len(name) - len(strings.TrimLeft(text[len(name):], `:;/\`))
	written = text[:len(name)+marks]
	near := nearScheme(name)
	// A word without slashes behind it is more likely a host with a port, unless it is the scheme itself.
	slashes := strings.ContainsAny(written, `/\`)
	if near == "" || marks == 0 || len(name) > longest || marks > 4 || !slashes && near != name || written == near+"://" {
		return "", ""
	}
	return written, near + "://"
}

// nearScheme is the scheme of the web that is at most one edit away from a name in lower case; empty if none is.
func nearScheme(name string) string { return text.Nearest(name, []string{"http", "https"}, 1) }

// notWeb begins the reason of noWebURL, whose rest is a hint.
const notWeb = "not an absolute http or https URL"

// noWebURL is the reason of a text that is no absolute URL of the web. It repeats at most a misspelt scheme.
func noWebURL(written string) error {
	reason := notWeb
	scheme, rest := cutScheme(written)
	switch wrong, meant := misspeltScheme(written); {
	case meant != "":
		reason += ", did you mean " + meant + " in place of " + wrong + "?"
	// "localhost:8080/" is a host with its port, and no scheme.
	case scheme == "", rest != "" && rest[0] >= '0' && rest[0] <= '9':
		reason += ": write http:// or https:// in front of the host"
	}
	return unsupported(reason)
}
