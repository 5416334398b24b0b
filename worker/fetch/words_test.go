package fetch_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/rotation/proxylist"
	"github.com/gofer-mq/gofer/worker/fetch"
	"github.com/gofer-mq/gofer/worker/fetch/http1"
)

// secret is in every error that can hold foreign bytes, and in no text about it.
const secret = "s3cret"

// errorTypes are the types of errors of the libraries that a fetch goes through: one error of each with the words for it, or
// why a fetch never meets it. Of a type that is not exported there is its text, which the library's source has to contain.
var errorTypes = map[string]struct {
	err   error
	text  string
	words string
	never string
}{
	"net.OpError":             {err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}, words: "connection reset"},
	"net.DNSError":            {err: &net.DNSError{Err: secret, Name: secret, IsNotFound: true}, words: "its name does not exist"},
	"net.AddrError":           {err: &net.AddrError{Err: secret, Addr: secret}, words: "its address is not valid"},
	"net.ParseError":          {err: &net.ParseError{Type: secret, Text: secret}, words: "its address is not valid"},
	"net.InvalidAddrError":    {err: net.InvalidAddrError(secret), words: "its address is not valid"},
	"net.UnknownNetworkError": {err: net.UnknownNetworkError(secret), words: "its address is not valid"},
	"net.DNSConfigError":      {err: &net.DNSConfigError{Err: errors.New(secret)}, words: "the resolver of this worker is not configured"},
	"net.timeoutError":        {err: os.ErrDeadlineExceeded, words: "timeout"},
	"net.canceledError":       {err: context.Canceled, words: "cancelled"},
	"net.addrinfoErrno":       {never: "becomes a DNSError"},
	"net.notFoundError":       {never: "becomes a DNSError"},
	"net.temporaryError":      {never: "becomes a DNSError"},

	"net/http.ProtocolError":                   {never: "of servers, and of requests that are not made here"},
	"net/http.MaxBytesError":                   {never: "of MaxBytesReader"},
	"net/http.statusError":                     {never: "of servers"},
	"net/http.unsupportedTEError":              {never: "of answers in HTTP/1.1, which http1 reads"},
	"net/http.transportReadFromServerError":    {never: "wraps what was met"},
	"net/http.timeoutError":                    {text: "net/http: timeout awaiting response headers", never: "no such timeout is set"},
	"net/http.tlsHandshakeTimeoutError":        {text: "net/http: TLS handshake timeout", words: "timeout"},
	"net/http.http2ConnectionError":            {text: "connection error: %s", words: "HTTP/2 ENHANCE_YOUR_CALM"},
	"net/http.http2StreamError":                {err: streamReset{Code: 7}, words: "HTTP/2 REFUSED_STREAM"},
	"net/http.http2GoAwayError":                {text: "http2: server sent GOAWAY and closed the connection; LastStreamID=%v, ErrCode=%v, debug=%q", words: "HTTP/2 INTERNAL_ERROR"},
	"net/http.http2connError":                  {text: "http2: connection error: %v: %v", words: "HTTP/2 COMPRESSION_ERROR"},
	"net/http.http2goAwayFlowError":            {text: "connection exceeded flow control window size", words: "HTTP/2 FLOW_CONTROL_ERROR"},
	"net/http.http2pseudoHeaderError":          {text: "invalid pseudo-header %q", words: "malformed header"},
	"net/http.http2duplicatePseudoHeaderError": {text: "duplicate pseudo-header %q", words: "malformed header"},
	"net/http.http2headerFieldNameError":       {text: "invalid header field name %q", words: "malformed header"},
	"net/http.http2headerFieldValueError":      {text: "invalid header field value for %q", words: "malformed header"},
	"net/http.http2noCachedConnError":          {text: "http2: no cached connection was available", words: "connection closed"},
	"net/http.http2httpError":                  {never: "of servers"},
	"net/textproto.ProtocolError":              {never: "of answers in HTTP/1.1, which http1 reads"},
	"net/textproto.Error":                      {never: "of mail servers"},

	"crypto/tls.RecordHeaderError":            {err: tls.RecordHeaderError{Msg: secret}, words: "it does not speak TLS; list it as http://"},
	"crypto/tls.AlertError":                   {err: tls.AlertError(40), words: "no common cipher (handshake failure)"},
	"crypto/tls.alert":                        {err: &net.OpError{Op: "remote error", Err: errors.New("tls: protocol version not supported")}, words: "no common version of TLS (protocol version not supported)"},
	"crypto/tls.CertificateVerificationError": {err: &tls.CertificateVerificationError{Err: errors.New(secret)}, words: "its certificate is not trusted"},
	"crypto/tls.ECHRejectionError":            {err: &tls.ECHRejectionError{}, words: "TLS failed"},
	"crypto/tls.permanentError":               {never: "wraps what was met"},
	"crypto/tls.echConfigErr":                 {never: "of a configuration that is not used"},
	"crypto/tls.timeoutError":                 {never: "of a Dialer that is not used"},

	"crypto/x509.CertificateInvalidError":    {err: verification(x509.CertificateInvalidError{Reason: x509.Expired, Detail: secret}), words: "its certificate has expired"},
	"crypto/x509.HostnameError":              {err: verification(x509.HostnameError{Host: secret, Certificate: &x509.Certificate{}}), words: "its certificate is for another name"},
	"crypto/x509.UnknownAuthorityError":      {err: verification(x509.UnknownAuthorityError{Cert: &x509.Certificate{RawIssuer: []byte(secret)}}), words: "its certificate has an unknown issuer"},
	"crypto/x509.SystemRootsError":           {err: verification(x509.SystemRootsError{Err: errors.New(secret)}), words: "its certificate cannot be checked: this host has no root certificates"},
	"crypto/x509.InsecureAlgorithmError":     {err: verification(x509.InsecureAlgorithmError(x509.MD5WithRSA)), words: "its certificate is signed by an algorithm that is not secure"},
	"crypto/x509.ConstraintViolationError":   {err: verification(x509.ConstraintViolationError{}), words: "its certificate may not be used for this"},
	"crypto/x509.UnhandledCriticalExtension": {err: verification(x509.UnhandledCriticalExtension{}), words: "its certificate may not be used for this"},

	"github.com/klauspost/compress/flate.InternalError": {never: "wrapped as what no coding has: TestBodyThatCannotBeDecodedIsNobodysAnswer"},
	"github.com/andybalholm/brotli.decodeError":         {never: "wrapped as what no coding has: TestBodyThatCannotBeDecodedIsNobodysAnswer"},
}

