package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// TestMain is also the gofer of these tests: as "worker" it is ready at once, and ends when it has said so.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "worker" {
		os.Exit(work())
	}
	os.Exit(m.Run())
}

func work() int {
	l, err := net.Listen("tcp", os.Getenv("GOFER_HTTP_ADDR"))
	if err != nil {
		return 78
	}
	asked := make(chan struct{}, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
	})}
	go func() { _ = server.Serve(l) }()
	select {
	case <-asked:
	case <-time.After(20 * time.Second): // a playground that asks elsewhere
		return 1
	}
	_ = server.Shutdown(context.Background()) // lets the answer go out
	return 0
}

func TestTheAddressOfTheWorkerIsTold(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", ":0"} {
		t.Setenv("GOFER_HTTP_ADDR", addr)
		for _, proxies := range []string{"", "http://192.0.2.1:8080"} {
			t.Setenv("GOFER_PROXIES", proxies)
			var out bytes.Buffer
			if err := run(os.Args[0], &out); err != nil {
				t.Fatalf("run with %s: %v", addr, err)
			}
			_, rest, _ := strings.Cut(out.String(), "The dashboard is at http://127.0.0.1:")
			port, _, _ := strings.Cut(rest, "/.")
			curl := strings.Contains(out.String(), "curl -s http://127.0.0.1:"+port+"/api")
			if port == "" || port == "0" || port == "9090" || curl != (proxies == "") {
				t.Errorf("with %s and proxies %q it said %q; want the port that the worker listens on", addr, proxies, &out)
			}
		}
	}
}

func TestAnotherWorkersReadinessIsNotTaken(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer other.Close()
	t.Setenv("GOFER_HTTP_ADDR", other.Listener.Addr().String())
	t.Setenv("GOFER_PROXIES", "http://192.0.2.1:8080")
	var out bytes.Buffer
	if err := run(os.Args[0], &out); err == nil || out.Len() > 0 {
		t.Errorf("got %v and %q; want the worker's failure alone", err, &out)
	}
}
