package playground

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// socks serves one SOCKS5 CONNECT (RFC 1928, RFC 1929). It counts as one request. Silent and Garbage ended in
// serve, before the version of the protocol was known.
func (p *Proxy) socks(c net.Conn, in *bufio.Reader) {
	p.Requests.Add(1)
	target, mode, err := p.greet(c, in)
	if err != nil || mode == Refusing {
		return
	}
	if mode == Slow {
		p.pause()
	}
	const tail = "\x00\x01\x00\x00\x00\x00\x00\x00" // the address that it was bound to, which nobody needs
	p.tunnel(c, in, target, mode, "\x05\x00"+tail, "\x05\x01"+tail)
}

// errSocks ends a connection that asks for what this proxy does not serve, or with the wrong credentials.
var errSocks = errors.New("not a SOCKS5 request")

// greet agrees on a method and reads the request: first the methods that the client offers, then where it wants to
// go. The methods are not read: a client that lacks the one that is answered ends the connection itself.
func (p *Proxy) greet(c net.Conn, in *bufio.Reader) (target string, mode Mode, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		return "", 0, err
	}
	if _, err := in.Discard(int(head[1])); err != nil {
		return "", 0, err
	}
	if p.User != "" || p.Exit != nil {
		mode, err = p.login(c, in)
	} else {
		mode = Mode(p.mode.Load())
		_, err = c.Write([]byte{5, 0})
	}
	if err != nil {
		return "", 0, err
	}
	target, err = destination(in)
	return target, mode, err
}

// login demands user and password (RFC 1929), and says how the proxy behaves towards them.
func (p *Proxy) login(c net.Conn, in *bufio.Reader) (mode Mode, err error) {
	if _, err := c.Write([]byte{5, 2}); err != nil {
		return 0, err
	}
	// The version of the login, which is always 1.
	if _, err := in.Discard(1); err != nil {
		return 0, err
	}
	user, err := short(in)
	if err != nil {
		return 0, err
	}
	password, err := short(in)
	if err != nil {
		return 0, err
	}
	mode, ok := p.admit(user, password)
	if !ok {
		// Any number but zero refuses the client.
		_, _ = c.Write([]byte{1, 1})
		return 0, errSocks
	}
	_, err = c.Write([]byte{1, 0})
	return mode, err
}

// short is a text behind a byte with its length. So it has at most 255 bytes.
func short(in *bufio.Reader) (string, error) {
	n, err := in.ReadByte()
	if err != nil {
		return "", err
	}
	text := make([]byte, n)
	_, err = io.ReadFull(in, text)
	return string(text), err
}

// destination reads the request: version, command, a reserved byte, and an address with its port. The command is
// not looked at, because gofer sends no other one than CONNECT.
func destination(in *bufio.Reader) (string, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return "", err
	}
	var host string
	switch head[3] {
	// IPv4 and IPv6.
	case 1, 4:
		ip := make(net.IP, map[byte]int{1: 4, 4: 16}[head[3]])
		if _, err := io.ReadFull(in, ip); err != nil {
			return "", err
		}
		host = ip.String()
	// A name, which this proxy resolves: that is how a site without a public address is reached.
	case 3:
		name, err := short(in)
		if err != nil {
			return "", err
		}
		host = name
	default:
		return "", errSocks
	}
	port := make([]byte, 2)
	if _, err := io.ReadFull(in, port); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, fmt.Sprint(binary.BigEndian.Uint16(port))), nil
}