func verification(err error) error { return &tls.CertificateVerificationError{Err: err} }

// streamReset is what net/http's own error converts into.
type streamReset struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// Error has foreign bytes.
func (streamReset) Error() string { return secret }

// As converts as net/http's does.
func (s streamReset) As(target any) bool {
	to := reflect.ValueOf(target).Elem()
	if to.Kind() != reflect.Struct || to.NumField() != 3 || to.Type().Field(0).Name != "StreamID" {
		return false
	}
	to.FieldByName("Code").SetUint(uint64(s.Code))
	return true
}

// moreErrors are those that have no type of their own.
var moreErrors = []struct {
	err   error
	words string
}{
	{io.EOF, "connection closed"}, {io.ErrUnexpectedEOF, "connection closed"}, {net.ErrClosed, "connection closed"}, {io.ErrClosedPipe, "connection closed"},
	{syscall.ECONNREFUSED, "connection refused"}, {syscall.EPIPE, "connection closed"}, {syscall.EHOSTUNREACH, "no route to it"}, {syscall.ENETDOWN, "no route to it"},
	{syscall.EPERM, "this host does not permit the connection"}, {context.DeadlineExceeded, "timeout"}, {syscall.ETIMEDOUT, "timeout"},
	{verification(x509.CertificateInvalidError{Reason: x509.Expired, Cert: &x509.Certificate{NotBefore: time.Now().Add(time.Hour)}}), "its certificate is not valid yet"},
	{verification(x509.UnknownAuthorityError{Cert: &x509.Certificate{RawIssuer: []byte("a"), RawSubject: []byte("a")}}), "its certificate is self-signed"},
	{verification(x509.CertificateInvalidError{Reason: x509.TooManyIntermediates}), "its certificate may not be used for this"},
	{http1.ErrNotHTTP, "it is not HTTP"}, {fmt.Errorf("%w: %w", http1.ErrEnded, io.EOF), "connection closed"},
	{errors.New("tls: failed to parse certificate from server: " + secret), "its certificate cannot be read"},
	{errors.New("tls: server selected unsupported protocol version 301"), "no common version of TLS"},
	{errors.New("http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=unknown error code 0x2a, debug=\"" + secret + "\""), "HTTP/2 error 42"},
	{errors.New("http2: Transport received Server's graceful shutdown GOAWAY"), "HTTP/2 NO_ERROR"},
	{errors.New(secret), "the exchange broke off"},
}

