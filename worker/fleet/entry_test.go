package fleet_test

import (
	"testing"

	"github.com/gofer-mq/gofer/worker/fleet"
)

func TestEntryOfTheBucketIsNamedByItsKey(t *testing.T) {
	for _, value := range []string{"http://a.test:1", "\ufeffhttp://a.test:1 region=eu\r\n", "http://a.test:1\tid=p1"} {
		if p, err := fleet.ParseEntry("p1", value); err != nil || p.ID != "p1" || p.Addr() != "http://a.test:1" {
			t.Errorf("%q = %s at %s, %v; want p1", value, p.ID, p.Addr(), err)
		}
	}
	for key, value := range map[string]string{
		"p1": "http://a.test:1\tid=p2", "a.b": "http://a.test:1", "metrics": "http://a.test:1", "\x1b[31m": "http://a.test:1", "": "http://a.test:1", "p2": "h\x00t\x00",
	} {
		if p, err := fleet.ParseEntry(key, value); err == nil {
			t.Errorf("key %q, value %q = proxy %s, want an error", key, value, p.ID)
		}
	}
}
