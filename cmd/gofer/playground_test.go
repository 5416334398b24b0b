package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestThePlaygroundPrintsTheAddressOfItsPageWhenItIsReady(t *testing.T) {
	t.Parallel()
	page := regexp.MustCompile(`The dashboard is at (http://127\.0\.0\.1:[1-9]\d*)/\.`)
	for _, proxies := range []string{"", "http://127.0.0.1:9"} {
		setenv(t, "GOFER_EMBEDDED_ADDR", "127.0.0.1:0")
		setenv(t, "GOFER_HTTP_ADDR", "127.0.0.1:0")
		setenv(t, "GOFER_DATA_DIR", t.TempDir())
		setenv(t, "GOFER_PROXIES", proxies)
		ctx, cancel := context.WithCancel(t.Context())
		out, errOut := io.Pipe()
		ended := make(chan int, 1)
		go func() {
			ended <- run(ctx, environment(t), []string{"playground"}, strings.NewReader(""), io.Discard, errOut)
			_ = errOut.Close()
		}()
		var text strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			text.WriteString(lines.Text() + "\n")
			found := page.FindStringSubmatch(lines.Text())
			if found == nil {
				continue
			}
			resp, err := http.Get(found[1] + "/readyz")
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("with proxies %q: GET /readyz: got %v, %v, want 200", proxies, resp, err)
			}
			if err == nil {
				_ = resp.Body.Close()
			}
			cancel()
		}
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("with proxies %q: exit code %d, want 0; it printed:\n%s", proxies, code, &text)
		}
		if page.FindString(text.String()) == "" || strings.Contains(text.String(), "shop.test") != (proxies == "") {
			t.Errorf("with proxies %q it printed:\n%s", proxies, &text)
		}
	}
}
