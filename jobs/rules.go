package jobs

import (
	"fmt"
	"maps"
	"strings"
)

// rule holds keywords of JSON Schema for the values of one field. Bounds that count bytes become bounds of characters, so a
// schema may accept a text that is too long in UTF-8. A schema refuses what gofer only tolerates: null and blanks around a value.
type rule = map[string]any

// Patterns that both Go and ECMAScript read.
const (
	tokenPattern    = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" // RFC 9110, 5.6.2
	proxyIDPattern  = "^[A-Za-z0-9_-]{1,64}$"
	jobIDPattern    = "^[A-Za-z0-9_-]{1,128}$"
	queuePattern    = "^[a-z0-9_-]{1,32}$"
	plainPattern    = `^[^\x00-\x1f\x7f-\x9f]*$`
	valuePattern    = `^[^\x00-\x08\x0a-\x1f\x7f]*$`
	urlPattern      = `^[Hh][Tt][Tt][Pp][Ss]?://[^/?#@\\\x00-\x20\x7f]+([/?#][^\x00-\x1f\x7f]*)?$`
	base64Pattern   = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
	durationPattern = `([0-9]+([.][0-9]+)?|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|ms|s|m|h))+)`
	yearPattern     = "^(0[0-9]{3}|1[0-9]{3}|2[01][0-9]{2}|22[0-5][0-9]|226[01])-" // up to MaxYear
	decimalPattern  = "^[0-9]+([.][0-9]+)?$"
)

// with is a rule with more keywords. The later ones win.
func with(base rule, more ...rule) rule {
	all := maps.Clone(base)
	for _, m := range more {
		maps.Copy(all, m)
	}
	return all
}

func textRule() rule                    { return rule{"type": "string"} }
func patternRule(pattern string) rule   { return rule{"type": "string", "pattern": pattern} }
func booleanRule() rule                 { return rule{"type": "boolean"} }
func numberRule() rule                  { return rule{"type": "number"} }
func timeRule() rule                    { return rule{"type": "string", "format": "date-time"} }
func listRule(items rule) rule          { return rule{"type": "array", "items": items} }
func choiceRule(choices ...string) rule { return rule{"type": "string", "enum": choices} }
func defaultRule(value any) rule        { return rule{"default": value} }

// nullTimeRule is a time that may be null.
func nullTimeRule() rule { return rule{"type": []string{"string", "null"}, "format": "date-time"} }

// countRule is an integer from low up.
func countRule(low int) rule { return rule{"type": "integer", "minimum": low} }

// rangeRule is an integer from low to high.
func rangeRule(low, high int) rule { return with(countRule(low), rule{"maximum": high}) }

// shortRule is a text of at most most characters without control characters.
func shortRule(most int) rule { return with(patternRule(plainPattern), rule{"maxLength": most}) }

// durationRule is a number of seconds within bounds, or a Go duration, whose bounds no pattern can tell.
func durationRule(bounds rule) rule {
	return rule{"anyOf": []any{with(numberRule(), bounds), patternRule("^" + durationPattern + "$")}}
}

// autoRule is auto, off or a duration above zero.
func autoRule() rule {
	return rule{"anyOf": []any{rule{"type": "number", "exclusiveMinimum": 0}, patternRule("^(auto|off|" + durationPattern + ")$")}}
}

// headersRule are the headers of a request: those that belong to a connection are refused, however they are spelt.
func headersRule() rule {
	value := patternRule(valuePattern)
	var refused []string
	for _, name := range connectionHeaders() {
		refused = append(refused, anyCase(name))
	}
	return rule{
		"type": "object",
		"propertyNames": rule{
			"pattern": tokenPattern, "not": rule{"pattern": "^(" + strings.Join(refused, "|") + ")$|^" + anyCase("proxy-")},
		},
		"additionalProperties": rule{"anyOf": []any{value, listRule(value)}},
	}
}

// anyCase is a pattern for a name in any mixture of cases.
func anyCase(name string) string {
	var b strings.Builder
	for _, c := range name {
		if lower, upper := strings.ToLower(string(c)), strings.ToUpper(string(c)); lower != upper {
			fmt.Fprintf(&b, "[%s%s]", upper, lower)
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

func metaRule() rule {
	return rule{
		"type": "object", "maxProperties": MaxMetaKeys, "propertyNames": rule{"pattern": "^[A-Za-z0-9_-]{1,64}$"},
		"additionalProperties": with(patternRule(`^([^\x00-\x20\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f])?)?$`), rule{"maxLength": MaxMetaBytes}),
	}
}
