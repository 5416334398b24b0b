package jobs

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// maxHostBytes is the longest name that can be looked up (RFC 1035, 2.3.4).
	maxHostBytes = 253
	// maxHostText bounds a name before it is mapped, because the time that Punycode takes grows with the square of its length.
	maxHostText = 4 * maxHostBytes
)

// CanonicalHost is the spelling of a host under which the fleet's deny list has it, whatever spelling is given. It is only for
// the deny list: parseHost reads the host of a URL. It is without a final dot and without brackets, and an IPv4 address that is
// written as an IPv6 one is an IPv4 address.
func CanonicalHost(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		// The zone goes, since a rule is about the address wherever it is.
		return addr.Unmap().WithZone("").String(), nil
	}
	host, _, err := parseHost(text)
	if err != nil {
		return "", err
	}
	// The first alias is the one under which rules are stored.
	return HostAliases(host)[0], nil
}

// parseHost reads the host of a URL by the host parser of the WHATWG URL standard. The host is a name in lower-case ASCII, an
// IPv4 address of four decimals, or an IPv6 address without brackets. Names that no resolver has are errors too: labels
// consist of letters, digits, hyphens and underscores, and only the root after a final dot is empty.
func parseHost(text string) (host string, class HostClass, err error) {
	if strings.HasPrefix(text, "[") {
		return parseIPv6(text)
	}
	name, err := asciiName(text)
	switch {
	case err != nil:
		return "", HostRefused, err
	case name == "":
		return "", HostRefused, malformed("no host")
	case name == ".":
		return "", HostRefused, unsupported("no host")
	case len(strings.TrimSuffix(name, ".")) > maxHostBytes:
		return "", HostRefused, unsupported(fmt.Sprintf("the host is longer than %d bytes", maxHostBytes))
	case endsInNumber(name):
		return parseIPv4(name)
	}
	// Checked after the mapping, because only the result is looked up.
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", HostRefused, unsupported("a label of the host is empty, or has other characters than letters, digits, - and _")
		}
	}
	return name, classOfName(name), nil
}

// forbiddenInHost are the forbidden domain code points of the WHATWG URL standard, without the control characters.
const forbiddenInHost = " #%/:<>?@[\\]^|"

// asciiName is the domain to ASCII algorithm: escapes are decoded, names of other scripts are mapped and written in Punycode.
func asciiName(text string) (string, error) {
	if strings.Contains(text, "%") {
		// A lone percent sign stays, and is forbidden. An escape may hide any character, so escapes are undone
		// before anything is compared.
		text = decodeEscapes(text)
	}
	if len(text) > maxHostText {
		return "", unsupported(fmt.Sprintf("the host is longer than %d bytes", maxHostBytes))
	}
	name := strings.ToLower(text)
	if !isASCII(text) {
		// Newer tables than those of the idna package map the capital sharp s to the small one, and not to ss.
		mapped, err := domainProfile().ToASCII(strings.ReplaceAll(text, "\u1e9e", "\u00df"))
		if err != nil || !utf8.ValidString(text) || hasEmptyPunycode(name) {
			return "", malformed("the host is no name of any script (IDNA)")
		}
		name = mapped
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f || strings.ContainsRune(forbiddenInHost, r) }) {
		return "", malformed("the host has characters that no host name has")
	}
	return name, nil
}

// hasEmptyPunycode reports whether a label is marked as Punycode and empty, which the idna package drops.
func hasEmptyPunycode(name string) bool {
	labels := strings.FieldsFunc(name, func(r rune) bool { return strings.ContainsRune(".\u3002\uff0e\uff61", r) })
	return slices.Contains(labels, "xn--")
}

// isASCII reports whether a text has no other characters than those of ASCII.
func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

// domainProfile is how the URL standard processes names: without the rules for hyphens, for lengths and for ASCII.
func domainProfile() *idna.Profile {
	return idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false), idna.CheckHyphens(false), idna.CheckJoiners(true),
		idna.BidiRule(), idna.VerifyDNSLength(false))
}

