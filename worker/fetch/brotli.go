package fetch

import (
	"errors"
	"io"
	"math/bits"

	"github.com/andybalholm/brotli"
)

// brotliTables is the memory that the prefix codes of a brotli stream may take, in bytes: 256 codes of each kind (RFC
// 7932, 9.2). They are acquired together with the window, because the decoder makes them at the same time.
const brotliTables = 3 << 20

// errWindow is for a window that the format does not have: a large one is an extension that browsers do not know.
var errWindow = errors.New("the window is larger than the coding allows")

// brotliDecoder reads a brotli stream (RFC 7932) and leaves alone what follows it.
type brotliDecoder struct {
	brotli.Reader
	head brotliHead
}

// reset makes the decoder ready for another stream and keeps its buffers. The window of the new stream is acquired at the
// first read, when its size is known.
func (u *brotliDecoder) reset(from io.Reader, acquire func(int64) error) error {
	u.head = brotliHead{from: from, acquire: acquire}
	// The library's Reset keeps its buffers, so a reused decoder costs no allocation for a window of the same
	// size.
	return u.Reset(&u.head)
}

// complete is always false: brotli has no checksum, so a decoder that has not reached its end lacks data.
func (u *brotliDecoder) complete() bool { return false } // there is no checksum

// window is the size of the present window; zero before the first read.
func (u *brotliDecoder) window() int64 { return u.head.window }

// Read reads.
func (u *brotliDecoder) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	// Bytes behind the stream are left alone, as browsers do, so what the library calls an error is an end
	// here.
	if err != nil && err.Error() == "brotli: excessive input" { // the library has no name for it
		err = io.EOF
	}
	return n, err
}

// brotliHead passes on a brotli stream, and makes room for its window before the decoder has seen its size.
type brotliHead struct {
	from    io.Reader
	acquire func(int64) error
	begun   bool
	window  int64
}

// Read reads.
func (h *brotliHead) Read(p []byte) (int, error) {
	n, err := h.from.Read(p)
	// Only the first non-empty read is examined. The window's size stands in its first bytes.
	if h.begun || n == 0 {
		return n, err
	}
	h.begun = true
	if h.window = brotliWindow(p[:n]); h.window == 0 {
		return 0, errWindow
	}
	if err := h.acquire(h.window + brotliTables); err != nil {
		return 0, err
	}
	// The bytes are passed on even with an error, as io.Reader demands.
	return n, err
}

// brotliWindow returns the size of the buffer that a stream with this beginning needs; zero if the beginning cannot be
// read (RFC 7932, 9.1). The decoder makes it no larger than a single meta-block of a known length.
func brotliWindow(begin []byte) int64 {
	in := brotliBits{bytes: begin}
	size := int64(1) << in.windowBits()
	// 2^0: windowBits has found no valid size.
	if size == 1 {
		return 0
	}
	last, empty := in.take(1), in.take(1)
	if last == 0 || empty == 1 {
		return size
	}
	nibbles := in.take(2) + 4
	length := int64(in.take(4*nibbles)) + 1
	// Seven nibbles mean a metadata block, whose length says nothing about the data.
	if nibbles == 7 || in.ended {
		return size
	}
	return min(size, max(int64(1)<<10, 1<<bits.Len64(uint64(length))))
}

// brotliBits reads numbers from their lowest bit on. RFC 7932 packs numbers from the least significant bit of
// each byte on.
type brotliBits struct {
	bytes []byte
	at    int
	ended bool
}

// take returns the next n bits as a number. Beyond the end it returns zero and sets ended.
func (b *brotliBits) take(n int) (number int) {
	for i := range n {
		if b.at>>3 >= len(b.bytes) {
			b.ended = true
			return 0
		}
		number |= int(b.bytes[b.at>>3]>>(b.at&7)&1) << i
		b.at++
	}
	return number
}

// windowBits is the number of bits of the window's size, from 10 to 24; zero for one that the format does not
// have. The code is that of RFC 7932, 9.1: one bit for 16, then three bits for 18 to 24, then three bits for
// the rest.
func (b *brotliBits) windowBits() int {
	if b.take(1) == 0 {
		return 16
	}
	if n := b.take(3); n != 0 {
		return 17 + n
	}
	switch n := b.take(3); n {
	case 0:
		return 17
	case 1:
		return 0
	default:
		return 8 + n
	}
}
