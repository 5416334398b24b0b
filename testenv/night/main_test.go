package night_test

import (
	"os"
	"testing"

	"github.com/gofer-mq/gofer/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.RunLong(m)) }
