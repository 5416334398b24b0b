package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Bounds of the files that variables name, in bytes: a device that never ends must not take the memory.
const (
	maxSecret      = 1 << 20
	maxProxiesFile = 256 << 20
)

// errPipe is the error of a pipe in place of a file that is read again when it changes: the second time it would be empty.
var errPipe = errors.New("it is a pipe, which can be read only once, and the file is read again when it changes: name a file")

// readSecret reads a whole file of at most maxSecret bytes. A pipe into which nobody writes is empty, and not waited for.
func readSecret(path string) ([]byte, error) { return readFile(path, syscall.O_NONBLOCK, maxSecret) }

// readFile reads a whole file of at most limit bytes. flags are added to those that open it.
func readFile(path string, flags int, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		limit = min(limit, maxSecret) // nobody has a longer list in a device
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("read %s: larger than %d MiB", path, limit>>20)
	}
	return data, err
}

// checkNoPipe refuses a pipe. What cannot be looked at is left to whoever reads it.
func checkNoPipe(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0 {
		return errPipe
	}
	return nil
}
