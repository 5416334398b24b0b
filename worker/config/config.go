// Package config reads the environment of the program gofer: variables, their _FILE twins, the proxies file and the list of
// proxies that a URL names. It checks all of it, names every mistake at once, and turns what packages report about a field into
// the variable and the remedy.
package config

import (
	"github.com/gofer-mq/gofer/jobs"
)

// Config is the environment, checked. Every field bears its variable's full name: with a prefix, envconfig would also read the
// name without it, and a stray LOG_LEVEL or PROXIES would change what gofer does. The tag desc is the documentation of the
// variable, and the value of one with the tag secret is never shown.
type Config struct {
	// How NATS is reached. Dial turns these fields into a bus.Dial, and a context of the nats command replaces all
	// of them.
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

	// The embedded server, which a worker without GOFER_NATS_URL starts. It has no users, so its address must be on
	// loopback.
	EmbeddedAddr string `envconfig:"GOFER_EMBEDDED_ADDR" default:"127.0.0.1:4222" desc:"address of the embedded NATS server, loopback only"`
	DataDir      string `envconfig:"GOFER_DATA_DIR" default:"./gofer-data" desc:"where the embedded server keeps its streams"`

	// Prefix separates fleets that share one account of NATS: it is part of each subject, stream and bucket.
	Prefix string `envconfig:"GOFER_PREFIX" default:"gofer" desc:"first token of every subject, upper case in stream names"`

	// What the worker runs. Weights divide the slots among queues that have jobs left; Concurrency is the number of
	// slots.
	Queues      queueList `envconfig:"GOFER_QUEUES" default:"default" desc:"queues to serve, with weights: critical:6,default:3,low:1"`
	Concurrency int       `envconfig:"GOFER_CONCURRENCY" default:"64" desc:"jobs that run at once"`
	WorkerName  string    `envconfig:"GOFER_WORKER_NAME" desc:"name of this worker in results and events; unset means host name and a random part"`

	// The sources of the pool. All of them count, and so do the proxies of the fleet's bucket. JoinProxies says
	// which one wins if two name the same proxy. Proxies and ProxiesURL are secret because they hold passwords.
	Proxies        string        `envconfig:"GOFER_PROXIES" secret:"true" desc:"proxies, comma separated, a line of the proxies file each"`
	ProxiesFile    string        `envconfig:"GOFER_PROXIES_FILE" desc:"file with a proxy a line: URL [id=…] [tags=a,b] [region=…] [weight=…] [max_inflight=…] [rate=…] [gateway=yes] [session_ttl=…]; reread when it changes"`
	ProxiesURL     string        `envconfig:"GOFER_PROXIES_URL" secret:"true" desc:"https URL of a list of proxies, or http on loopback: lines as in the proxies file or as sellers write them, at most 16 MiB in 30s; one with user and password has to stand in the file"`
	ProxiesRefresh jobs.Duration `envconfig:"GOFER_PROXIES_REFRESH" default:"5m" desc:"pause between two looks at the list of GOFER_PROXIES_URL, 0.1s to 24h"`
	Strategy       string        `envconfig:"GOFER_STRATEGY" default:"round_robin" desc:"round_robin, random, weighted, least_used or performance"`

	// What one attempt may do and how long it may take. The first two lower a protection, so they are false by
	// default. MaxWait and SiteMaxWait count from the moment at which the job began to wait for a proxy or a site.
	AllowDirect         bool              `envconfig:"GOFER_ALLOW_DIRECT" default:"false" desc:"lets jobs ask for no proxy"`
	AllowPrivateTargets bool              `envconfig:"GOFER_ALLOW_PRIVATE_TARGETS" default:"false" desc:"lets jobs fetch private and loopback addresses"`
	AttemptTimeout      jobs.Duration     `envconfig:"GOFER_ATTEMPT_TIMEOUT" default:"30s" desc:"one attempt, 0.1s to 10m"`
	FirstByteTimeout    jobs.AutoDuration `envconfig:"GOFER_FIRST_BYTE_TIMEOUT" default:"auto" desc:"an attempt ends, and another proxy is tried at once, if the first byte of an answer takes longer than this, or dialling, CONNECT or TLS alone; auto finds out how long each site takes; off for no bound"`
	StallTimeout        optionalDuration  `envconfig:"GOFER_STALL_TIMEOUT" default:"30s" desc:"an attempt ends if less than 1 KiB of an incomplete answer arrives in this time, 0.1s to 10m; off for no bound"`
	UserAgent           string            `envconfig:"GOFER_USER_AGENT" default:"gofer" desc:"User-Agent of requests whose job sets none"`
	MaxBodyBytes        int64             `envconfig:"GOFER_MAX_BODY_BYTES" default:"8388608" desc:"largest body, after decoding"`
	MaxWait             jobs.Duration     `envconfig:"GOFER_MAX_WAIT" default:"24h" desc:"how long a job waits for a usable proxy"`
	SiteMaxWait         jobs.Duration     `envconfig:"GOFER_SITE_MAX_WAIT" default:"3m" desc:"how long a job waits for a site that does not answer"`

	// Limits of one worker, not of the fleet: n workers together make n times as many attempts. Their site is the
	// registrable domain.
	HostRate        float64 `envconfig:"GOFER_HOST_RATE" default:"0" desc:"attempts a second that a worker makes at one site (all hosts of a registrable domain), such as 0.5; 0 means no bound"`
	HostConcurrency int     `envconfig:"GOFER_HOST_CONCURRENCY" default:"0" desc:"attempts at once that a worker makes at one site; 0 means no bound"`

	Retry   retryConfig
	Breaker breakerConfig
	Health  healthConfig
	Streams streamConfig

	// The worker's own server, its end and its log. CheckBind refuses an address beyond loopback without a token.
	HTTPAddr     string        `envconfig:"GOFER_HTTP_ADDR" default:"127.0.0.1:9090" desc:"address of /metrics, /livez, /readyz and the API"`
	AdminToken   string        `envconfig:"GOFER_ADMIN_TOKEN" secret:"true" desc:"bearer token of the API; needed to listen on more than loopback"`
	DrainTimeout jobs.Duration `envconfig:"GOFER_DRAIN_TIMEOUT" default:"30s" desc:"how long a worker may take to end after SIGTERM, at least 1s; jobs that run until shortly before its end are handed back"`
	LogLevel     string        `envconfig:"GOFER_LOG_LEVEL" default:"info" desc:"debug, info, warn or error"`
	LogFormat    string        `envconfig:"GOFER_LOG_FORMAT" desc:"text or json; unset means text on a terminal, else json"`

	set     map[string]string // the variables that are set, by name; secrets included, so it is never printed
	urlFile bool              // the URL of the proxies stands in a file, which may hold credentials
	context string            // of the nats command, if it says how NATS is reached
}

