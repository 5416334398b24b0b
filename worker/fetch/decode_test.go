package fetch_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// squeeze encodes text, by one encoding after the other.
func squeeze(t *testing.T, text string, names ...string) string {
	t.Helper()
	for _, name := range names {
		var buf bytes.Buffer
		var w io.WriteCloser
		switch name {
		case "gzip":
			w = gzip.NewWriter(&buf)
		case "zlib":
			w = zlib.NewWriter(&buf)
		case "raw":
			w, _ = flate.NewWriter(&buf, 6)
		case "br":
			w = brotli.NewWriter(&buf)
		case "zstd":
			w, _ = zstd.NewWriter(&buf)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		text = buf.String()
	}
	return text
}

// encoded is a proxy that answers with a body under a Content-Encoding.
func (r *rig) encoded(encoding, body string) {
	r.Helper()
	r.use(r.replies(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n%s", encoding, len(body), body)) + " id=p")
}

func TestBodiesAreDecodedHoweverServersEncodeThem(t *testing.T) {
	r := newRig(t, nil)
	for encoding, body := range map[string]string{
		"x-gzip":         squeeze(t, "text", "gzip"),
		"GZIP":           squeeze(t, "te", "gzip") + squeeze(t, "xt", "gzip"),
		"deflate":        squeeze(t, "text", "zlib"),
		" deflate":       squeeze(t, "text", "raw"),
		"gzip, br":       squeeze(t, "text", "gzip", "br"),
		"identity, zstd": squeeze(t, "text", "zstd"),
		"identity":       "text",
		"secret-sauce":   "text",
	} {
		r.encoded(encoding, body)
		wantBody(t, r.do("http://shop.test/"), "text")
	}
	r.encoded("gzip", "")
	wantBody(t, r.do("http://shop.test/"), "")
}

func TestBodyThatCannotBeDecodedIsNobodysAnswer(t *testing.T) {
	r := newRig(t, nil)
	long := strings.Repeat("text ", 1000)
	for encoding, body := range map[string]string{
		"gzip":                     "this is no gzip",
		"br":                       "\xff\xff\xff\xff\xff",
		"zstd":                     "this is no zstd",
		"deflate":                  squeeze(t, long, "zlib")[:20] + long,
		"x-gzip":                   squeeze(t, long, "gzip")[:20] + long,
		"gzip, zstd":               squeeze(t, "this is no gzip", "zstd"),
		strings.Repeat("gzip,", 6): squeeze(t, "text", "gzip", "gzip", "gzip", "gzip", "gzip", "gzip"),
	} {
		r.encoded(encoding, body)
		a, reason := r.judged("http://shop.test/")
		if a.Fault != jobs.FaultUnclear || a.Phase != "body" || reason != "decode" {
			t.Errorf("%s: fault %q, reason %q in phase %q", encoding, a.Fault, reason, a.Phase)
		}
	}
	// A decoder that met nonsense serves the next body.
	for _, encoding := range []string{"gzip", "br", "zstd"} {
		r.encoded(encoding, squeeze(t, "text", encoding))
		wantBody(t, r.do("http://shop.test/"), "text")
	}
}

func TestBombInsideAnEncodingStopsToo(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.MaxBodyBytes = 1 << 20 })
	r.encoded("gzip, gzip", squeeze(t, strings.Repeat("0", 8<<20), "gzip", "gzip"))
	if o := r.do("http://shop.test/"); o.Result.Error != jobs.ErrBodyTooLarge || o.Result.Bytes > 1<<20 {
		t.Errorf("result = %s after %d bytes", o.Result.Error, o.Result.Bytes)
	}
}

func TestBombTakesNoMoreMemoryThanTheLimit(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.MaxBodyBytes = 1 << 20 })
	r.encoded("gzip", squeeze(t, strings.Repeat("0", 16<<20), "gzip"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	o := r.do("http://shop.test/")
	runtime.ReadMemStats(&after)
	if used := (after.TotalAlloc - before.TotalAlloc) >> 20; o.Result.Error != jobs.ErrBodyTooLarge || used > 12 {
		t.Errorf("result = %s with %d MiB allocated for a limit of 1", o.Result.Error, used)
	}
}

func TestAnEncodedBodyThatComesToNothingHasABound(t *testing.T) {
	nothing := squeeze(t, "", "gzip")
	for encoding, body := range map[string]string{
		"gzip":       strings.Repeat(nothing, 2<<20/len(nothing)),
		"gzip, gzip": squeeze(t, strings.Repeat(nothing, 2<<20/len(nothing)), "gzip"),
	} {
		r := newRig(t, func(c *fetch.Config) { c.MaxBodyBytes = 1 << 20 })
		r.encoded(encoding, body)
		if o := r.do("http://shop.test/"); o.Result.Error != jobs.ErrBodyTooLarge || o.Result.Bytes > 1<<20+200<<10 {
			t.Errorf("%s: %s %s after %d bytes", encoding, o.Result.Outcome, o.Result.Error, o.Result.Bytes)
		}
	}
}
