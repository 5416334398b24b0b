package rotation_test

import (
	"fmt"
	"testing"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/rotation"
)

func TestStatesAreThoseOfTheStatus(t *testing.T) {
	const n = 1002
	p := pool(t, rotation.RoundRobin, n, nil)
	for i := range n / 3 {
		spoil(p, fmt.Sprint("p", 3*i))
	}
	status, at := p.Status(), 0
	for id, state := range p.States() {
		if at == n || id != status[at].ID || state != status[at].State || (state == breaker.Open) != (at%3 == 0) {
			t.Fatalf("proxy %d: got %s %s, want as in the status, every third one open", at, id, state)
		}
		at++
	}
	if at != n {
		t.Errorf("walked over %d proxies, want %d", at, n)
	}
	for id := range p.States() {
		if id != "p0" {
			t.Errorf("first proxy: got %s, want p0", id)
		}
		break
	}
}
