package fetch

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"sync"
)

const (
	// maxForgers bounds how many proxies are suspected at once, maxForged how many certificates are kept of one.
	maxForgers = 1024
	maxForged  = 32
	// forgedDomains is at how many registrable domains a proxy must show certificates of one issuer. Publishers and sites can
	// have bad certificates of their own, but hardly those of other people's sites.
	forgedDomains = 3
)

// forged is a certificate that a proxy showed and that was refused.
type forged struct {
	issuer [sha256.Size]byte
	domain string // registrable
}

// forgedBy is what a refused certificate says of its origin.
func forgedBy(err error, host string) forged {
	f := forged{domain: siteOf(host)}
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0 {
		f.issuer = sha256.Sum256(refused.UnverifiedCertificates[0].RawIssuer)
	}
	return f
}

// forgers are proxies through which certificates were refused that are good through another proxy, until a certificate is
// good through them.
type forgers struct {
	mu sync.Mutex // guards of
	of map[string][]forged
}

// accuse notes that a proxy may have forged a certificate, and reports whether one issuer has now appeared at enough domains.
func (f *forgers) accuse(id string, what forged) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of == nil || f.of[id] == nil && len(f.of) >= maxForgers {
		f.of = map[string][]forged{}
	}
	list := f.of[id]
	same, known := 0, false
	for _, g := range list {
		known = known || g == what
		if g.issuer == what.issuer {
			same++
		}
	}
	if !known {
		same++
		if len(list) == maxForged {
			list = list[1:]
		}
		f.of[id] = append(list, what)
	}
	return same >= forgedDomains
}

// acquit notes that a certificate was good through a proxy.
func (f *forgers) acquit(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of, id)
}
