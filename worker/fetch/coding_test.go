package fetch_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/worker/fetch"
)

// page is large enough for every coding to need more than its smallest form.
var page = func() string {
	var b strings.Builder
	for i := range 300 {
		fmt.Fprintf(&b, "<p>line %d %x</p>\n", i, i*7919*i)
	}
	return b.String()
}()

// coding is a Content-Encoding and how a body gets it.
type coding struct {
	name    string // of the test
	header  string
	by      []string // arguments of squeeze
	trailer int      // bytes behind the data that only check it
}

var codings = []coding{
	{"gzip", "gzip", []string{"gzip"}, 8},
	{"deflate in zlib", "deflate", []string{"zlib"}, 4},
	{"deflate alone", "deflate", []string{"raw"}, 0},
	{"br", "br", []string{"br"}, 0},
	{"zstd", "zstd", []string{"zstd"}, 4},
	{"br over gzip", "gzip, br", []string{"gzip", "br"}, 0},
	{"gzip over zstd", "zstd, gzip", []string{"zstd", "gzip"}, 8},
}

// framings are the ways in which a message can end: the head's lines for it, and the body as it is sent.
var framings = map[string]func(body string) (head, sent string){
	"length": func(body string) (string, string) { return fmt.Sprintf("Content-Length: %d\r\n", len(body)), body },
	"chunks": func(body string) (string, string) {
		var b strings.Builder
		for part := range slices.Chunk([]byte(body), 1000) {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(part), part)
		}
		return "Transfer-Encoding: chunked\r\n", b.String() + "0\r\n\r\n"
	},
	"close": func(body string) (string, string) { return "Connection: close\r\n", body },
}

// site answers every request with what answer says, and closes the connection.
func (r *rig) site(answer func(*http.Request) string) string {
	r.Helper()
	return "http://" + r.script(func(_ int64, c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, answer(req))
	}).String()
}

func TestThePayloadIsThePageWhoeverAskedForItsCoding(t *testing.T) {
	r := newRig(t, nil)
	var answer string
	r.use(r.site(func(*http.Request) string { return answer }) + " id=p")
	for _, c := range codings {
		body := squeeze(t, page, c.by...)
		for framing, frame := range framings {
			for _, headers := range []string{`{}`, `{"Accept-Encoding":"gzip, deflate, br"}`, `{"accept-encoding":"identity"}`, `{"Range":"bytes=0-"}`} {
				for _, method := range []string{"GET", "POST", "HEAD"} {
					for _, status := range []int{200, 203, 206, 302, 304, 404, 500} {
						head, sent := frame(body)
						answer = fmt.Sprintf("HTTP/1.1 %d Any\r\nContent-Encoding: %s\r\n%s\r\n%s", status, c.header, head, sent)
						bodiless := method == "HEAD" || status == 304
						if bodiless {
							answer = strings.TrimSuffix(answer, sent)
						}
						res := r.do(fmt.Sprintf(`{"url":"http://shop.test/","method":%q,"headers":%s,"retry":{"max_attempts":1}}`, method, headers)).Result
						want, encoding := page, ""
						switch {
						case bodiless:
							want, encoding = "", c.header
						case status == 206:
							want, encoding = body, c.header
						}
						if string(res.Body) != want || res.Status != status || res.Header.Get("Content-Encoding") != encoding {
							t.Errorf("%s by %s, %s with %s, status %d: %d %s with %d bytes and Content-Encoding %q, want %d bytes and %q (%s)", c.name, framing, method, headers,
								status, res.Status, res.Error, len(res.Body), res.Header.Get("Content-Encoding"), len(want), encoding, res.Detail)
						}
					}
				}
			}
		}
	}
}

