package text

import (
	"strconv"
	"strings"
)

// Int reads a whole decimal number. What Go's literals allow besides (0x10, 010 for eight, 1_000) is refused: people mean
// other numbers by that.
func Int(s string) (int64, error) {
	if digits := strings.TrimLeft(s, "+-"); len(digits) > 1 && digits[0] == '0' {
		return 0, &strconv.NumError{Func: "Int", Num: s, Err: strconv.ErrSyntax}
	}
	return strconv.ParseInt(s, 10, 64)
}

// Float reads a decimal number, perhaps with an exponent. Infinity, NaN and hexadecimal numbers are refused; the error wraps
// strconv.ErrRange if the number is too large.
func Float(s string) (float64, error) {
	if strings.Trim(s, "0123456789+-.eE") != "" {
		return 0, &strconv.NumError{Func: "Float", Num: s, Err: strconv.ErrSyntax}
	}
	return strconv.ParseFloat(s, 64)
}
