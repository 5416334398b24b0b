package fetch

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// refuses says why a URL may not be fetched, or "". It is asked before the first attempt and at every redirect.
func (f *Fetcher) refuses(u *url.URL) string {
	host := plainHost(u.Hostname())
	switch {
	case f.cfg.Denied(host) || f.cfg.Denied(canonical(host)):
		return "the host is on the fleet's deny list"
	case !f.cfg.AllowPrivateTargets && innerHost(host):
		return "private, loopback and link-local targets are not allowed here"
	}
	return ""
}

// CanonicalHost is the spelling of a host under which Config.Denied is asked for it, whatever spelling a job uses.
func CanonicalHost(host string) string { return canonical(plainHost(host)) }

// plainHost is a host as a resolver would see it: lower case, ASCII, without a final dot.
func plainHost(host string) string {
	if plainASCII(host) {
		return strings.TrimRight(host, ".")
	}
	if ascii, err := jobs.ASCIIHost(host); err == nil {
		host = ascii
	}
	return strings.TrimRight(strings.ToLower(host), ".")
}

// plainASCII reports whether a host needs no mapping.
func plainASCII(host string) bool {
	for i := range len(host) {
		if c := host[i]; c >= 0x80 || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

// hostPort is the target of a URL with its port.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(plainHost(u.Hostname()), port)
}

// innerHost reports whether a host is a name or a literal, in any spelling, of this machine or of a network that is not
// the public Internet.
func innerHost(host string) bool {
	host, _, _ = strings.Cut(host, "%") // a zone
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if !numeric(host) {
		return false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return innerAddr(addr)
	}
	// Some resolvers read 010 as eight, some as ten.
	octal, ok := looseIPv4(host, 8)
	decimal, also := looseIPv4(host, 10)
	return ok && innerAddr(octal) || also && innerAddr(decimal)
}

// canonical is a literal address as it is usually written, so that a list of hosts catches every spelling; a name stays.
func canonical(host string) string {
	if !numeric(host) {
		return host
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().WithZone("").String()
	}
	if addr, ok := looseIPv4(host, 8); ok {
		return addr.String()
	}
	return host
}

// numeric reports whether a host may be an address: the last label of a public name never begins with a digit.
func numeric(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return strings.Contains(host, ":") || last != "" && last[0] >= '0' && last[0] <= '9'
}

// innerAddr follows the registries of special-purpose addresses (RFC 6890), through the forms in which IPv6 carries an
// IPv4 address: mapped, compatible, translated (RFC 2765), NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
func innerAddr(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is6() {
		b := a.As16()
		switch {
		case netip.MustParsePrefix("64:ff9b::/96").Contains(a), netip.MustParsePrefix("::/96").Contains(a),
			netip.MustParsePrefix("::ffff:0:0:0/96").Contains(a):
			return innerAddr(netip.AddrFrom4([4]byte(b[12:16])))
		case b[0] == 0x20 && b[1] == 0x02:
			return innerAddr(netip.AddrFrom4([4]byte(b[2:6])))
		case netip.MustParsePrefix("64:ff9b:1::/48").Contains(a), netip.MustParsePrefix("fec0::/10").Contains(a):
			return true
		}
	}
	if a.IsPrivate() || a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return true
	}
	if !a.Is4() {
		return false
	}
	b := a.As4()
	shared := b[0] == 100 && b[1]&0xc0 == 64          // carrier-grade NAT (RFC 6598)
	assigned := b[0] == 192 && b[1] == 0 && b[2] == 0 // of the protocols; a cloud's metadata has been seen there
	return b[0] == 0 || b[0] >= 240 || shared || assigned
}

// looseIPv4 reads what inet_aton reads: one to four parts, the last one filling the rest, decimal, hexadecimal after 0x, or
// of the given base after a zero.
func looseIPv4(host string, zero int) (netip.Addr, bool) {
	parts := strings.Split(host, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var sum uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 0, 32)
		if strings.HasPrefix(part, "0") && !strings.HasPrefix(strings.ToLower(part), "0x") && part != "0" {
			n, err = strconv.ParseUint(part, zero, 32)
		}
		if err != nil || strings.Contains(part, "_") {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, false
			}
			sum |= n << (24 - 8*i)
			continue
		}
		if n >= 1<<(8*(5-len(parts))) {
			return netip.Addr{}, false
		}
		sum |= n
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), true
}