// TestBodiesAreReadAsCurlReadsThem compares the payload with what curl writes, for bodies that are not as they should be.
// curl complains about what follows the data, after it has written the page.
func TestBodiesAreReadAsCurlReadsThem(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("skipped: curl is not installed")
	}
	r := newRig(t, nil)
	var answer atomic.Pointer[string] // another process asks for it
	site := r.site(func(*http.Request) string { return *answer.Load() })
	r.use(site + " id=p")
	for _, c := range codings {
		whole := squeeze(t, page, c.by...)
		for name, body := range map[string]string{
			"whole": whole, "without its trailer": whole[:len(whole)-c.trailer], "with half a trailer": whole[:len(whole)-c.trailer/2],
			"and zeros": whole + strings.Repeat("\x00", 10), "and a comment": whole + "<!-- cached -->", "and a byte": whole + "\n",
			"half of it": whole[:len(whole)/2], "its first bytes": whole[:5], "none of it": "", "the page itself": page, "a wrong byte": spoil(whole),
		} {
			for framing, frame := range framings {
				head, sent := frame(body)
				says := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\n%s\r\n%s", c.header, head, sent)
				answer.Store(&says)
				cmd := exec.CommandContext(t.Context(), curl, "-s", "--compressed", "--max-time", "20", site)
				want, err := cmd.Output()
				if err != nil && string(want) != page {
					continue // curl refuses it, and so may we
				}
				if framing == "close" && (name == "half of it" || name == "its first bytes" || name == "a wrong byte") {
					continue // a connection that was cut looks like that
				}
				if strings.Contains(c.header, "zstd") && name != "whole" && !bytes.Equal(want, []byte(page)) {
					continue // how much of a block can be decoded is the decoder's own matter
				}
				res := r.do(`{"url":"http://shop.test/","retry":{"max_attempts":1}}`).Result
				same := bytes.Equal(res.Body, want)
				if name == "half of it" { // a decoder may hold back what the missing bits could change
					same = bytes.HasPrefix(want, res.Body) && len(res.Body) > len(want)-64
				}
				if !same || res.Outcome != jobs.Succeeded {
					t.Errorf("%s, %s, by %s: %s with %d bytes (%s), curl has %d", c.name, name, framing, res.Outcome, len(res.Body), res.Detail, len(want))
				}
			}
		}
	}
}

// spoil changes the byte in the middle.
func spoil(text string) string {
	b := []byte(text)
	b[len(b)/2] ^= 0x55
	return string(b)
}

func TestAConnectionThatBreaksWithinAnEncodedBodyFailsTheAttempt(t *testing.T) {
	r := newRig(t, nil)
	text := page[:700]
	var answer string
	site, n := r.site(func(*http.Request) string { return answer }), 0
	for _, c := range codings[:5] {
		body := squeeze(t, text, c.by...)
		for framing, frame := range framings {
			head, sent := frame(body)
			for cut := 1; cut < len(sent); cut++ {
				if cut < len(sent)-20 && cut%7 != 0 {
					continue
				}
				n++
				r.use(fmt.Sprintf("%s id=p%d", site, n)) // one whose breaker is closed
				answer = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\n%s\r\n%s", c.header, head, sent[:cut])
				o := r.do(`{"url":"http://shop.test/","retry":{"max_attempts":1}}`)
				if framing == "close" && cut >= len(body)-c.trailer { // all data is there
					wantBody(t, o, text)
					continue
				}
				if reason := r.reasons[len(r.reasons)-1]; o.Result.Outcome != jobs.Failed || reason != "truncated" {
					t.Errorf("%s by %s, cut after %d of %d bytes: %s %q with %d bytes, want a body that was cut off", c.name, framing, cut, len(sent), o.Result.Outcome, reason, len(o.Result.Body))
				}
			}
		}
	}
}

func TestRulesForBodiesApplyToTheDecodedOne(t *testing.T) {
	r := newRig(t, func(c *fetch.Config) { c.MaxBodyBytes = 10000 })
	var answer string
	r.use(r.site(func(*http.Request) string { return answer }) + " id=p")
	for _, c := range codings {
		for framing, frame := range framings {
			head, sent := frame(squeeze(t, "are you a robot?"+page, c.by...))
			answer = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\n%s\r\n%s", c.header, head, sent)
			const own = `"headers":{"Accept-Encoding":"gzip, deflate, br"},"retry":{"max_attempts":1}`
			r.do(`{"url":"http://` + strings.ReplaceAll(c.name, " ", "-") + framing + `.test/","ban":{"body_regexp":"robot"},` + own + `}`)
			if reason := r.reasons[len(r.reasons)-1]; reason != "ban" {
				t.Errorf("%s by %s: the body that the job's rule bans: %q", c.name, framing, reason)
			}
			if o := r.do(fmt.Sprintf(`{"url":"http://shop.test/","max_body_bytes":%d,%s}`, len(page), own)); o.Result.Error != jobs.ErrBodyTooLarge {
				t.Errorf("%s by %s: a decoded body above the job's bound: %s %s", c.name, framing, o.Result.Outcome, o.Result.Error)
			}
			if o := r.do(fmt.Sprintf(`{"url":"http://shop.test/","max_body_bytes":%d,%s}`, len(page)+16, own)); o.Result.Outcome != jobs.Succeeded {
				t.Errorf("%s by %s: a decoded body of just the job's bound: %s %s", c.name, framing, o.Result.Outcome, o.Result.Error)
			}
		}
	}
}

