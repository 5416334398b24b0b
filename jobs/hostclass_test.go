package jobs_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gofer-mq/gofer/jobs"
)

// number writes a number of an IPv4 address in one of the bases of inet_aton.
func number(t *rapid.T, n uint32) string {
	format := rapid.SampledFrom([]string{"%d", "0x%x", "0X%X", "0x000%x", "0%o", "000%o"}).Draw(t, "base")
	return fmt.Sprintf(format, n)
}

// spellIPv4 writes an IPv4 address in one of the spellings of inet_aton.
func spellIPv4(t *rapid.T, addr netip.Addr) string {
	b := addr.As4()
	whole := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	parts := rapid.IntRange(1, 4).Draw(t, "parts")
	var out []string
	for i := range parts - 1 {
		out = append(out, number(t, uint32(b[i])))
	}
	rest := whole << (8 * (parts - 1)) >> (8 * (parts - 1))
	return strings.Join(append(out, number(t, rest)), ".") + rapid.SampledFrom([]string{"", "."}).Draw(t, "dot")
}

// spellIPv6 writes an IPv6 address in brackets.
func spellIPv6(t *rapid.T, addr netip.Addr) string {
	b := addr.As16()
	quad := netip.AddrFrom4([4]byte(b[12:])).String()
	full := addr.StringExpanded()
	spelling := rapid.SampledFrom([]string{addr.String(), full, strings.ToUpper(full), full[:30] + quad}).Draw(t, "spelling")
	return "[" + spelling + rapid.SampledFrom([]string{"", "", "%25eth0"}).Draw(t, "zone") + "]"
}

