package fetch

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// setHeader gives a request the job's headers, in their spelling, and ours where the job has none.
func setHeader(header http.Header, own map[string][]string) {
	maps.Copy(header, own)
	switch {
	case !hasField(header, "User-Agent"):
		header.Set("User-Agent", userAgent)
	case header["User-Agent"] == nil:
		header["User-Agent"] = []string{""} // net/http adds its own unless this very spelling is there
	}
	switch {
	case hasField(header, "Accept-Encoding"):
	case hasField(header, "Range"): // a part of an encoded body cannot be decoded
		header.Set("Accept-Encoding", "identity")
	default:
		header.Set("Accept-Encoding", acceptEncoding)
	}
}

// hasField reports whether a header has a field in any spelling.
func hasField(header http.Header, name string) bool {
	for key := range header {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

// keepHeader copies to next, the request of a redirect, what it has in common with the last one. Across origins only what says
// nothing about the user goes along.
func (x *exchange) keepHeader(next, last *http.Request, sameOrigin bool) {
	x.crossed = x.crossed || !sameOrigin
	for name, values := range last.Header {
		lower := strings.ToLower(name)
		harmless := lower == "user-agent" || strings.HasPrefix(lower, "accept")
		ofBody := strings.HasPrefix(lower, "content-")
		switch {
		case lower == "cookie": // the last request may have had other cookies
		case harmless, sameOrigin && (!ofBody || next.Body != http.NoBody):
			next.Header[name] = values
		}
	}
	name, own := "Cookie", []string(nil)
	for _, spelling := range slices.Sorted(maps.Keys(x.run.job.Headers)) {
		if strings.EqualFold(spelling, name) && !x.crossed {
			name, own = spelling, append(own, x.run.job.Headers[spelling]...)
		}
	}
	if values := x.cookies.values(x.target, own); len(values) > 0 {
		next.Header[name] = values
	}
}
