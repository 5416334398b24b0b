package jobs

import (
	"net/netip"
	"slices"
	"strings"
)

// HostClass says whether a host is part of the public Internet. The zero value is HostRefused, so a class that
// was forgotten lets nothing through.
type HostClass uint8

// The classes of hosts. What cannot be classified is refused.
const (
	HostRefused   HostClass = iota // of this machine, of a private network, of another special purpose, or no host at all
	PublicName                     // a name that a resolver has to look up
	PublicAddress                  // an address that is globally reachable
)

// ClassifyHost classifies a host in any spelling: as a URL has it, with or without brackets, and as a connection has it, with
// or without a zone.
func ClassifyHost(host string) HostClass {
	if addr, err := netip.ParseAddr(host); err == nil {
		return classOfAddr(addr)
	}
	_, class, err := parseHost(host)
	if err != nil {
		return HostRefused
	}
	return class
}

// classOfName refuses names that resolvers answer themselves: localhost and its subdomains (RFC 6761, 6.3), the names of
// loopback addresses in the hosts file of many distributions, and those that nss-myhostname adds.
func classOfName(name string) HostClass {
	name = strings.TrimSuffix(name, ".")
	switch name {
	case "localhost4", "localhost6", "localhost4.localdomain4", "localhost6.localdomain6", "ip6-localhost", "ip6-loopback", "_gateway", "_outbound":
		return HostRefused
	}
	for _, local := range []string{"localhost", "localhost.localdomain"} {
		if name == local || strings.HasSuffix(name, "."+local) {
			return HostRefused
		}
	}
	return PublicName
}

// classOfAddr follows the registries of special-purpose addresses (RFC 6890). An IPv6 address is public if it is global
// unicast, or translated from IPv4, and every IPv4 address that it carries is public.
func classOfAddr(addr netip.Addr) HostClass {
	if addr.Is4() {
		if isSpecialIPv4(addr.As4()) {
			return HostRefused
		}
		return PublicAddress
	}
	translated := inAny(addr, translatedIPv6())
	// A zone names a network of this machine. Everything outside of global unicast is local or reserved.
	if addr.Zone() != "" || !translated && !inAny(addr, prefixes("2000::/3")) || inAny(addr, specialIPv6()) {
		return HostRefused
	}
	// An address that carries a private one would lead there behind a gateway.
	for _, carried := range carriedIPv4(addr) {
		if classOfAddr(carried) == HostRefused {
			return HostRefused
		}
	}
	return PublicAddress
}

// isSpecialIPv4 reports whether an IPv4 address is not public. Many jobs name an address, so no prefixes are parsed here.
func isSpecialIPv4(a [4]byte) bool {
	switch a[0] {
	case 0, 127: // this host: 0.0.0.0/8, 127.0.0.0/8
		return true
	case 10: // private networks (RFC 1918): 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16
		return true
	case 172:
		return a[1]&^15 == 16
	case 192: // 192.0.0.0/24 is for protocols; the metadata of a cloud has been seen there
		return a[1] == 168 || a[1] == 0 && a[2] == 0
	case 100: // carrier-grade NAT (RFC 6598): 100.64.0.0/10
		return a[1]&^63 == 64
	case 169: // link-local, and the metadata of clouds: 169.254.0.0/16
		return a[1] == 254
	case 198: // test networks (RFC 2544): 198.18.0.0/15
		return a[1]&^1 == 18
	}
	return a[0] >= 224 // multicast (224.0.0.0/4); reserved, and broadcast (240.0.0.0/4)
}

// translatedIPv6 are the prefixes outside global unicast that carry an IPv4 address in their last four bytes: mapped,
// compatible, translated (RFC 2765) and NAT64 (RFC 6052).
func translatedIPv6() []netip.Prefix {
	return prefixes("::ffff:0:0/96", "::/96", "::ffff:0:0:0/96", "64:ff9b::/96")
}

// specialIPv6 are the parts of global unicast that are not public: addresses of protocols (RFC 2928), among them Teredo, which
// leads to machines behind a NAT (RFC 4380).
func specialIPv6() []netip.Prefix { return prefixes("2001::/23") }

// carriedIPv4 lists the IPv4 addresses to which a gateway may translate an IPv6 address.
func carriedIPv4(addr netip.Addr) (carried []netip.Addr) {
	b := addr.As16()
	add := func(four [4]byte) { carried = append(carried, netip.AddrFrom4(four)) }
	localNAT64 := inAny(addr, prefixes("64:ff9b:1::/48")) // RFC 8215
	isatap := b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
	switch {
	case inAny(addr, translatedIPv6()), isatap: // RFC 5214
		add([4]byte(b[12:16]))
	case localNAT64: // its operator may have chosen any length of prefix (RFC 6052, 2.2)
		add([4]byte{b[6], b[7], b[9], b[10]})
		add([4]byte{b[7], b[9], b[10], b[11]})
		add([4]byte(b[9:13]))
		add([4]byte(b[12:16]))
	case inAny(addr, prefixes("2002::/16")): // 6to4 (RFC 3056)
		add([4]byte(b[2:6]))
	case inAny(addr, prefixes("2001::/32")): // Teredo: the server, and the client inverted
		add([4]byte(b[4:8]))
		add([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	}
	return carried
}

// HostAliases lists the spellings of a normalised host under which a rule for it may be kept: first the host without a final
// dot, then the IPv4 addresses that an IPv6 address carries.
func HostAliases(host string) []string {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return []string{strings.TrimSuffix(host, ".")}
	}
	aliases := []string{addr.Unmap().WithZone("").String()}
	if addr.Is6() {
		for _, carried := range carriedIPv4(addr) {
			aliases = append(aliases, carried.String())
		}
	}
	return aliases
}

// inAny reports whether an address is in one of the prefixes, whatever its zone.
func inAny(addr netip.Addr, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr.WithZone("")) })
}

// prefixes parses prefixes that are written here. A wrong one panics in the first test.
func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}