// retryConfig holds the variables of the retry policy, of the retry budget and of bans. Policy turns them into a
// jobs.Policy.
type retryConfig struct {
	MaxAttempts     int               `envconfig:"GOFER_RETRY_MAX_ATTEMPTS" default:"3" desc:"attempts of a job, 1 to 10"`
	BackoffStrategy string            `envconfig:"GOFER_RETRY_BACKOFF_STRATEGY" default:"exponential" desc:"exponential, linear or fixed"`
	BaseDelay       jobs.Duration     `envconfig:"GOFER_RETRY_BASE_DELAY" default:"1s" desc:"first wait, 0.1s to 60s"`
	Multiplier      float64           `envconfig:"GOFER_RETRY_MULTIPLIER" default:"2" desc:"growth of an exponential wait, 1.1 to 10"`
	MaxBackoffDelay jobs.Duration     `envconfig:"GOFER_RETRY_MAX_BACKOFF_DELAY" default:"30s" desc:"longest computed wait, 1s to 300s"`
	Jitter          bool              `envconfig:"GOFER_RETRY_JITTER" default:"true" desc:"draws each wait between nothing and the computed one"`
	StatusCodes     statusList        `envconfig:"GOFER_RETRY_STATUS_CODES" default:"408,429,502,503,504" desc:"answers that are tried again"`
	Timeout         jobs.Duration     `envconfig:"GOFER_RETRY_TIMEOUT" default:"0s" desc:"all attempts and waits together; 0 means no bound"`
	Budget          float64           `envconfig:"GOFER_RETRY_BUDGET" default:"0.5" desc:"retries of a worker for each first attempt, besides one a second for each slot; more of them wait up to a minute for their turn; 0 means no bound"`
	BanStatusCodes  bans              `envconfig:"GOFER_BAN_STATUS_CODES" default:"403" desc:"answers that mean that the site has banned the proxy, so that a job without a ban of its own tries another one; set and empty means none"`
	Hedge           jobs.AutoDuration `envconfig:"GOFER_RETRY_HEDGE" default:"off" desc:"time without a first byte after which one more attempt of a GET or HEAD begins through another proxy; auto finds out how long each site takes"`
	NonIdempotent   bool              `envconfig:"GOFER_RETRY_NON_IDEMPOTENT" default:"false" desc:"tries POST and PATCH again although the first may have been received"`
}

