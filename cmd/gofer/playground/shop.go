package playground

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
)

// Shop is the playground's site: a front page, products, prices as JSON, a page that fails now and then, and a
// large file. It keeps no state but the number of visits to the page that fails, and serves any number of requests
// at once.
func Shop() http.Handler {
	mux := http.NewServeMux()
	var visits atomic.Int64
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprint(w, "<!doctype html><title>Shop</title><h1>The test shop</h1><p>Open <a href=/products/1>a product</a> or <a href=/api/prices.json>the prices</a>.</p>\n")
	})
	// Any id has a page, so that a crawl of any size can be tried.
	mux.HandleFunc("GET /products/{id}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, "<!doctype html><title>Product</title><h1>Product %q</h1>\n", r.PathValue("id"))
	})
	// The order of the members is that of their names.
	mux.HandleFunc("GET /api/prices.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]float64{"tea": 4.5, "coffee": 7.25, "cups": 12})
	})
	// Odd visits fail with a status that gofer retries, so that one job shows a retry and its result.
	mux.HandleFunc("GET /flaky", func(w http.ResponseWriter, _ *http.Request) {
		if visits.Add(1)%2 == 1 {
			http.Error(w, "busy, try again", http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "this page fails every second time")
	})
	// 2 MiB are more than travels inside a result, so the body goes to the object store.
	mux.HandleFunc("GET /big", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(bytes.Repeat([]byte("0123456789abcdef"), 2<<20/16))
	})
	return mux
}
