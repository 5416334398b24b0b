package proxylist

import (
	"errors"
	"net/url"
	"strings"
	"time"
)

// The placeholders that user and password of a gateway may hold.
const (
	sessionPlaceholder = "{session}"
	regionPlaceholder  = "{region}"
)

// DefaultSessionTTL is how long the word of a session may be idle.
const DefaultSessionTTL = 10 * time.Minute

// IsGateway reports whether the proxy has many exits: the word in its user information chooses one, or each connection does.
func (p *Proxy) IsGateway() bool { return p.Gateway || p.HasWords() }

// HasWords reports whether a word in the user information chooses the exit.
func (p *Proxy) HasWords() bool { return p.holds(sessionPlaceholder) }

// HasRegions reports whether a word in the user information chooses the region.
func (p *Proxy) HasRegions() bool { return p.holds(regionPlaceholder) }

// Kind is "gateway" or "proxy".
func (p *Proxy) Kind() string {
	if p.IsGateway() {
		return "gateway"
	}
	return "proxy"
}

// holds reports whether the user or the password holds a text.
func (p *Proxy) holds(text string) bool {
	password, _ := p.URL.User.Password()
	return strings.Contains(p.URL.User.Username(), text) || strings.Contains(password, text)
}

// Through returns the URL of the exit that a word and a region choose. It holds the filled-in credentials: never
// show it. The URL of p does not change.
func (p *Proxy) Through(word, region string) *url.URL {
	// No user information, so there is nothing to fill in; the caller must not change the URL.
	if p.URL.User == nil {
		return p.URL
	}
	fill := strings.NewReplacer(sessionPlaceholder, word, regionPlaceholder, region).Replace
	u := *p.URL
	if password, set := p.URL.User.Password(); set {
		u.User = url.UserPassword(fill(p.URL.User.Username()), fill(password))
	} else {
		u.User = url.User(fill(p.URL.User.Username()))
	}
	return &u
}

// ValidRegion reports whether a gateway may put the region into its user information: [A-Za-z0-9_.]{1,32}.
func ValidRegion(region string) bool {
	return region != "" && len(region) <= 32 && strings.Trim(region, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.") == ""
}

// checkGateway reports what of a line goes with a gateway only. The error says what to add or to leave out.
func (p *Proxy) checkGateway() error {
	switch {
	case p.HasRegions() && !p.IsGateway():
		return errors.New("{region} stands without {session}: add gateway=yes if the exit changes with each connection")
	case p.SessionTTL > 0 && !p.IsGateway():
		return errors.New("session_ttl is for gateways: {session} has to stand in user or password")
	case p.SessionTTL > 0 && !p.HasWords():
		return errors.New("session_ttl needs {session} in user or password: without it no session stays at an exit")
	case p.HasRegions() && p.Region != "" && !ValidRegion(p.Region):
		return errors.New("region does not match [A-Za-z0-9_.]{1,32}, which {region} needs")
	}
	return nil
}

// escapePlaceholders percent-encodes the braces of placeholders, which a URL may not hold as they are.
func escapePlaceholders(text string) (string, error) {
	if !strings.ContainsAny(text, "{}") {
		return text, nil
	}
	// The last @ ends the user information, as a password may hold one.
	end := strings.LastIndexByte(text, '@')
	if strings.ContainsAny(text[end+1:], "{}") {
		return "", errors.New("a placeholder may stand in user and password only")
	}
	user := strings.NewReplacer(sessionPlaceholder, "%7Bsession%7D", regionPlaceholder, "%7Bregion%7D").Replace(text[:end])
	if strings.ContainsAny(user, "{}") {
		return "", errors.New("a placeholder is none of {session} and {region}; write other braces as %7B and %7D")
	}
	return user + text[end:], nil
}

// showPlaceholders writes the braces of placeholders as people do. It undoes escapePlaceholders.
func showPlaceholders(text string) string {
	return strings.NewReplacer("%7Bsession%7D", sessionPlaceholder, "%7Bregion%7D", regionPlaceholder).Replace(text)
}
