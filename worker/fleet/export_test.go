package fleet

import "time"

// Set applies a key of a bucket as if it had been set just now; a nil value deletes it.
func (s *Settings) Set(bucket, key string, value []byte) {
	changes := []change{{key: key, value: value, at: time.Now()}}
	switch bucket {
	case "proxies":
		s.applyProxies(false, changes)
	case "policy":
		s.applyPolicy(false, changes)
	case "deny":
		s.applyDeny(false, changes)
	}
}

// Set applies a key of the bucket as if it had been set that long ago; a nil value deletes it.
func (b *Breakers) Set(key string, value []byte, age time.Duration) {
	b.apply(false, []change{{key: key, value: value, at: time.Now().Add(-age), age: age}})
	b.review()
}

// Set applies a key of the bucket as if it had been set just now.
func (s *Sites) Set(key string, value []byte) {
	s.apply(false, []change{{key: key, value: value, at: time.Now()}})
}

// Review is what Run does each second.
func (s *Sites) Review() { s.review() }