// carry writes an IPv4 address as an IPv6 address that carries it.
func carry(t *rapid.T, addr netip.Addr) netip.Addr {
	v4 := addr.As4()
	// The random bytes are those that a form leaves open.
	b := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "rest"))
	form := rapid.SampledFrom([]string{"::ffff:0:0", "::", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1::", "6to4", "server", "client", "isatap"}).Draw(t, "form")
	switch form {
	case "6to4":
		copy(b[:], []byte{0x20, 0x02, v4[0], v4[1], v4[2], v4[3]})
	case "server":
		copy(b[:], []byte{0x20, 0x01, 0, 0, v4[0], v4[1], v4[2], v4[3]})
	case "client":
		copy(b[:], []byte{0x20, 0x01, 0, 0})
		copy(b[12:], []byte{^v4[0], ^v4[1], ^v4[2], ^v4[3]})
	case "isatap":
		copy(b[:], []byte{0x26, 0x06, 0x47, 0})
		copy(b[8:], []byte{b[8] & 2, 0, 0x5e, 0xfe, v4[0], v4[1], v4[2], v4[3]})
	default:
		b = netip.MustParseAddr(form).As16()
		copy(b[12:], v4[:])
	}
	return netip.AddrFrom16(b)
}

// disguise writes a host in characters and escapes that are mapped to it.
func disguise(t *rapid.T, host string) string {
	if strings.HasPrefix(host, "[") {
		return host
	}
	var out strings.Builder
	for _, r := range host {
		switch rapid.IntRange(0, 5).Draw(t, "disguise") {
		case 0:
			fmt.Fprintf(&out, "%%%02x", r)
		case 1:
			out.WriteRune(r + 0xfee0) // its full width form
		case 2:
			out.WriteString(strings.ToUpper(string(r)) + "\u00ad") // a soft hyphen is dropped
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// within draws an address of a prefix.
func within(t *rapid.T, prefix string) netip.Addr {
	p := netip.MustParsePrefix(prefix)
	start := p.Addr().AsSlice()
	random := rapid.SliceOfN(rapid.Byte(), len(start), len(start)).Draw(t, "address")
	for i := range start {
		mask := byte(0xff >> max(0, min(8, p.Bits()-8*i)))
		start[i] |= random[i] & mask
	}
	addr, _ := netip.AddrFromSlice(start)
	return addr
}

// classes lists what the ways to name a host make of it: as text, in a job and in a redirect.
func classes(host string) []jobs.HostClass {
	base, _ := jobs.ParseURL("http://base.test/")
	inJob, _ := jobs.ParseURL("http://" + host + "/")
	inRedirect, _ := base.Resolve("//" + host + "/")
	return []jobs.HostClass{jobs.ClassifyHost(host), inJob.HostClass(), inRedirect.HostClass()}
}

func TestHostsOfThisMachineAndOfPrivateNetworksAreRefusedInEverySpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := within(t, rapid.SampledFrom([]string{
			"0.0.0.0/8", "127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10", "192.0.0.0/24",
			"198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "fe80::/10", "fec0::/10", "fc00::/7", "ff00::/8", "2001::/32",
			"64:ff9b:1::/48",
		}).Draw(t, "prefix"))
		if addr.Is4() && rapid.Bool().Draw(t, "as IPv6") {
			addr = carry(t, addr)
		}
		spell := spellIPv6
		if addr.Is4() {
			spell = spellIPv4
		}
		host := disguise(t, spell(t, addr))
		if got := classes(host); slices.ContainsFunc(got, func(c jobs.HostClass) bool { return c != jobs.HostRefused }) {
			t.Errorf("%s (%s): got %v, want it refused", host, addr, got)
		}
	})
}

// notPublic are names of this machine, and what is no host.
func notPublic() []string {
	return []string{
		"localhost", "a.localhost", "localhost.", "localhost.localdomain", "a.b.localhost", "ip6-localhost", "ip6-loopback", "localhost4",
		"localhost6", "_gateway", "_outbound", "", ".", "..", "a..test", ".test", "*", "*.test", "a.*", "a.test..", "0x", "0x.", "a.0x", "1.2.3.4.5",
		"127.0.0.257", "256.256.256.256", "6425673729", "0xffffffffff", "08", "a.09", "1..2",
	}
}

func TestNamesOfThisMachineAndEmptyHostsAreRefusedInEverySpelling(t *testing.T) {
	for _, host := range append(notPublic(), "[2606:4700::1111%25eth0]", "2606:4700::1111%eth0", "[3fff::1", "4000::1", "a b", "a\x00") {
		if got := classes(host); slices.ContainsFunc(got, func(c jobs.HostClass) bool { return c != jobs.HostRefused }) {
			t.Errorf("%q: got %v, want it refused", host, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		host := disguise(t, rapid.SampledFrom(notPublic()).Draw(t, "host"))
		if got := classes(host); slices.ContainsFunc(got, func(c jobs.HostClass) bool { return c != jobs.HostRefused }) {
			t.Errorf("%q: got %v, want it refused", host, got)
		}
	})
}

func TestPublicHostsAreKnownInEverySpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := netip.MustParseAddr(rapid.SampledFrom([]string{"8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001:82a::200e"}).Draw(t, "address"))
		var host string
		class := jobs.PublicAddress
		switch {
		case addr.Is6():
			host = "[" + addr.StringExpanded() + "]"
		case rapid.Bool().Draw(t, "name"):
			host, class = "a_b.example-1.test", jobs.PublicName
		default:
			host = fmt.Sprintf("0x%x.%d", addr.As4()[0], uint32(addr.As4()[1])<<16|uint32(addr.As4()[2])<<8|uint32(addr.As4()[3]))
		}
		host = disguise(t, host)
		for _, got := range classes(host) {
			if got != class {
				t.Errorf("%s: got %v, want %v", host, classes(host), class)
			}
		}
	})
}

