// Command readme runs the commands of Markdown files as a newcomer would: each block marked sh, in order, from the folder
// that the command is started in. A comment on the line before a block says what is special about it:
//
//	<!-- background: http://127.0.0.1:9090/readyz -->  the block goes on while the others run, which begin when that answers
//	<!-- not run: why -->                              the block is left out, and the reason printed
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, path := range os.Args[1:] {
		if err := run(ctx, path); err != nil {
			stop()
			fmt.Fprintf(os.Stderr, "readme: %s: %v\n", path, err)
			os.Exit(1)
		}
	}
}

// block is one block of commands.
type block struct {
	line       int
	text       string
	background string // the address that answers when the block has come up
	notRun     string
}

func run(ctx context.Context, path string) error {
	blocks, err := read(path)
	if err != nil {
		return err
	}
	done := 0
	for _, b := range blocks {
		switch {
		case b.notRun != "":
			fmt.Printf("--- line %d: not run: %s\n", b.line, b.notRun)
			continue
		case b.background != "":
			end, err := start(ctx, b)
			if err != nil {
				return fmt.Errorf("line %d: %w", b.line, err)
			}
			defer end()
		default:
			if err := execute(ctx, b); err != nil {
				return fmt.Errorf("line %d: %w", b.line, err)
			}
		}
		done++
	}
	fmt.Printf("%s: %d passed, 0 failed\n", path, done)
	return nil
}

func read(path string) (blocks []block, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var open *block
	var before string
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case open != nil && line == "```":
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case line == "```sh":
			open = &block{line: n, background: comment(before, "background"), notRun: comment(before, "not run")}
		}
		if line != "" {
			before = line
		}
	}
	return blocks, lines.Err()
}

// comment is what stands in <!-- key: … -->.
func comment(line, key string) string {
	text, ok := strings.CutPrefix(line, "<!-- "+key+": ")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(text, " -->")
}

func command(ctx context.Context, b block) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.text)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// A group of its own, so that what the block has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

func execute(ctx context.Context, b block) error {
	fmt.Printf("--- line %d\n%s", b.line, b.text)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	return command(ctx, b).Run()
}

// start runs b until the returned function is called, which waits for its end.
func start(ctx context.Context, b block) (end func(), err error) {
	fmt.Printf("--- line %d, in the background\n%s", b.line, b.text)
	ctx, cancel := context.WithCancel(ctx)
	cmd := command(ctx, b)
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	end = func() {
		cancel()
		_ = cmd.Wait()
	}
	if err := answers(ctx, b.background); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// answers waits until url says 200.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not answer with 200 in time", url)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
