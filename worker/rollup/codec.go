package rollup

import (
	"encoding/binary"
	"errors"
)

const (
	// maxName is the longest name of a record, in bytes: a proxy id has at most 64, and every other name is shorter.
	maxName = 64
	// maxValues is how many numbers a record has at most: as many as a Histogram has buckets.
	maxValues = buckets
	// maxValue bounds each number, so that no sum of parts overflows. It is 31 years in µs and a petabyte in bytes.
	maxValue = 1_000_000_000_000_000
)

// errMalformed says that bytes are no sums that Changed returned.
var errMalformed = errors.New("malformed sums")

// appendRecord writes a name and its numbers: the length of the name, the name, the count of the numbers, the numbers, all of
// them as unsigned varints. A reader skips names and surplus numbers that it does not know, so that a newer worker may add some.
func appendRecord(out []byte, name string, values ...int64) []byte {
	out = binary.AppendUvarint(out, uint64(len(name)))
	out = append(out, name...)
	out = binary.AppendUvarint(out, uint64(len(values)))
	for _, v := range values {
		out = binary.AppendUvarint(out, uint64(min(max(v, 0), maxValue)))
	}
	return out
}

// eachRecord calls use for each record; the arguments are valid until use returns. After errMalformed use was called for the
// records before the malformed one.
func eachRecord(data []byte, use func(name []byte, values []int64)) error {
	// On the stack and used for each record: a part may have thousands.
	var values [maxValues]int64
	for len(data) > 0 {
		length, rest, ok := number(data, maxName)
		if !ok || length > int64(len(rest)) {
			return errMalformed
		}
		// Both lengths were checked, so no slice expression can panic on bytes of a stranger.
		name, rest := rest[:length], rest[length:]
		count, rest, ok := number(rest, maxValues)
		if !ok {
			return errMalformed
		}
		for i := range values[:count] {
			if values[i], rest, ok = number(rest, maxValue); !ok {
				return errMalformed
			}
		}
		use(name, values[:count])
		data = rest
	}
	return nil
}

// number reads a varint of at most limit from the beginning of data. ok is false if there is none, or if it is larger.
func number(data []byte, limit uint64) (n int64, rest []byte, ok bool) {
	// A number below 128 is one byte, which needs no loop.
	if len(data) > 0 && data[0] < 0x80 && uint64(data[0]) <= limit { // most of them
		return int64(data[0]), data[1:], true
	}
	v, length := binary.Uvarint(data)
	if length <= 0 || v > limit {
		return 0, nil, false
	}
	return int64(v), data[length:], true
}
