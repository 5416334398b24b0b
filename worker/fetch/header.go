package fetch

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// requestHeader returns the job's header in the job's spelling, with User-Agent and Accept-Encoding where the job has
// none. The values are shared with the job, so nobody may change them.
func requestHeader(own map[string][]string, userAgent string) http.Header {
	header := make(http.Header, len(own)+2)
	// The map is copied, the value slices are not.
	maps.Copy(header, own)
	if !hasField(own, "User-Agent") {
		header["User-Agent"] = []string{userAgent}
	}
	switch {
	case hasField(own, "Accept-Encoding"):
	case hasField(own, "Range"): // a part of an encoded body cannot be decoded
		header["Accept-Encoding"] = []string{"identity"}
	default:
		header["Accept-Encoding"] = []string{acceptEncoding}
	}
	return header
}

// hasField reports whether a header has a field in any spelling.
func hasField(header map[string][]string, name string) bool {
	for key := range header {
		if strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}

// keepHeader copies to next, the request of a redirect, the fields of the last request that still apply. Fields that
// describe a body go only along with the body. Across origins only those fields go along that say nothing about the user:
// Authorization and cookies of the job never leave their origin, and are not sent again when a later redirect returns
// to it.
func (x *exchanges) keepHeader(next *request, last request, sameOrigin bool) {
	x.leftOrigin = x.leftOrigin || !sameOrigin
	for name, values := range last.header {
		lower := strings.ToLower(name)
		harmless := lower == "user-agent" || strings.HasPrefix(lower, "accept")
		ofBody := strings.HasPrefix(lower, "content-")
		switch {
		// The cookie is rebuilt below from the job's own and those of the redirects.
		case lower == "cookie": // the last request may have had other cookies
		case harmless, sameOrigin && (!ofBody || len(next.body) > 0):
			next.header[name] = values
		}
	}
	name, own := "Cookie", []string(nil)
	// Spellings are sorted, so that two cookie fields of different spelling always join in the same order.
	for _, spelling := range slices.Sorted(maps.Keys(x.run.job.Headers)) {
		if strings.EqualFold(spelling, name) && !x.leftOrigin {
			name, own = spelling, append(own, x.run.job.Headers[spelling]...)
		}
	}
	if values := x.cookies.values(x.target, own); len(values) > 0 {
		next.header[name] = values
	}
}

// resultFields returns the fields of the response for the result, in the order in which they came. Fields that decoding
// has made untrue are left out.
func (x *exchanges) resultFields() []jobs.HeaderField {
	fields := make([]jobs.HeaderField, 0, len(x.fields))
	for _, field := range x.fields {
		// readEncoded has deleted from header what no longer holds.
		if _, kept := x.header[http.CanonicalHeaderKey(field.Name)]; kept {
			fields = append(fields, jobs.HeaderField(field))
		}
	}
	return fields
}
