package main

import (
	"fmt"
	"strings"
)

// remark is the reason of the state, and what is unusual about the answers. A proxy may be unusual and closed at
// the same time.
func (p *fleetProxy) remark() string {
	switch text := p.why(); {
	case p.Unusual == nil:
		return text
	case text == "":
		return p.Unusual.String()
	default:
		return text + "; " + p.Unusual.String()
	}
}

// why is the reason of the state in words. Bans count before failures: they keep the proxy from a site now, while
// failures may never open its breaker.
func (p *fleetProxy) why() string {
	switch {
	// Another worker has written the reason as a sentence.
	case p.State == "avoided":
		return p.Reason
	case p.State != "closed":
		return proxyTrouble(p.Reason)
	case p.Bans == 1:
		return "1 site has banned it or asked for a pause"
	case p.Bans > 1:
		return fmt.Sprintf("%d sites have banned it or asked for a pause", p.Bans)
	case p.Failures > 0:
		return fmt.Sprintf("%d of %d failures that open its breaker", p.Failures, p.Threshold)
	}
	return ""
}

// proxyTrouble puts the code of what opened a breaker into words. A code that is not known is shown as it is. The
// codes are a contract with programs; these words are not.
func proxyTrouble(code string) string {
	// Without a code only the fact is known.
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
