package bus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/gofer-mq/gofer/jobs/text"
)

// wrongFiles returns the errors of the files, which it reads as a connection would: a server does not say what is wrong with
// them. The errors hold nothing of the contents.
func (d Dial) wrongFiles() (wrong []error) {
	bad := func(field string, err error) {
		if err != nil {
			wrong = append(wrong, wrongField(field, err))
		}
	}
	bad("Creds", checkFile(d.Creds, func(data []byte) bool {
		jwt, jwtErr := nkeys.ParseDecoratedJWT(data)
		_, seedErr := nkeys.ParseDecoratedNKey(data)
		return jwtErr == nil && jwt != string(data) && seedErr == nil // a text without a JWT is returned unchanged
	}, "no credentials file, which holds a JWT and a seed"))
	bad("CA", checkFile(d.CA, x509.NewCertPool().AppendCertsFromPEM, "no PEM file with a certificate"))
	switch {
	case d.Cert == "" && d.Key == "":
	case d.Cert == "":
		bad("Key", errors.New("given without a certificate"))
	case d.Key == "":
		bad("Cert", errors.New("given without a key"))
	default:
		// Both files are read first, so that the error names a missing file and not the pair.
		cert, certErr := readCredential(d.Cert)
		key, keyErr := readCredential(d.Key)
		bad("Cert", certErr)
		bad("Key", keyErr)
		if _, err := tls.X509KeyPair(cert, key); err != nil && certErr == nil && keyErr == nil {
			bad("Cert, Key", err)
		}
	}
	return wrong
}

// checkFile reads a file, if one is named, and checks its content with good.
func checkFile(path string, good func([]byte) bool, otherwise string) error {
	if path == "" {
		return nil
	}
	data, err := readCredential(path)
	if err == nil && !good(data) {
		err = errors.New(otherwise)
	}
	return err
}

// maxCredential bounds a file of credentials, in bytes. A file with all authorities of a system has a quarter of it.
const maxCredential = 1 << 20

// readCredential reads a file that nats.go reads again for each connection. It refuses a pipe: that is empty the second
// time, and blocks while it has no writer.
func readCredential(path string) ([]byte, error) {
	if err := text.CheckNoPipe(path); err != nil {
		return nil, fmt.Errorf("%w for each connection: name a file", err)
	}
	return text.ReadFile(path, syscall.O_NONBLOCK, maxCredential)
}

// nkey returns the option for a seed, or for the path of a file that holds one. Its errors never repeat the text, which may be
// the seed.
func nkey(written string) (nats.Option, error) {
	seed := []byte(written)
	switch data, err := readCredential(written); {
	case err == nil: // the text is a path, because no file has the name of a seed
		seed = data
	case errors.Is(err, text.ErrPipe):
		return nil, wrongField("Nkey", err)
	}
	seed, _ = text.Document(seed) // empty if the file is no text
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, wrongField("Nkey", errors.New("neither a seed nor a file that holds one"))
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, wrongField("Nkey", errors.New("no public key belongs to this seed"))
	}
	return nats.Nkey(public, pair.Sign), nil
}