func TestEveryErrorTypeHasWordsOfOurs(t *testing.T) {
	found := map[string]string{} // the source of each type's package
	for _, path := range []string{
		"net", "net/http", "net/http/internal", "net/textproto", "crypto/tls", "crypto/x509",
		"github.com/klauspost/compress/flate", "github.com/klauspost/compress/zstd", "github.com/andybalholm/brotli",
	} {
		names, source := errorsOf(t, path)
		for _, name := range names {
			found[path+"."+name] = source
		}
	}
	for name, source := range found {
		e, known := errorTypes[name]
		if !known {
			t.Errorf("%s: no words for it, and no reason why it is never met", name)
			continue
		}
		if !strings.Contains(source, e.text) {
			t.Errorf("%s: the library has no text %q", name, e.text)
		}
		if e.never != "" {
			continue
		}
		err := e.err
		if err == nil {
			err = errors.New(strings.NewReplacer("LastStreamID=%v", "LastStreamID=1", "ErrCode=%v", "ErrCode=INTERNAL_ERROR", "error: %v: %v", "error: COMPRESSION_ERROR: "+secret,
				"%s", "ENHANCE_YOUR_CALM", "%q", secret).Replace(e.text))
		}
		wantWords(t, name, err, e.words)
	}
	for name := range errorTypes {
		if _, ok := found[name]; !ok {
			t.Errorf("%s: no longer a type of that library", name)
		}
	}
	for _, e := range moreErrors {
		wantWords(t, e.err.Error(), e.err, e.words)
	}
}

func wantWords(t *testing.T, name string, err error, words string) {
	t.Helper()
	got := said(t, err)
	if late := words == "timeout" && strings.Contains(got, "in time"); strings.Contains(got, secret) || !strings.HasSuffix(got, ": "+words) && !late {
		t.Errorf("%s: %q, want %q in the end", name, got, words)
	}
}

// said is the text of an attempt whose connection to the proxy ended with an error.
func said(t *testing.T, err error) string {
	t.Helper()
	pool := rotation.New(rotation.Config{})
	list, bad := proxylist.ParseList(strings.NewReader("http://u:" + secret + "@p.test:80 id=p"))
	if bad != nil {
		t.Fatal(bad)
	}
	pool.Replace(list)
	f := fetch.New(fetch.Config{Pool: pool, Policy: jobs.DefaultPolicy, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: err}
	}})
	defer f.Close()
	o := f.Do(t.Context(), decode(t, `{"url":"http://shop.test/?key=`+secret+`","timeout":0.1,"headers":{"X-Key":"`+secret+`"},"when_no_proxy":"fail","retry":{"max_attempts":1}}`), &jobs.Progress{})
	return o.Result.Detail
}

// errorsOf are the types of a package that are errors, and its source.
func errorsOf(t *testing.T, path string) (names []string, source string) {
	t.Helper()
	pkg, err := build.Import(path, ".", 0)
	if err != nil {
		t.Skipf("skipped: the source of %s is not here: %v", path, err)
	}
	for _, name := range pkg.GoFiles {
		text, err := os.ReadFile(filepath.Join(pkg.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		source += string(text)
		file, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			method, ok := d.(*ast.FuncDecl)
			if !ok || method.Name.Name != "Error" || method.Recv == nil || len(method.Type.Params.List) > 0 {
				continue
			}
			of := method.Recv.List[0].Type
			if pointer, ok := of.(*ast.StarExpr); ok {
				of = pointer.X
			}
			names = append(names, of.(*ast.Ident).Name)
		}
	}
	return names, source
}
