package jobs

import (
	"cmp"
	"slices"
	"strings"
)

// Site is the site of the URL: host and port, the default port left out. A name has no final dot, and an IPv6 address has
// brackets. All workers must use the same spelling, because they share findings about sites.
func (u URL) Site() string {
	name, found := strings.CutSuffix(u.host, ".")
	if !found {
		return u.authority
	}
	return name + u.authority[len(u.host):] // a host with a final dot is a name, which has no brackets
}

// SiteNames returns the sites that a person means by HOST or HOST:PORT, in the spelling of URL.Site: those of the http and the
// https URL. It is one name, and with port 80 or 443, which is the default of one scheme only, two: HOST:PORT and HOST. The first
// name stands for all: SiteNames of it returns them again. The error says why no site has such a name.
func SiteNames(text string) ([]string, error) {
	var names []string
	for _, scheme := range []string{"http", "https"} {
		u, err := newURL(scheme, text, "/")
		if err != nil {
			return nil, err
		}
		names = append(names, u.Site())
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	return slices.Compact(names), nil
}
