package fetch

import "sync"

// maxForgers bounds how many proxies are suspected at once.
const maxForgers = 1024

// forgers are proxies through which a target's certificate was refused that was good through another one, each with that
// target, until a certificate is good through them.
type forgers struct {
	mu sync.Mutex
	of map[string]string
}

// accuse notes that a proxy may have forged a target's certificate, and reports whether it is the second target.
func (f *forgers) accuse(id, target string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, known := f.of[id]
	if known {
		return first != target
	}
	if f.of == nil || len(f.of) >= maxForgers {
		f.of = map[string]string{}
	}
	f.of[id] = target
	return false
}

// acquit notes that a certificate was good through a proxy.
func (f *forgers) acquit(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.of, id)
}
