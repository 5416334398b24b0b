package admin

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"

	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/metrics"
	"github.com/gofer-mq/gofer/worker/rollup"
)

// Config configures the handler: the values that it shows and the functions that it calls. Pool, Book, Metrics and Policy are
// required. Nobody may change it after New. Several goroutines call its functions at the same time.
type Config struct {
	// Addr is the configured address of the listener. An empty one counts as loopback.
	Addr string
	// Token is required for changes, and for reads too if Addr is not loopback. If it is empty, only this machine may
	// make changes.
	Token string
	// Worker is the worker's name, Version that of the program.
	Worker, Version string
	Log             *slog.Logger // nil discards
	// MaxStreams bounds the live streams that are open at once; zero means 64. It leaves room within the bound of Limit.
	MaxStreams int

	// Ready lists what readiness depends on. It must not block.
	Ready func() []Check
	// Pool is the pool of this worker. Each request for breakers or proxies reads it.
	Pool *rotation.Pool
	// Unusual returns the proxies whose share of 4xx at a site differs much from that of the others; a nil function means none.
	Unusual func() map[string]rollup.Unusual
	// Book is the book of this worker. Cluster returns the book of the fleet, or Book while the fleet's is not known. A nil
	// Cluster means that both are the same.
	Book    *rollup.Book
	Cluster func(context.Context) (*rollup.Book, error)
	// Metrics makes the page of /metrics; its gauges also fill the dashboard while the fleet does not answer.
	Metrics *metrics.Registry
	// Fleet returns the state of all workers, and what they did in the newest complete steps: recent of the short ones,
	// minutes of the long ones. nil means that this worker is alone. The workers' names are untrusted text.
	Fleet func(ctx context.Context, recent, minutes int) ([]Worker, error)

	// Sites returns at most limit of the sites that this worker remembers, resting sites first, and their total number. Site
	// finds one of them.
	Sites func(limit int) (list []Site, total int)
	Site  func(name string) (Site, bool)
	// ResetSite ends the rest of a site everywhere, and reports whether any worker remembers the site. If one of these three is
	// nil, its routes answer 501.
	ResetSite func(ctx context.Context, site string) (known bool, err error)
	// FleetSites asks every worker for at most limit of its sites, in the order of Sites. nil means that this worker is alone.
	// The names and errors are untrusted text.
	FleetSites func(ctx context.Context, limit int) ([]WorkerSites, error)

	// Policy returns the current retry policy, and the time from which the fleet has it; zero for the policy of the environment.
	Policy func() (jobs.Policy, time.Time)
	// SetPolicy replaces the fleet's policy, ResetPolicy removes it, ResetBreaker closes a proxy's breaker everywhere.
	// SetPolicy returns once Policy returns the new policy. If one of them is nil, its route answers 501.
	SetPolicy    func(context.Context, jobs.Policy) error
	ResetPolicy  func(context.Context) error
	ResetBreaker func(ctx context.Context, proxy string) error

	// Operator acts on the jobs, queues, workers and dead letters of the fleet.
	Operator Operator
}

// Check is one thing that readiness depends on. Detail is a public sentence about its state.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// admin is the handler. Only live and view change after New, and each has its own lock.
type admin struct {
	Config
	remote bool // other machines can reach the listener
	live   live
	view   view
	named  chan struct{} // holds an element for each page of metrics with single proxies that is being written
	// parameters are those that the operations of the API have.
	parameters parameters
}

// New makes the handler of all routes. Serve it with NewServer, or with limits of your own.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &admin{Config: c, remote: c.Addr != "" && !loopbackAddr(c.Addr)}
	a.live.snapshot, a.live.limit = a.snapshot, cmp.Or(c.MaxStreams, maxStreams)
	a.view, a.named, a.parameters = newView(a), make(chan struct{}, maxNamed), readParameters()
	mux := http.NewServeMux()
	// The fastest level compresses a long metrics page in half the time of the default level. The error means bad options.
	compress, _ := gzhttp.NewWrapper(gzhttp.CompressionLevel(gzip.BestSpeed))
	methods := map[string]map[string]route{}
	// Patterns are registered by path, without the method: dispatch finds the method itself, because ServeMux's
	// own answer to a wrong method is plain text without the headers of setHeaders.
	for _, r := range a.routes() {
		if methods[r.path] == nil {
			methods[r.path] = map[string]route{}
		}
		methods[r.path][r.method] = r
	}
	for path, routes := range methods {
		handler := a.dispatch(routes)
		if path != livePath { // compression would hold back the events of a stream
			handler = compress(handler)
		}
		mux.Handle(path, handler)
	}
	// The last pattern catches every other path, so that a 404 is JSON as well.
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		setHeaders(w.Header())
		writeFailure(w, failure{status: http.StatusNotFound, code: "not_found", message: "there is nothing at this path"})
	})
	return mux
}

