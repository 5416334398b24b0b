package main

import (
	"fmt"
	"strings"
)

// remark is the reason of the state, and what is unusual about the responses. Both may hold: a closed proxy may get many 403 at
// one site.
func (p *fleetProxy) remark() string {
	text := p.stateReason()
	if p.Unusual == nil {
		return text
	}
	if text != "" {
		text += "; "
	}
	return text + p.Unusual.String()
}

// stateReason is the reason of the state in words; empty for a closed proxy without trouble. Bans come before failures: they keep
// the proxy from a site now.
func (p *fleetProxy) stateReason() string {
	switch {
	// Another worker's finding makes a proxy avoided, and its reason is a sentence of that worker and no code.
	case p.State == "avoided":
		return p.Reason
	case p.State != "closed":
		return breakerReason(p.Reason)
	case p.Bans == 1:
		return "1 site has banned it or asked for a pause"
	case p.Bans > 1:
		return fmt.Sprintf("%d sites have banned it or asked for a pause", p.Bans)
	case p.Failures > 0:
		return fmt.Sprintf("%d of %d failures that open its breaker", p.Failures, p.Threshold)
	}
	return ""
}

// breakerReason puts the code of what opened a breaker into words. A code that only a newer worker knows is shown as it is, with
// blanks.
func breakerReason(code string) string {
	text, known := map[string]string{
		"": "its breaker was opened", "connect": "it cannot be reached", "reset": "it resets connections", "timeout": "no answer comes in time",
		"proxy_auth": "it refuses the credentials", "proxy_refused": "it refuses to connect", "region_refused": "it refuses the region",
		"proxy_tls": "TLS to it fails", "proxy_protocol": "it speaks no proper HTTP or SOCKS", "tls": "TLS to the sites fails through it",
		"dns": "it cannot resolve names", "truncated": "its answers break off", "malformed": "its answers make no sense",
		"status_5xx": "it answers 5xx for the sites", "probe": "its tests fail",
	}[code]
	if !known {
		return strings.ReplaceAll(code, "_", " ")
	}
	return text
}
