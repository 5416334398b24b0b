package text_test

import (
	"strings"
	"testing"

	"github.com/gofer-mq/gofer/jobs/text"
)

func TestTheNearestWordHasTheFewestEdits(t *testing.T) {
	known := []string{"url", "method", "headers", "timeout", "max_body_bytes", "id"}
	for word, want := range map[string]string{
		"ulr": "url", "header": "headers", "time_out": "timeout", "max_bodybytes": "max_body_bytes", "metod": "method", "url": "url",
		"colour": "", "": "", "i": "", "x": "", strings.Repeat("timeout", 20): "",
	} {
		if got := text.Nearest(word, known, 2); got != want {
			t.Errorf("nearest to %q: got %q, want %q", word, got, want)
		}
	}
	if got := text.Nearest("timeuot", known, 1); got != "timeout" {
		t.Errorf("two letters that are swapped: got %q, want one edit", got)
	}
}