// NewServer makes a server with bounds against slow or greedy clients. It ends live streams when it is shut down. A
// listener of Limit also bounds the connections. WriteTimeout bounds every answer but a live stream, which sets its own
// deadline for each event. ReadTimeout bounds a body that comes slowly. Close it by Shutdown; the handler itself has
// nothing to close.
func NewServer(handler http.Handler, log *slog.Logger) *http.Server {
	// Shutdown waits for open requests and does not cancel them. A live stream would never end, so all requests
	// inherit a context that ends when Shutdown begins.
	base, stop := context.WithCancel(context.Background())
	s := &http.Server{
		Handler: reportBusy(handler), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10, BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	if log != nil {
		// net/http mostly logs clients that disconnected, so its messages have level debug.
		s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug)
	}
	s.RegisterOnShutdown(stop)
	return s
}

// connKey is the key of a request's connection in its context. It has its own type, so that no key of another package equals it.
type connKey struct{}

// reportBusy reports to a listener of Limit which connections have a request.
func reportBusy(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*limitedConn); ok {
			c.setBusy(true)
			defer c.setBusy(false)
		}
		handler.ServeHTTP(w, r)
	})
}

// route is one method of one path. If serve returns an error, the error becomes the answer, so serve must not have written
// anything.
type route struct {
	method, path string
	access       access
	serve        func(http.ResponseWriter, *http.Request) error
}

// routes lists every route with its access. A test compares the documentation of the API with it. A route of anyone shows no data
// of jobs, and the labels of metrics name no URL.
func (a *admin) routes() []route {
	get, put, post, del := http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete
	return slices.Concat(a.pageRoutes(), a.operatorRoutes(), []route{
		{get, "/livez", anyone, a.livez},
		{get, "/readyz", anyone, a.readyz},
		{get, "/metrics", anyone, a.metricsPage},
		{get, "/api/v1/openapi.json", reader, a.openAPI},
		{get, "/api/v1/schemas/{name}", reader, a.schema},
		{get, livePath, reader, a.live.serve},
		{get, livePath + "/workers", reader, a.liveWorkers},
		{get, livePath + "/sites", reader, a.liveSites},
		{get, "/api/v1/retry/policy", reader, a.policy},
		{put, "/api/v1/retry/policy", changer, a.setPolicy},
		{del, "/api/v1/retry/policy", changer, a.resetPolicy},
		{get, "/api/v1/circuit-breakers", reader, a.breakers},
		{get, "/api/v1/circuit-breakers/metrics", reader, a.breakerEvents},
		{get, "/api/v1/circuit-breakers/{id}", reader, a.breaker},
		{post, "/api/v1/circuit-breakers/{id}/reset", changer, a.resetBreaker},
		{get, "/api/v1/proxies", reader, a.proxies},
		{get, "/api/v1/sites", reader, a.sites},
		{post, "/api/v1/sites/{site}/reset", changer, a.resetSite},
		{get, "/api/v1/metrics/retries", reader, a.retries},
		{get, "/api/v1/metrics/retries/timeseries", reader, a.series},
		{get, "/api/v1/metrics/retries/by-proxy", reader, a.byProxy},
		{get, "/api/v1/metrics/retries/by-policy", reader, a.byPolicy},
		{get, "/debug/pprof/profile", changer, profile(pprof.Profile)},
		{get, "/debug/pprof/heap", changer, profile(pprof.Handler("heap").ServeHTTP)},
		{get, "/debug/pprof/goroutine", changer, profile(pprof.Handler("goroutine").ServeHTTP)},
	})
}

// profile serves one of the runtime's profiles, such as that of CPU time, memory or goroutines. Profiles show how the program is
// used, so they need the access changer.
func profile(serve http.HandlerFunc) func(http.ResponseWriter, *http.Request) error {
	// The handlers of net/http/pprof write their own errors.
	return func(w http.ResponseWriter, r *http.Request) error {
		serve(w, r)
		return nil
	}
}

// dispatch returns the handler of one path: it finds the method, asks whether the request is allowed, bounds the body,
// and turns an error into its answer. HEAD is answered as GET; net/http drops the body.
func (a *admin) dispatch(routes map[string]route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The headers come first, so that refusals have them as well.
		setHeaders(w.Header())
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		found, ok := routes[method]
		if !ok {
			writeNotAllowed(w, routes)
			return
		}
		err := a.allow(r, found.access)
		// Probes and scrapers may add parameters of their own.
		if err == nil && found.access != anyone {
			err = a.parameters.check(found, r)
		}
		if err == nil {
			// The bound holds for every route, also for those that read no body.
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			err = found.serve(w, r)
		}
		if err != nil {
			a.fail(w, r, err)
		}
	})
}

// setHeaders keeps answers out of caches and pages out of frames. The content security policy forbids everything,
// because most answers are no pages; sendFile replaces it for pages.
func setHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}
