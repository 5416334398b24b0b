package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// confirm asks before something is done to n things. A single thing that was named is never asked about. What a filter
// found is, so filtered is true then. Without a terminal nobody can answer: then the user has to write --yes, or the call
// is a usage error, even if the filter found nothing, so that a script fails on its first day. Any answer but y and yes
// means no, also the end of the input. The question goes to standard error, so that the output of a verb stays clean when
// it is piped.
func (a *app) confirm(yes bool, n int, filtered bool, question string) error {
	if yes || n <= 1 && !filtered || n == 0 && a.interactive {
		return nil
	}
	if !a.interactive {
		return usage("%s Nothing was done: without a terminal, write --yes", question)
	}
	_ = a.err.line("%s [y/N]", question)
	// A new bufio.Reader may take more of the input than one line. No verb reads its input after a question, so
	// nothing is lost.
	answer, err := bufio.NewReader(io.LimitReader(a.in, 1<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		// A refusal is a failure with exit code 1, so that a script does not go on as if the thing were done.
		return &failure{code: exitFailed, err: errors.New("nothing was done")}
	}
	return nil
}

// isTerminal reports whether a person types what from reads. A pipe, a file and a test's buffer are no terminals.
// term asks the operating system, so a device such as /dev/null is no terminal either.
func isTerminal(from io.Reader) bool {
	f, isFile := from.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}
