package testenv

import (
	"flag"
	"fmt"
	"testing"
)

// RunLong runs the tests of a package that take long or need other programs. With -short it runs none and says so.
func RunLong(m *testing.M) int {
	flag.Parse()
	if testing.Short() {
		fmt.Println("left out by -short: these tests run other programs, or take minutes")
		return 0
	}
	return m.Run()
}

// Long skips a test that waits for real intervals, if -short is given.
func Long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("left out by -short: it waits for real intervals")
	}
}
