package config

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/gofer-mq/gofer/jobs/text"
)

// Bounds of the files that variables name, in bytes: a device that never ends must not take the memory.
const (
	maxSecret      = 1 << 20
	maxProxiesFile = 256 << 20
)

// readSecret reads a whole file of at most maxSecret bytes. A pipe into which nobody writes is empty, and not waited for.
func readSecret(path string) ([]byte, error) {
	return text.ReadFile(path, syscall.O_NONBLOCK, maxSecret)
}

// checkNoPipe refuses a pipe in place of the proxies file.
func checkNoPipe(path string) error {
	if err := text.CheckNoPipe(path); errors.Is(err, text.ErrPipe) {
		return fmt.Errorf("%w when it changes: name a file", err)
	}
	return nil
}