// decodeEscapes decodes the escapes of a host and leaves a percent sign alone that begins none.
func decodeEscapes(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			if char, err := strconv.ParseUint(text[i+1:i+3], 16, 8); err == nil {
				out.WriteByte(byte(char))
				i += 2
				continue
			}
		}
		out.WriteByte(text[i])
	}
	return out.String()
}

// endsInNumber reports whether a name must be read as an IPv4 address, because its last label is a number.
func endsInNumber(name string) bool {
	name = strings.TrimSuffix(name, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	hex, isHex := strings.CutPrefix(last, "0x")
	// Names such as 0x7f or 1.2.3.0x4 are addresses for a browser and for inet_aton.
	return isHex && strings.Trim(hex, "0123456789abcdef") == "" || last != "" && strings.Trim(last, "0123456789") == ""
}

// parseIPv4 reads what inet_aton reads: one to four numbers, of which the last fills the rest. Some resolvers take 010 for
// ten and not for eight, so a host that is not public under that reading is refused, too.
func parseIPv4(name string) (host string, class HostClass, err error) {
	addr, ok := looseIPv4(name, 8)
	if !ok {
		return "", HostRefused, unsupported("the host ends in a number, but is no IPv4 address")
	}
	// Both readings have to be public: which one a resolver takes is not known.
	class = classOfAddr(addr)
	if decimal, ok := looseIPv4(name, 10); ok && classOfAddr(decimal) == HostRefused {
		class = HostRefused
	}
	return addr.String(), class, nil
}

// looseIPv4 reads an address whose numbers with a leading zero are of the given base.
func looseIPv4(name string, zeroBase int) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimSuffix(name, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var sum uint64
	for i, part := range parts {
		n, ok := parseNumber(part, zeroBase)
		bits := 8
		if i == len(parts)-1 {
			// The last number fills the bytes that are left: 127.1 is 127.0.0.1.
			bits = 8 * (5 - len(parts))
		}
		if !ok || n >= 1<<bits {
			return netip.Addr{}, false
		}
		sum = sum<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}), true
}

// parseNumber reads a number of an IPv4 address: hexadecimal after 0x, of base zeroBase after a zero, else decimal. Nothing
// after 0x is zero.
func parseNumber(text string, zeroBase int) (n uint64, ok bool) {
	base := 10
	switch {
	case strings.HasPrefix(text, "0x"):
		if text, base = text[2:], 16; text == "" {
			return 0, true
		}
	case len(text) > 1 && text[0] == '0':
		text, base = text[1:], zeroBase
	}
	n, err := strconv.ParseUint(text, base, 32)
	return n, err == nil
}

// parseIPv6 reads an IPv6 address in brackets. A zone (RFC 6874) is left out: it means something on one machine only, where
// it makes any address one of that machine's networks.
func parseIPv6(text string) (host string, class HostClass, err error) {
	inner, closed := strings.CutSuffix(text[1:], "]")
	inner, zone, zoned := strings.Cut(inner, "%25")
	addr, err := netip.ParseAddr(inner)
	switch {
	case !closed || err != nil || !addr.Is6() || addr.Zone() != "":
		return "", HostRefused, malformed("the host in brackets is no IPv6 address")
	case zoned && (zone == "" || strings.ContainsAny(zone, forbiddenInHost)):
		return "", HostRefused, malformed("the zone of the host is not valid")
	case zoned:
		return formatIPv6(addr), HostRefused, nil
	}
	return formatIPv6(addr), classOfAddr(addr), nil
}

// formatIPv6 writes an address as the URL standard does. Package netip writes the last part of ::ffff:0:0/96 in decimals.
func formatIPv6(addr netip.Addr) string {
	if !addr.Is4In6() {
		return addr.String()
	}
	b := addr.As16()
	return fmt.Sprintf("::ffff:%x:%x", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15]))
}
