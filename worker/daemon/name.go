package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// uniqueName is unique enough to tell the workers of a fleet apart, and valid in a subject.
func uniqueName() string {
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r < 128 && jobs.ValidID(string(r)) {
			return r
		}
		return '-'
	}, host)
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	return strings.Trim(host[:min(len(host), 64)]+"-"+hex.EncodeToString(random), "-")
}
