package browser_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/testenv"
	"github.com/gofer-mq/gofer/worker/admin"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// sixty is a fleet of 60 workers. All of them answer the first question, and the first three no later one.
type sixty struct {
	mu               sync.Mutex // guards the fields below
	asked            int
	leaving, drained bool
}

// answer is that of the workers at this moment. Those that leave drain once before.
func (f *sixty) answer(context.Context, int, int) ([]admin.Worker, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	list := f.list()
	f.drained = f.leaving
	return list, nil
}

func (f *sixty) list() (list []admin.Worker) {
	for i := range 60 {
		last := i >= 50
		if f.asked > 1 && i < 3 || last && f.drained {
			continue
		}
		list = append(list, admin.Worker{
			Worker: fmt.Sprintf("w%02d", i), Ready: true, Draining: last && f.leaving,
			Reasons: []string{}, Queues: []string{"default"}, Proxies: map[string]int{},
		})
	}
	return list
}

func (f *sixty) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaving = true
}

// serve starts the pages of one of the workers.
func (f *sixty) serve(t *testing.T) (url string) {
	t.Helper()
	book := rollup.NewBook()
	server := httptest.NewServer(admin.New(admin.Config{
		Worker: "w59", Version: "1.2.3", Pool: rotation.New(rotation.Config{}), Book: book, Fleet: f.answer,
		Metrics: metrics.New(metrics.Gauges{Book: func() *rollup.Book { return book }}),
		Ready:   func() []admin.Check { return []admin.Check{{Name: "nats", OK: true, Detail: "connected"}} },
		Operator: admin.Operator{Workers: func(context.Context) (any, []string, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.list(), nil, nil
		}},
	}))
	t.Cleanup(server.Close)
	return server.URL + "/"
}

func TestPagesOfWorkersSkipNone(t *testing.T) {
	node, chromium := needBrowser(t)
	testenv.DependOn(t, ".") // the scripts
	fleet := &sixty{}
	report(t, func(use func(finding)) {
		runScript(t, []string{node, "pages.mjs", fleet.serve(t)}, []string{"BROWSER=" + chromium}, use)
	}, map[string]func(){"let ten workers leave": fleet.leave})
}