// What a rule says of an IPv4 address holds for every IPv6 address that a gateway may translate to it.
func TestAnIPv4AddressIsKnownInItsIPv6Forms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		denied := netip.MustParseAddr("8.8.8.8")
		spelling := disguise(t, spellIPv4(t, denied))
		if rapid.Bool().Draw(t, "as IPv6") {
			spelling = spellIPv6(t, carry(t, denied))
		}
		u, err := jobs.ParseURL("http://" + spelling + "/")
		if err != nil {
			t.Fatalf("%s: %v", spelling, err)
		}
		if aliases := jobs.HostAliases(u.Hostname()); !slices.Contains(aliases, "8.8.8.8") {
			t.Errorf("%s: got %v, want 8.8.8.8 among them", spelling, aliases)
		}
	})
}

func TestDeniedHostsAreKeptInOneSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"BÜCHER.test.": "xn--bcher-kva.test", "0xc0.0.2.3": "192.0.2.3", "2001:DB8:0::1": "2001:db8::1", "[2001:db8::2]": "2001:db8::2",
		"::ffff:192.0.2.1": "192.0.2.1", "[::ffff:c000:201]": "192.0.2.1", "fe80::1%eth0": "fe80::1", "localhost": "localhost",
		"*.a.test": "", "a.test:80": "", "a.test/x": "", "a..test": "", "a b": "", "": "", "user@a.test": "", "a.test?x": "", "1.2.3.4.5": "",
	} {
		if got, err := jobs.CanonicalHost(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}

// FuzzClassifyHost holds the classes against package netip, which reads one spelling of an address only.
func FuzzClassifyHost(f *testing.F) {
	for _, seed := range []string{"localhost", "127.1", "a.test", "[::1]", "::1%eth0", "8.8.8.8", "1.1", "\uff11", "a.test.", "0x7f.1", "%6c", "ⓛocalhost"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, host string) {
		class := jobs.ClassifyHost(host)
		u, err := jobs.ParseURL("http://" + host + "/")
		if err != nil {
			u, err = jobs.ParseURL("http://[" + host + "]/")
		}
		if class == jobs.HostRefused || err != nil || u.RequestTarget() != "/" {
			return
		}
		addr, err := netip.ParseAddr(u.Hostname())
		label := strings.TrimSuffix(u.Hostname(), ".")
		label = label[strings.LastIndexByte(label, '.')+1:]
		private := err == nil && (addr.Unmap().IsPrivate() || addr.Unmap().IsLoopback() || addr.Unmap().IsLinkLocalUnicast() || addr.Unmap().IsUnspecified() || addr.Unmap().IsMulticast())
		if private || class != u.HostClass() || (class == jobs.PublicAddress) != (err == nil) || label == "" || class == jobs.PublicName && strings.Trim(label, "0123456789") == "" {
			t.Errorf("%q is class %d, as %s", host, class, u)
		}
		if again := jobs.ClassifyHost(u.Hostname()); again != class {
			t.Errorf("%q is class %d, and %s is class %d", host, class, u.Hostname(), again)
		}
	})
}

// TestSpecialAddressesEndWhereTheirNetworksEnd looks at both ends of each network, and at the addresses beside it.
func TestSpecialAddressesEndWhereTheirNetworksEnd(t *testing.T) {
	networks := []netip.Prefix{}
	for _, text := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
	} {
		networks = append(networks, netip.MustParsePrefix(text))
	}
	special := func(addr netip.Addr) bool {
		return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	for _, network := range networks {
		first := network.Addr()
		last := first.As4()
		for bit := network.Bits(); bit < 32; bit++ {
			last[bit/8] |= 0x80 >> (bit % 8)
		}
		for _, addr := range []netip.Addr{first, first.Prev(), netip.AddrFrom4(last), netip.AddrFrom4(last).Next()} {
			if !addr.IsValid() {
				continue
			}
			want := jobs.PublicAddress
			if special(addr) {
				want = jobs.HostRefused
			}
			if got := jobs.ClassifyHost(addr.String()); got != want {
				t.Errorf("%s: got %v, want %v", addr, got, want)
			}
		}
	}
}
