package jobs

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// maxIntegerDigits is how many digits an int64 always holds.
const maxIntegerDigits = 18

// plainIntegers rewrites the integers of a valid JSON value that have a point or an exponent, such as 3.0 and 1e2: JSON Schema
// counts them as integers (2020-12, 6.1.1), and encoding/json refuses them for an int. Any other number stays as it is.
func plainIntegers(value json.RawMessage) []byte {
	var out bytes.Buffer
	for i := 0; i < len(value); {
		switch c := value[i]; {
		case c == '"':
			n := jsonString(value[i:])
			out.Write(value[i : i+n])
			i += n
		case c == '-' || '0' <= c && c <= '9':
			n := len(value[i:]) - len(bytes.TrimLeft(value[i:], "+-.0123456789eE"))
			out.WriteString(plainInteger(string(value[i : i+n])))
			i += n
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.Bytes()
}

// jsonString is the length of the string at the beginning of a valid text.
func jsonString(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// plainInteger writes a JSON number without point and exponent if it is an integer of few digits. It moves the point in the text,
// because a float64 rounds and a big number with a large exponent takes any amount of memory.
func plainInteger(number string) string {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	sign := ""
	if strings.HasPrefix(mantissa, "-") {
		sign, mantissa = "-", mantissa[1:]
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	shift := 0
	if exponent != "" {
		var err error
		if shift, err = strconv.Atoi(exponent); err != nil || shift < -maxIntegerDigits || shift > maxIntegerDigits {
			return number
		}
	}
	digits, point := whole+fraction, len(whole)+shift
	if point < 0 || point > maxIntegerDigits {
		return number
	}
	digits += strings.Repeat("0", max(0, point-len(digits)))
	if strings.Trim(digits[point:], "0") != "" {
		return number // it has a fraction
	}
	if digits = strings.TrimLeft(digits[:point], "0"); digits == "" {
		return "0"
	}
	return sign + digits
}
