package main

import (
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gofer-mq/gofer/breaker"
	"github.com/gofer-mq/gofer/jobs"
	"github.com/gofer-mq/gofer/jobs/bus"
	"github.com/gofer-mq/gofer/rotation"
	"github.com/gofer-mq/gofer/worker/admin"
)

// config is the environment. Every field bears its variable's full name: with a prefix, envconfig would also read the
// name without it, and a stray LOG_LEVEL or PROXIES would change what gofer does.
type config struct {
	NATSURL         string `envconfig:"GOFER_NATS_URL" secret:"true" desc:"NATS server(s), comma separated; for the worker, unset means an embedded server"`
	NATSCreds       string `envconfig:"GOFER_NATS_CREDS" desc:"credentials file (JWT and seed)"`
	NATSNkey        string `envconfig:"GOFER_NATS_NKEY" secret:"true" desc:"nkey seed, or the path of a file with it"`
	NATSUser        string `envconfig:"GOFER_NATS_USER" desc:"user name"`
	NATSPassword    string `envconfig:"GOFER_NATS_PASSWORD" secret:"true" desc:"password"`
	NATSToken       string `envconfig:"GOFER_NATS_TOKEN" secret:"true" desc:"token"`
	NATSCA          string `envconfig:"GOFER_NATS_CA" desc:"CA certificate file"`
	NATSCert        string `envconfig:"GOFER_NATS_CERT" desc:"client certificate file"`
	NATSKey         string `envconfig:"GOFER_NATS_KEY" desc:"client key file"`
	NATSInboxPrefix string `envconfig:"GOFER_NATS_INBOX_PREFIX" desc:"inbox prefix of this user; unset means _INBOX"`
	NATSJSDomain    string `envconfig:"GOFER_NATS_JS_DOMAIN" desc:"domain of JetStream, such as the hub's for workers on a leaf node; unset means the server's own"`
	NATSTLSFirst    bool   `envconfig:"GOFER_NATS_TLS_FIRST" default:"false" desc:"makes the TLS handshake before the server's greeting, for a server with handshake_first"`

	EmbeddedAddr string `envconfig:"GOFER_EMBEDDED_ADDR" default:"127.0.0.1:4222" desc:"address of the embedded NATS server, loopback only"`
	DataDir      string `envconfig:"GOFER_DATA_DIR" default:"./gofer-data" desc:"where the embedded server keeps its streams"`

	Prefix string `envconfig:"GOFER_PREFIX" default:"gofer" desc:"first token of every subject, upper case in stream names"`

	Queues      queueList `envconfig:"GOFER_QUEUES" default:"default" desc:"queues to serve, with weights: critical:6,default:3,low:1"`
	Concurrency int       `envconfig:"GOFER_CONCURRENCY" default:"64" desc:"jobs that run at once"`
	WorkerName  string    `envconfig:"GOFER_WORKER_NAME" desc:"name of this worker in results and events; unset means host name and a random part"`

	Proxies     string `envconfig:"GOFER_PROXIES" secret:"true" desc:"proxies, comma separated, a line of the proxies file each"`
	ProxiesFile string `envconfig:"GOFER_PROXIES_FILE" desc:"file with a proxy a line: URL [id=…] [tags=a,b] [region=…] [weight=…] [max_inflight=…] [rate=…]; reread when it changes"`
	Strategy    string `envconfig:"GOFER_STRATEGY" default:"round_robin" desc:"round_robin, random, weighted, least_used or performance"`

	AllowDirect         bool          `envconfig:"GOFER_ALLOW_DIRECT" default:"false" desc:"lets jobs ask for no proxy"`
	AllowPrivateTargets bool          `envconfig:"GOFER_ALLOW_PRIVATE_TARGETS" default:"false" desc:"lets jobs fetch private and loopback addresses"`
	AttemptTimeout      jobs.Duration `envconfig:"GOFER_ATTEMPT_TIMEOUT" default:"30s" desc:"one attempt, 0.1s to 10m"`
	MaxBodyBytes        int64         `envconfig:"GOFER_MAX_BODY_BYTES" default:"8388608" desc:"largest body, after decoding"`
	MaxWait             jobs.Duration `envconfig:"GOFER_MAX_WAIT" default:"24h" desc:"how long a job waits for a usable proxy"`

	HostRate        float64 `envconfig:"GOFER_HOST_RATE" default:"0" desc:"attempts a second that a worker makes at one site (all hosts of a registrable domain), such as 0.5; 0 means no bound"`
	HostConcurrency int     `envconfig:"GOFER_HOST_CONCURRENCY" default:"0" desc:"attempts at once that a worker makes at one site; 0 means no bound"`

	Retry   retryConfig
	Breaker breakerConfig
	Health  healthConfig
	Streams streamConfig

	HTTPAddr     string        `envconfig:"GOFER_HTTP_ADDR" default:"127.0.0.1:9090" desc:"address of /metrics, /livez, /readyz and the API"`
	AdminToken   string        `envconfig:"GOFER_ADMIN_TOKEN" secret:"true" desc:"bearer token of the API; needed to listen on more than loopback"`
	DrainTimeout jobs.Duration `envconfig:"GOFER_DRAIN_TIMEOUT" default:"30s" desc:"how long a worker may take to end after SIGTERM, at least 1s; jobs that run until shortly before its end are handed back"`
	LogLevel     string        `envconfig:"GOFER_LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat    string        `envconfig:"GOFER_LOG_FORMAT" desc:"text or json; unset means text on a terminal, else json"`
}

type retryConfig struct {
	MaxAttempts     int           `envconfig:"GOFER_RETRY_MAX_ATTEMPTS" default:"3" desc:"attempts of a job, 1 to 10"`
	BackoffStrategy string        `envconfig:"GOFER_RETRY_BACKOFF_STRATEGY" default:"exponential" desc:"exponential, linear or fixed"`
	BaseDelay       jobs.Duration `envconfig:"GOFER_RETRY_BASE_DELAY" default:"1s" desc:"first wait, 0.1s to 60s"`
	Multiplier      float64       `envconfig:"GOFER_RETRY_MULTIPLIER" default:"2" desc:"growth of an exponential wait, 1.1 to 10"`
	MaxBackoffDelay jobs.Duration `envconfig:"GOFER_RETRY_MAX_BACKOFF_DELAY" default:"30s" desc:"longest computed wait, 1s to 300s"`
	Jitter          bool          `envconfig:"GOFER_RETRY_JITTER" default:"true" desc:"draws each wait between nothing and the computed one"`
	StatusCodes     statusList    `envconfig:"GOFER_RETRY_STATUS_CODES" default:"408,429,502,503,504" desc:"answers that are tried again"`
	Timeout         jobs.Duration `envconfig:"GOFER_RETRY_TIMEOUT" default:"0s" desc:"all attempts and waits together; 0 means no bound"`
	Budget          float64       `envconfig:"GOFER_RETRY_BUDGET" default:"0.5" desc:"retries of a worker for each first attempt, besides one a second for each slot; more of them wait up to a minute for their turn; 0 means no bound"`
	NonIdempotent   bool          `envconfig:"GOFER_RETRY_NON_IDEMPOTENT" default:"false" desc:"tries POST and PATCH again although the first may have been received"`
}

type breakerConfig struct {
	FailureThreshold int           `envconfig:"GOFER_BREAKER_FAILURE_THRESHOLD" default:"5" desc:"failures within the window that open a proxy's breaker, 1 to 1000"`
	Window           jobs.Duration `envconfig:"GOFER_BREAKER_WINDOW" default:"60s" desc:"rolling window of the failures"`
	Timeout          jobs.Duration `envconfig:"GOFER_BREAKER_TIMEOUT" default:"30s" desc:"first open time; doubles at each opening in a row"`
	MaxTimeout       jobs.Duration `envconfig:"GOFER_BREAKER_MAX_TIMEOUT" default:"10m" desc:"longest open time"`
	Share            bool          `envconfig:"GOFER_BREAKER_SHARE" default:"true" desc:"lets the workers tell one another which proxies are dead"`
}

type streamConfig struct {
	ResultsMaxAge   jobs.Duration `envconfig:"GOFER_RESULTS_MAX_AGE" default:"24h" desc:"how long results are kept; at creation and by gofer setup"`
	ResultsMaxBytes int64         `envconfig:"GOFER_RESULTS_MAX_BYTES" default:"0" desc:"room for results, 0 means no bound; when full, workers stop taking jobs; at creation and by gofer setup"`
	JobsMaxMsgs     int64         `envconfig:"GOFER_JOBS_MAX_MSGS" default:"0" desc:"jobs that may wait, 0 means no bound; when full, publishers are refused; at creation and by gofer setup"`
	JobsMaxBytes    int64         `envconfig:"GOFER_JOBS_MAX_BYTES" default:"0" desc:"room for jobs that may wait, 0 means no bound; when full, publishers are refused; if the room for results is bounded, too, every stream has a bound, as some accounts demand; at creation and by gofer setup"`
	Replicas        int           `envconfig:"GOFER_REPLICAS" default:"1" desc:"copies of each stream, 1, 3 or 5; at creation and by gofer setup"`
}

// configError lists everything that is wrong with the environment.
type configError struct{ reasons []string }

func (e *configError) Error() string { return strings.Join(e.lines(), "\n") }

func (e *configError) lines() []string {
	lines := make([]string, len(e.reasons))
	for i, reason := range e.reasons {
		lines[i] = "configuration: " + reason
	}
	return lines
}

// loadConfig reads the environment and checks all of it. The error is a *configError; it never holds a value.
func loadConfig() (config, error) {
	var c config
	reasons := misspelt(os.Environ())
	tidy()
	reasons = append(reasons, readSecretFiles()...)
	reasons = append(reasons, notDecimal()...)
	reasons = append(reasons, process(&c)...)
	reasons = append(reasons, c.check()...)
	if len(reasons) > 0 {
		return c, &configError{reasons: reasons}
	}
	return c, nil
}

// check lists what is out of range. It stands behind process, so every value has its type.
func (c *config) check() (reasons []string) {
	bad := func(ok bool, name, why string) {
		if !ok {
			reasons = append(reasons, name+": "+why)
		}
	}
	_, err := jobs.NewNames(c.Prefix)
	bad(err == nil, "GOFER_PREFIX", "does not match [a-z][a-z0-9_-]{0,31}")
	bad(c.Concurrency >= 1 && c.Concurrency <= 10000, "GOFER_CONCURRENCY", "not between 1 and 10000")
	_, err = rotation.ParseStrategy(c.Strategy)
	bad(err == nil, "GOFER_STRATEGY", "none of round_robin, random, weighted, least_used, performance")
	bad(c.AttemptTimeout.Seconds() >= 0.1 && c.AttemptTimeout.Std() <= jobs.MaxAttemptTimeout, "GOFER_ATTEMPT_TIMEOUT", "not between 0.1s and 10m")
	bad(c.MaxBodyBytes >= 1 && c.MaxBodyBytes <= 1<<30, "GOFER_MAX_BODY_BYTES", "not between 1 and 1073741824")
	bad(c.MaxWait > 0, "GOFER_MAX_WAIT", "not above zero")
	bad(c.DrainTimeout.Seconds() >= 1, "GOFER_DRAIN_TIMEOUT", "below 1s")
	bad(slices.Contains([]string{"debug", "info", "warn", "error"}, strings.ToLower(c.LogLevel)), "GOFER_LOG_LEVEL", "none of debug, info, warn, error")
	bad(slices.Contains([]string{"", "text", "json"}, c.LogFormat), "GOFER_LOG_FORMAT", "neither text nor json")
	bad(c.WorkerName == "" || jobs.ValidID(c.WorkerName), "GOFER_WORKER_NAME", "does not match [A-Za-z0-9_-]{1,128}")
	bad(loopback(c.EmbeddedAddr), "GOFER_EMBEDDED_ADDR", "not a loopback host and a port, such as 127.0.0.1:4222; run a nats-server of your own to serve others")
	bad(!strings.ContainsFunc(c.NATSJSDomain, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(".*>", r) }), "GOFER_NATS_JS_DOMAIN", "not a single token of a subject, such as hub")
	bad(c.HostRate == 0 || c.HostRate >= 0.001 && c.HostRate <= 1e6, "GOFER_HOST_RATE", "neither 0 nor between 0.001 and 1000000")
	bad(c.HostConcurrency >= 0 && c.HostConcurrency <= 10000, "GOFER_HOST_CONCURRENCY", "not between 0 and 10000")
	bad(c.Retry.Budget >= 0 && c.Retry.Budget <= 10, "GOFER_RETRY_BUDGET", "not between 0 and 10")
	reasons = append(reasons, c.Breaker.check()...)
	reasons = append(reasons, c.Health.check()...)
	reasons = append(reasons, c.Streams.check()...)
	for _, reason := range c.policy().Reasons() {
		field, rest, _ := strings.Cut(reason, ":")
		reasons = append(reasons, retryVariable(field)+":"+rest)
	}
	if err := admin.CheckBind(c.HTTPAddr, c.AdminToken); err != nil {
		reasons = append(reasons, err.Error())
	}
	if _, port, err := net.SplitHostPort(c.HTTPAddr); err == nil {
		n, err := strconv.Atoi(port)
		bad(err != nil || n >= 0 && n <= 65535, "GOFER_HTTP_ADDR", "the port is not between 0 and 65535")
	}
	unsendable := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	bad(len(c.AdminToken) <= 1024 && !strings.ContainsFunc(c.AdminToken, unsendable), "GOFER_ADMIN_TOKEN",
		"longer than 1024 bytes, or with characters that no header can carry: blanks, line ends, others than ASCII")
	return append(reasons, c.checkNATS()...)
}

func (c *config) checkNATS() (reasons []string) {
	if c.NATSURL == "" && !loopback(c.EmbeddedAddr) {
		return nil // the address that stands in for the URL is named already
	}
	if err := c.dial("").Check(); err != nil {
		for _, line := range errorLines(err) {
			reasons = append(reasons, strings.TrimPrefix(line, bus.ErrConfig.Error()+": "))
		}
	}
	return reasons
}

func (b breakerConfig) check() (reasons []string) {
	if b.FailureThreshold < 1 || b.FailureThreshold > 1000 {
		reasons = append(reasons, "GOFER_BREAKER_FAILURE_THRESHOLD: not between 1 and 1000")
	}
	for name, d := range map[string]jobs.Duration{"WINDOW": b.Window, "TIMEOUT": b.Timeout, "MAX_TIMEOUT": b.MaxTimeout} {
		if d.Seconds() < 0.1 || d.Seconds() > 86400 {
			reasons = append(reasons, "GOFER_BREAKER_"+name+": not between 0.1s and 24h")
		}
	}
	if b.MaxTimeout < b.Timeout {
		reasons = append(reasons, "GOFER_BREAKER_MAX_TIMEOUT: below GOFER_BREAKER_TIMEOUT")
	}
	return reasons
}

func (s streamConfig) check() (reasons []string) {
	if s.ResultsMaxAge.Seconds() < 60 || s.ResultsMaxAge.Std().Hours() > 876000 {
		reasons = append(reasons, "GOFER_RESULTS_MAX_AGE: not between 60s and 876000h, 100 years")
	}
	if s.ResultsMaxBytes < 0 || s.JobsMaxMsgs < 0 || s.JobsMaxBytes < 0 {
		reasons = append(reasons, "GOFER_RESULTS_MAX_BYTES, GOFER_JOBS_MAX_MSGS, GOFER_JOBS_MAX_BYTES: below zero")
	}
	if !slices.Contains([]int{1, 3, 5}, s.Replicas) {
		reasons = append(reasons, "GOFER_REPLICAS: none of 1, 3, 5")
	}
	return reasons
}

// retryVariable is the variable of a policy's field.
func retryVariable(field string) string {
	name := strings.TrimPrefix(strings.ToUpper(field), "RETRY_")
	return "GOFER_RETRY_" + name
}

func loopback(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(port)
	ip := net.ParseIP(host)
	return err == nil && n >= 0 && n <= 65535 && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// policy is the fleet's retry policy as the environment has it.
func (c *config) policy() jobs.Policy {
	return jobs.Policy{
		MaxAttempts: c.Retry.MaxAttempts, BackoffStrategy: c.Retry.BackoffStrategy, BaseDelay: c.Retry.BaseDelay,
		Multiplier: c.Retry.Multiplier, MaxBackoffDelay: c.Retry.MaxBackoffDelay, Jitter: c.Retry.Jitter,
		RetryStatusCodes: c.Retry.StatusCodes, Timeout: c.Retry.Timeout, RetryNonIdempotent: c.Retry.NonIdempotent,
	}
}

// retryBudget is the budget as a fetcher wants it, to which zero is the default.
func (c *config) retryBudget() float64 {
	if c.Retry.Budget == 0 {
		return -1
	}
	return c.Retry.Budget
}

func (c *config) breaker() breaker.Config {
	return breaker.Config{
		FailureThreshold: c.Breaker.FailureThreshold, Window: c.Breaker.Window.Std(), OpenTimeout: c.Breaker.Timeout.Std(),
		MaxOpenTimeout: c.Breaker.MaxTimeout.Std(), ProbeLease: c.AttemptTimeout.Std() + probeSlack,
	}
}

func (c *config) settings() bus.Settings {
	names := make([]string, len(c.Queues))
	for i, q := range c.Queues {
		names[i] = q.Name
	}
	return bus.Settings{
		Replicas: c.Streams.Replicas, ResultsMaxAge: c.Streams.ResultsMaxAge.Std(),
		ResultsMaxBytes: c.Streams.ResultsMaxBytes, JobsMaxMsgs: c.Streams.JobsMaxMsgs, JobsMaxBytes: c.Streams.JobsMaxBytes, Queues: names,
	}
}

// dial is how NATS is reached; without a URL that is the address of the embedded server.
func (c *config) dial(name string) bus.Dial {
	url := c.NATSURL
	if url == "" {
		url = "nats://" + c.EmbeddedAddr
	}
	return bus.Dial{
		URL: url, Creds: c.NATSCreds, Nkey: c.NATSNkey, User: c.NATSUser, Password: c.NATSPassword, Token: c.NATSToken,
		CA: c.NATSCA, Cert: c.NATSCert, Key: c.NATSKey, InboxPrefix: c.NATSInboxPrefix, TLSFirst: c.NATSTLSFirst, Name: name,
	}
}
