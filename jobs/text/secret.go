package text

import "strings"

// HideUserInfo replaces what could be user and password, as in http://user:password@host, by an ellipsis: somebody may have
// written the URL of a proxy or a server where a name belongs, and errors repeat what was written. It hides each word up to its
// last @ that has a colon before it. A word ends at a blank or a quote; with a scheme, such as http://, only at a blank, and
// what stands before the host is hidden with its blanks.
func HideUserInfo(text string) string {
	if !strings.Contains(text, "@") {
		return text
	}
	var out strings.Builder
	for text != "" {
		word := text[:cut(text, " \t\n\"'`(")]
		at := strings.LastIndexByte(word, '@')
		if scheme := strings.LastIndex(word, "://"); scheme >= 0 {
			host := scheme + len("://")
			// A password may hold quotes, blanks or a slash, but a slash and a blank together are rather the end of a URL.
			at = max(strings.LastIndexByte(text[:cut(text, " \t\n")], '@'), lastAt(text, host, "/?#\n"))
			word = text[:max(at, len(word))]
		}
		if at > 0 && strings.Contains(word[:at], ":") {
			out.WriteString("…" + word[at:])
		} else {
			out.WriteString(word)
		}
		text = text[len(word):]
	}
	return out.String()
}

// cut is the length of text up to the first of the characters that end it, which is included.
func cut(text, ends string) int {
	if i := strings.IndexAny(text, ends); i >= 0 {
		return i + 1
	}
	return len(text)
}

// lastAt is the index of the last @ in text between from and the first of the characters that end it, or -1.
func lastAt(text string, from int, ends string) int {
	if i := strings.LastIndexByte(text[from:from+cut(text[from:], ends)], '@'); i >= 0 {
		return from + i
	}
	return -1
}
