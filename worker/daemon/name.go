package daemon

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"strings"

	"github.com/gofer-mq/gofer/jobs"
)

// uniqueName is the host's name and eight random digits, in the characters of an id: it stands in subjects. A name must not
// return after a restart, or the fleet would take two processes for one.
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
	// The cut leaves room for the random part within an id. A hyphen at an end would be valid and look like a
	// mistake.
	return strings.Trim(host[:min(len(host), 64)]+"-"+hex.EncodeToString(random), "-")
}