// breakerConfig holds the variables of the breakers, one of which belongs to each proxy. Shared findings are in it
// because they come from breakers.
type breakerConfig struct {
	FailureThreshold int           `envconfig:"GOFER_BREAKER_FAILURE_THRESHOLD" default:"5" desc:"failures within the window that open a proxy's breaker, 1 to 1000"`
	Window           jobs.Duration `envconfig:"GOFER_BREAKER_WINDOW" default:"60s" desc:"rolling window of the failures"`
	Timeout          jobs.Duration `envconfig:"GOFER_BREAKER_TIMEOUT" default:"30s" desc:"first open time; doubles at each opening in a row"`
	MaxTimeout       jobs.Duration `envconfig:"GOFER_BREAKER_MAX_TIMEOUT" default:"10m" desc:"longest open time"`
	Share            bool          `envconfig:"GOFER_BREAKER_SHARE" default:"true" desc:"lets the workers tell one another which proxies are dead, which sites rest, and which exits of sessions failed"`
}

// healthConfig holds the variables of the worker's own probes of proxies.
type healthConfig struct {
	URL      string        `envconfig:"GOFER_HEALTH_CHECK_URL" desc:"page that a worker fetches itself to find out whether a proxy works again whose open time is over, so that no job is spent on that; such fetches are not counted; unset means that jobs find out"`
	Interval jobs.Duration `envconfig:"GOFER_HEALTH_CHECK_INTERVAL" default:"30s" desc:"pause between two such looks at the proxies, 0.1s to 24h"`
}

// streamConfig holds the limits of the streams. They apply when a stream is created, and later by gofer setup only.
// A worker that finds other limits leaves them as they are: an owner may have set them by hand.
type streamConfig struct {
	ResultsMaxAge   jobs.Duration `envconfig:"GOFER_RESULTS_MAX_AGE" default:"24h" desc:"how long results are kept; at creation and by gofer setup"`
	ResultsMaxBytes int64         `envconfig:"GOFER_RESULTS_MAX_BYTES" default:"0" desc:"room for results, 0 means no bound; when full, workers stop taking jobs; at creation and by gofer setup"`
	JobsMaxMsgs     int64         `envconfig:"GOFER_JOBS_MAX_MSGS" default:"0" desc:"jobs that may wait, 0 means no bound; when full, publishers are refused; at creation and by gofer setup"`
	JobsMaxBytes    int64         `envconfig:"GOFER_JOBS_MAX_BYTES" default:"0" desc:"room for jobs that may wait, 0 means no bound; when full, publishers are refused; if the room for results is bounded, too, every stream has a bound, as some accounts demand; at creation and by gofer setup"`
	Replicas        int           `envconfig:"GOFER_REPLICAS" default:"1" desc:"copies of each stream, 1, 3 or 5; at creation and by gofer setup"`
}
