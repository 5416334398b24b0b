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

// errMalformed means that data does not have the format of appendRecord, or that a number in it is out of range.
var errMalformed = errors.New("malformed sums")

// appendRecord appends a name and its numbers: the length of the name, the name, the count of the numbers, and the numbers. All
// but the name are unsigned varints. A reader skips unknown names and surplus numbers, so a newer version may add some.
func appendRecord(out []byte, name string, values ...int64) []byte {
	out = binary.AppendUvarint(out, uint64(len(name)))
	out = append(out, name...)
	out = binary.AppendUvarint(out, uint64(len(values)))
	for _, v := range values {
		out = binary.AppendUvarint(out, uint64(min(max(v, 0), maxValue)))
	}
	return out
}

// eachRecord calls use for each record. The arguments of use are valid until use returns. If eachRecord returns errMalformed, it
// has called use for the records before the malformed one.
func eachRecord(data []byte, use func(name []byte, values []int64)) error {
	// All records share this array, which is on the stack: a part may have thousands of records.
	var values [maxValues]int64
	for len(data) > 0 {
		length, rest, ok := number(data, maxName)
		if !ok || length > int64(len(rest)) {
			return errMalformed
		}
		// Both lengths are checked, so no slice expression panics, whatever bytes another worker has stored.
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
	// Most numbers are below 128 and have one byte.
	if len(data) > 0 && data[0] < 0x80 && uint64(data[0]) <= limit {
		return int64(data[0]), data[1:], true
	}
	v, length := binary.Uvarint(data)
	if length <= 0 || v > limit {
		return 0, nil, false
	}
	return int64(v), data[length:], true
}
