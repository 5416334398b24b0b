package fetch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash"
	"hash/adler32"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/flate"
)

// The errors of gzip and deflate data.
var (
	errFormat   = errors.New("the data does not begin like data of its coding")
	errChecksum = errors.New("the checksum does not fit the data")
)

// The sizes of what stands before and behind deflated data.
const (
	gzipHead, gzipTail = 10, 8
	zlibHead, zlibTail = 2, 4
)

// inflater reads gzip members (RFC 1952) one after the other, or what servers call deflate: one zlib stream (RFC 1950), as it
// should be, or the deflated data alone (RFC 1951). It stops before bytes that begin no further member. The packages
// gzip and zlib do not say whether the data or only the checksum is missing, so this type reads their headers and
// trailers itself.
type inflater struct {
	isDeflate bool // deflate, and not gzip

	in    *bufio.Reader
	data  io.ReadCloser
	sum   hash.Hash32
	size  uint32
	tail  int  // bytes behind the data
	open  bool // within the data
	begun bool // a first member was there
	ended bool // a member's data is complete, and its checksum is missing
}

// newInflater makes an inflater without input; reset gives it one.
func newInflater() *inflater {
	in := bufio.NewReader(nil)
	return &inflater{in: in, data: flate.NewReader(in)}
}

// reset begins another body. It keeps the window and the buffer of the one before.
func (i *inflater) reset(from io.Reader, _ func(int64) error) error {
	i.in.Reset(from)
	i.open, i.begun, i.ended = false, false, false
	return nil
}

func (i *inflater) complete() bool { return i.ended }

func (i *inflater) window() int64 { return 0 } // 32 KiB, which are not counted

// Read reads the data of one member after the other. It may return bytes together with an error.
func (i *inflater) Read(p []byte) (int, error) {
	for {
		if !i.open {
			if err := i.begin(); err != nil {
				return 0, err
			}
		}
		n, err := i.data.Read(p)
		_, _ = i.sum.Write(p[:n])
		i.size += uint32(n) // modulo 2³², as the format has it
		if errors.Is(err, io.EOF) {
			err = i.end()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// begin reads what comes before the data of a member. After the last member it returns io.EOF. Bytes that begin no member
// are ignored, as gzip and browsers do.
func (i *inflater) begin() error {
	if i.ended {
		return io.ErrUnexpectedEOF
	}
	err := i.head()
	switch {
	case i.begun && errors.Is(err, errFormat):
		return io.EOF
	case err != nil:
		return err
	}
	i.open, i.begun, i.size = true, true, 0
	return i.data.(flate.Resetter).Reset(i.in, nil)
}

// head reads the header of a member and chooses the checksum that its trailer must have. Errors: io.EOF after the last
// member, errFormat, io.ErrUnexpectedEOF.
func (i *inflater) head() error {
	if i.isDeflate {
		return i.zlibHead()
	}
	head, err := i.in.Peek(gzipHead)
	switch {
	case len(head) == 0 && i.begun:
		return io.EOF
	case len(head) > 0 && head[0] != 0x1f, len(head) > 1 && head[1] != 0x8b, len(head) > 2 && head[2] != 8:
		return errFormat
	case err != nil:
		return io.ErrUnexpectedEOF
	}
	i.sum, i.tail = crc32.NewIEEE(), gzipTail
	flags := head[3]
	_, _ = i.in.Discard(gzipHead)
	return i.skipFields(flags)
}

// skipFields skips the optional fields of a gzip header (RFC 1952, 2.3.1).
func (i *inflater) skipFields(flags byte) error {
	if flags&4 != 0 { // FEXTRA
		var length [2]byte
		if _, err := io.ReadFull(i.in, length[:]); err != nil {
			return io.ErrUnexpectedEOF
		}
		if _, err := i.in.Discard(int(binary.LittleEndian.Uint16(length[:]))); err != nil {
			return io.ErrUnexpectedEOF
		}
	}
	for _, flag := range []byte{8, 16} { // FNAME, FCOMMENT
		for flags&flag != 0 {
			b, err := i.in.ReadByte()
			if err != nil {
				return io.ErrUnexpectedEOF
			}
			if b == 0 {
				break
			}
		}
	}
	if flags&2 != 0 { // FHCRC
		if _, err := i.in.Discard(2); err != nil {
			return io.ErrUnexpectedEOF
		}
	}
	return nil
}

// zlibHead reads the two bytes of a zlib header, if they are one. Servers send both zlib data and bare deflate data as
// "deflate" (RFC 9110, 8.4.1.2), so bytes that are no zlib header are data.
func (i *inflater) zlibHead() error {
	if i.begun {
		return io.EOF
	}
	i.sum, i.tail = adler32.New(), 0
	head, _ := i.in.Peek(zlibHead)
	if len(head) < zlibHead || head[0]&0x0f != 8 || binary.BigEndian.Uint16(head)%31 != 0 {
		return nil // the data alone
	}
	if head[1]&0x20 != 0 { // a dictionary that nobody has
		return errFormat
	}
	i.tail = zlibTail
	_, _ = i.in.Discard(zlibHead)
	return nil
}

// end reads the trailer of a member and compares it with the data. A trailer that is cut off sets ended: all data is
// there.
func (i *inflater) end() error {
	i.open = false
	var tail [gzipTail]byte
	if _, err := io.ReadFull(i.in, tail[:i.tail]); err != nil {
		i.ended = true
		return io.ErrUnexpectedEOF
	}
	sum := i.sum.Sum32()
	same := true
	switch i.tail {
	case zlibTail:
		same = binary.BigEndian.Uint32(tail[:]) == sum
	case gzipTail:
		same = binary.LittleEndian.Uint32(tail[:]) == sum && binary.LittleEndian.Uint32(tail[4:]) == i.size
	}
	if !same {
		return errChecksum
	}
	return nil
}
