package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// confirm asks on standard error before something is done to n things. It does not ask about a single thing that the user named;
// filtered means that flags found the things, and the user named none of them. Without a terminal nobody can answer: the call is
// a usage error unless the user wrote --yes, even if the filter found nothing, so that a script fails on its first day. Only y
// and yes mean yes.
func (a *app) confirm(yes bool, n int, filtered bool, question string) error {
	if yes || n <= 1 && !filtered || n == 0 && a.interactive {
		return nil
	}
	if !a.interactive {
		return usage("%s Nothing was done: without a terminal, write --yes", question)
	}
	_ = a.err.line("%s [y/N]", question)
	// The reader may take more than one line, but no verb reads its input after a question.
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

// isTerminal reports whether a person types what from reads. A device such as /dev/null is no terminal.
func isTerminal(from io.Reader) bool {
	f, isFile := from.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}