func TestWhatFollowsAWholeMemberIsIgnoredUnlessItBeginsAnother(t *testing.T) {
	r := newRig(t, nil)
	var answer string
	r.use(r.site(func(*http.Request) string { return answer }) + " id=p")
	twice := map[string]bool{"gzip": true, "zstd": true}
	for _, c := range codings[:5] {
		body, more := squeeze(t, page, c.by...), squeeze(t, "more", c.by...)
		for name, tail := range map[string]string{"zeros": "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "a comment": "<!-- cached -->", "a byte": "\n", "three": "\x1f\x8b\x07", "another": more, "much": strings.Repeat("x", 1<<20)} {
			for framing, frame := range framings {
				head, sent := frame(body + tail)
				answer = fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\n%s\r\n%s", c.header, head, sent)
				want := page
				if name == "another" && twice[c.name] {
					want += "more"
				}
				if o := r.do("http://shop.test/"); string(o.Result.Body) != want {
					t.Errorf("%s and %s, by %s: %s %q with %d bytes, want %d", c.name, name, framing, o.Result.Error, o.Result.Detail, len(o.Result.Body), len(want))
				}
			}
		}
	}
}

func TestABodyWhoseChecksumIsWrongCannotBeDecoded(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range codings[:5] {
		if c.trailer == 0 {
			continue
		}
		body := []byte(squeeze(t, page, c.by...))
		body[len(body)-c.trailer] ^= 0x55
		r.encoded(c.header, string(body))
		if _, reason := r.judged("http://shop.test/"); reason != "decode" {
			t.Errorf("%s: reason %q, want decode", c.name, reason)
		}
	}
}

func TestEveryFieldOfAGzipHeaderIsSkipped(t *testing.T) {
	r := newRig(t, nil)
	data := squeeze(t, page, "gzip")[10:]
	for flags := range byte(32) {
		head := []byte{0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255}
		if flags&4 != 0 { // something extra
			head = append(head, "\x03\x00abc"...)
		}
		for _, flag := range []byte{8, 16} { // a name, a comment
			if flags&flag != 0 {
				head = append(head, "any text\x00"...)
			}
		}
		if flags&2 != 0 {
			head = append(head, "\x1f\x8b"...)
		}
		r.encoded("gzip", string(head)+data)
		if o := r.do("http://shop.test/"); string(o.Result.Body) != page {
			t.Errorf("flags %05b: %s, %d bytes", flags, o.Result.Error, len(o.Result.Body))
		}
	}
}

func TestAnAnswerWithoutABodyIsNotJudgedByItsBody(t *testing.T) {
	r := newRig(t, nil)
	for status, heads := range map[int][2]bool{200: {true, false}, 204: {false, false}, 304: {false, false}, 404: {true, false}} {
		r.use(r.replies(fmt.Sprintf("HTTP/1.1 %d Any\r\nContent-Length: 0\r\n\r\n", status)) + fmt.Sprintf(" id=p%d", status))
		for i, method := range []string{"GET", "HEAD"} {
			r.do(fmt.Sprintf(`{"url":"http://shop%d.test/","method":%q,"ban":{"body_regexp":"^$"},"retry":{"max_attempts":1}}`, i, method))
			if ban := r.reasons[len(r.reasons)-1] == "ban"; ban != heads[i] {
				t.Errorf("%s with %d: a ban %v, want %v", method, status, ban, heads[i])
			}
		}
	}
}
