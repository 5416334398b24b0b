package fetch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxZstdWindow is the largest window that browsers accept (RFC 8878, 3.1.1.1.2; RFC 9659).
const maxZstdWindow = 8 << 20

// zstdDecoder reads zstd frames one after the other (RFC 8878) and stops before bytes that begin no frame.
type zstdDecoder struct {
	zstdFrames
	data *zstd.Decoder
}

// reset makes the decoder ready for another body. The decoder is made at the first use: concurrency 1 keeps all work in
// the goroutine that reads.
func (u *zstdDecoder) reset(from io.Reader, acquire func(int64) error) (err error) {
	if u.data == nil {
		u.in = bufio.NewReader(nil)
		u.data, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return err
		}
	}
	u.in.Reset(from)
	u.zstdFrames = zstdFrames{in: u.in, next: (*zstdFrames).frame, acquire: acquire}
	return u.data.Reset(&u.zstdFrames)
}

func (u *zstdDecoder) complete() bool { return u.ended }

func (u *zstdDecoder) window() int64 { return u.largest }

// Read reads. The decoder may have data left although it has met the end of its input.
func (u *zstdDecoder) Read(p []byte) (int, error) {
	n, err := u.data.Read(p)
	if n == 0 && errors.Is(err, io.ErrUnexpectedEOF) {
		n, _ = u.data.Read(p)
	}
	return n, err
}

// zstdFrames passes on the frames of a body and knows which part of them comes next. The decoder would take what follows
// the last frame for a broken one, and does not say whether only a checksum is missing.
type zstdFrames struct {
	in       *bufio.Reader
	acquire  func(int64) error
	largest  int64 // of the windows so far
	left     int64 // bytes of the part under way
	checksum bool  // the frame has one
	begun    bool  // a first frame was there
	ended    bool  // the data of a frame is complete, and no other frame has begun
	next     func(*zstdFrames) error
}

// Read reads.
func (z *zstdFrames) Read(p []byte) (int, error) {
	for z.left == 0 {
		if err := z.next(z); err != nil {
			return 0, err
		}
	}
	n, err := z.in.Read(p[:min(int64(len(p)), z.left)])
	z.left -= int64(n)
	return n, err
}

// frame reads the header of a frame (RFC 8878, 3.1.1.1), or skips a whole skippable frame (3.1.2). After the last frame
// it returns io.EOF, also if other bytes follow.
func (z *zstdFrames) frame() error {
	magic, err := z.in.Peek(4)
	switch {
	case err == nil && magic[0]&0xf0 == 0x50 && string(magic[1:]) == "\x2a\x4d\x18":
		return z.skippable()
	case err == nil && string(magic) == "\x28\xb5\x2f\xfd":
	case z.begun:
		return io.EOF
	case err != nil:
		return io.ErrUnexpectedEOF
	default:
		return errFormat
	}
	head, err := z.in.Peek(5)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	descriptor := head[4]
	single := descriptor & 0x20 >> 5
	sizes := [4]int64{int64(single), 2, 4, 8}
	z.left = 5 + int64(1-single) + [4]int64{0, 1, 2, 4}[descriptor&3] + sizes[descriptor>>6]
	if err := z.makeRoom(); err != nil {
		return err
	}
	z.checksum, z.begun, z.ended, z.next = descriptor&4 != 0, true, false, (*zstdFrames).block
	return nil
}

// zstdTables is what a zstd decoder takes besides its window: blocks and tables (RFC 8878, 3.1.1.2).
const zstdTables = 1 << 20

// makeRoom acquires memory for the window of the frame under way. The decoder refuses a window that is too large.
func (z *zstdFrames) makeRoom() error {
	head, _ := z.in.Peek(int(z.left))
	var info zstd.Header
	_ = info.Decode(head) // the decoder reports an error itself
	size := info.WindowSize
	if info.SingleSegment {
		size = info.FrameContentSize
	}
	window := int64(min(size, maxZstdWindow))
	more := window - z.largest
	if z.largest == 0 {
		more += zstdTables
	}
	z.largest = max(z.largest, window, 1)
	if more <= 0 {
		return nil
	}
	return z.acquire(more)
}

// skippable passes a skippable frame on: four bytes of magic number, four of length, and the content.
func (z *zstdFrames) skippable() error {
	head, err := z.in.Peek(8)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	z.left, z.begun = 8+int64(binary.LittleEndian.Uint32(head[4:])), true
	return nil
}

// block reads the header of a block (RFC 8878, 3.1.1.2): one bit for the last block, two for its type, and the size.
func (z *zstdFrames) block() error {
	head, err := z.in.Peek(3)
	if err != nil {
		return io.ErrUnexpectedEOF
	}
	bits := uint32(head[0]) | uint32(head[1])<<8 | uint32(head[2])<<16
	z.left = 3 + int64(bits>>3)
	if bits>>1&3 == 1 {
		z.left = 3 + 1 // one byte that is repeated
	}
	if bits&1 != 0 {
		z.next = (*zstdFrames).tail
	}
	return nil
}

// tail passes on the checksum behind the last block.
func (z *zstdFrames) tail() error {
	z.ended, z.next = true, (*zstdFrames).frame
	if z.checksum {
		z.left = 4
	}
	return nil
}
