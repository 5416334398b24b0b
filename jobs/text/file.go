package text

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// maxDevice bounds what is read of a device or a pipe, in bytes: it may never end.
const maxDevice = 1 << 20

// ReadFile reads a whole file of at most limit bytes. flags are added to those that open it: with syscall.O_NONBLOCK a pipe into
// which nobody writes is empty, and not waited for. Of a device or a pipe it reads 1 MiB at most.
func ReadFile(path string, flags int, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		limit = min(limit, maxDevice)
	}
	// One byte more than the limit shows that the file is larger.
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("read %s: larger than %d MiB", path, limit>>20)
	}
	return data, err
}

// ErrPipe is the error of a pipe in place of a file that is read again and again: the second time it would be empty.
var ErrPipe = errors.New("it is a pipe, which can be read only once, and the file is read again")

// CheckNoPipe refuses a pipe with ErrPipe. What cannot be looked at is left to whoever reads it.
func CheckNoPipe(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0 {
		return ErrPipe
	}
	return nil
}
