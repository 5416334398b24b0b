package fetch

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"sync"
)

const (
	// maxInterceptors bounds how many suspects are kept, maxRefusedCerts how many certificates of each.
	maxInterceptors = 1024
	maxRefusedCerts = 32
	// interceptedDomains is at how many domains a proxy must show certificates of one issuer to be an interceptor. A
	// publisher or a site may have a bad certificate for its own domain, but hardly for domains of others.
	interceptedDomains = 3
)

// refusedCert is a certificate that a proxy showed and that was refused.
type refusedCert struct {
	issuer [sha256.Size]byte
	domain string // registrable
}

// refusedCertOf returns what a refused certificate shows about its origin: a hash of its issuer, and the domain for which
// it was shown.
func refusedCertOf(err error, host string) refusedCert {
	c := refusedCert{domain: domainOf(host)}
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0 {
		c.issuer = sha256.Sum256(refused.UnverifiedCertificates[0].RawIssuer)
	}
	return c
}

// interceptors holds the suspects: proxies through which certificates were refused that are good through another proxy. A good
// certificate through a suspect clears it. The zero value is empty.
type interceptors struct {
	mu      sync.Mutex               // guards refused
	refused map[string][]refusedCert // by the id of the proxy; at most maxInterceptors
}

// suspect records a refused certificate of a proxy. It reports whether the proxy is an interceptor: it showed
// certificates of one issuer at interceptedDomains domains. When the table is full, all suspects are forgotten, which
// is harmless: an interceptor is soon found again.
func (i *interceptors) suspect(id string, cert refusedCert) (isInterceptor bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refused == nil || i.refused[id] == nil && len(i.refused) >= maxInterceptors {
		i.refused = map[string][]refusedCert{}
	}
	list := i.refused[id]
	same, known := 0, false
	for _, c := range list {
		known = known || c == cert
		if c.issuer == cert.issuer {
			same++
		}
	}
	if !known {
		same++
		if len(list) == maxRefusedCerts {
			list = list[1:]
		}
		i.refused[id] = append(list, cert)
	}
	return same >= interceptedDomains
}

// clear records that a certificate was good through a proxy. The proxy is then no longer a suspect.
func (i *interceptors) clear(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.refused, id)
}
