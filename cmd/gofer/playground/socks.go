package playground

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// socks serves one SOCKS5 CONNECT (RFC 1928, RFC 1929).
func (p *Proxy) socks(c net.Conn, in *bufio.Reader) {
	p.Requests.Add(1)
	target, err := p.greet(c, in)
	if err != nil {
		return
	}
	if Mode(p.mode.Load()) == Slow {
		p.pause()
	}
	const tail = "\x00\x01\x00\x00\x00\x00\x00\x00" // the address that it was bound to, which nobody needs
	p.tunnel(c, in, target, "\x05\x00"+tail, "\x05\x01"+tail)
}

var errSocks = errors.New("not a SOCKS5 request")

func (p *Proxy) greet(c net.Conn, in *bufio.Reader) (string, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		return "", err
	}
	if _, err := in.Discard(int(head[1])); err != nil {
		return "", err
	}
	if p.User != "" {
		if err := p.login(c, in); err != nil {
			return "", err
		}
	} else if _, err := c.Write([]byte{5, 0}); err != nil {
		return "", err
	}
	return destination(in)
}

func (p *Proxy) login(c net.Conn, in *bufio.Reader) error {
	if _, err := c.Write([]byte{5, 2}); err != nil {
		return err
	}
	if _, err := in.Discard(1); err != nil {
		return err
	}
	user, err := short(in)
	if err != nil {
		return err
	}
	password, err := short(in)
	if err != nil {
		return err
	}
	if user != p.User || password != p.Password {
		_, _ = c.Write([]byte{1, 1})
		return errSocks
	}
	_, err = c.Write([]byte{1, 0})
	return err
}

// short is a text behind a byte with its length.
func short(in *bufio.Reader) (string, error) {
	n, err := in.ReadByte()
	if err != nil {
		return "", err
	}
	text := make([]byte, n)
	_, err = io.ReadFull(in, text)
	return string(text), err
}

func destination(in *bufio.Reader) (string, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return "", err
	}
	var host string
	switch head[3] {
	case 1, 4:
		ip := make(net.IP, map[byte]int{1: 4, 4: 16}[head[3]])
		if _, err := io.ReadFull(in, ip); err != nil {
			return "", err
		}
		host = ip.String()
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
