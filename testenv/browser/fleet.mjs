// fleet is a snapshot as a large fleet sends it after a long day: numbers and names as long as they get.
export function fleet() {
  const now = Date.now();
  const at = (t) => new Date(t).toISOString();
  const hour = 3_600_000;
  const many = (n, make) => Array.from({ length: n }, (_, i) => make(i));
  const id = (i) => `residential-provider-of-many-addresses-session_0000000000000${10 + i}`;
  const series = (step, count) => ({
    start: Math.floor(now / 1000 / step - count) * step, step, jobs: many(count, (i) => [60_000 + 100 * i, 1200, 9000, 1500, 700]), p95: many(count, (i) => 9000 + i), total_p95: 123_456, failed: 9_876_543, retries: 1_234_567,
  });
  return {
    at: at(now), worker: "gofer-worker-deployment-7f9c4d6b58-x2k9q", version: "1.0.0-rc.1+build.20261123", watched: "", token_needed: false, ready: false,
    checks: [{ name: "results", ok: false, detail: "the result stream is full: 107374182400 of 107374182400 bytes" }],
    problems: many(8, (i) => ({ level: i < 3 ? "bad" : "warn", text: `worker gofer-worker-deployment-7f9c4d6b58-${i} is not ready: results: the result stream is full: 107374182400 of 107374182400 bytes` })),
    in_flight: 64_000, slots: 65_536, recent: series(5, 24), minutes: series(60, 60),
    scope: "cluster", hours: many(24, (i) => hourly(at((Math.floor(now / hour) - 23 + i) * hour), i)),
    success_by_attempt: Object.fromEntries(many(10, (i) => [i + 1, Math.round(987_654_321 / 9 ** i)])),
    workers: many(50, (i) => ({
      worker: `gofer-worker-deployment-7f9c4d6b58-${i}`, version: "1.0.0-rc.1+build.20261123", started_at: at(now - 40 * 24 * hour), slots: 1024, in_flight: 1000, draining: i === 1, ready: i > 2, silent: i === 0,
      reasons: i === 2 ? ["results: the result stream is full"] : [], proxies: { closed: 19_900, half_open: 20, open: 80 }, queues: ["critical", "default", "low"],
    })),
    worker_count: 1000,
    queues: many(8, (i) => ({
      queue: "a-queue-with-quite-a-long-name-" + i, served: i !== 1, paused: i === 0, queued: 123_456_789, running: 65_536, waiting: { delayed: 1_234_567, retrying: 234_567, no_proxy: 34_567, site_down: 4_567 }, oldest_seconds: 123_456, reasons: [],
    })),
    sites: many(50, (i) => ({ site: `a-shop-with-quite-a-long-name-${i}.example.co.uk:8443`, state: ["resting", "testing", "new", "up"][i % 4], workers: { [["resting", "testing", "new", "up"][i % 4]]: 3, up: 997 }, reason: "failures", next_test_time: at(now + 60_000), last_state_change: at(now - i * 60_000) })),
    site_count: 2_000, sites_of: "", sites_known: 10_000, sites_missing: many(10, (i) => `gofer-worker-deployment-7f9c4d6b58-${i}`), sites_missing_count: 12,
    breakers: { closed: 19_900, half_open: 20, open: 80 },
    proxies: many(20, (i) => ({
      proxy_id: id(i), region: "eu-central", tags: ["residential"], state: ["open", "half_open", "avoided", "closed"][i % 4], reason: "connect", avoided_by: "gofer-worker-deployment-7f9c4d6b58-2", failures: 1000,
      since: at(now - i * 60_000), next_test_time: at(now + i * 60_000), bans: 123, in_flight: 12, attempts: 91_234_567, failed: 9_123_456, classes: { "2xx": 70_000_000, "3xx": 1, "4xx": 2_000_000, "5xx": 3, none: 9_123_456 }, avg_latency: 123.4,
    })),
    dead: many(100, (i) => ({ reason: "attempts_exhausted", site: `a-shop-with-quite-a-long-name-${i}.example.co.uk:8443`, queue: "critical", count: 1_234_567 - i, oldest: at(now - 13 * 24 * hour), newest: at(now - i * 60_000) })),
    dead_count: 123_456_789,
    failures: many(10, (i) => ({ at: at(now - i * 1000), queue: "critical", job_id: "j".repeat(64) + i, error: "too_many_redirects", detail: "the 11th redirect leads to http://shop.test/" + "x".repeat(120), url: "http://shop.test/" + "x".repeat(120), attempts: 10 })),
    retries: many(10, (i) => ({
      at: at(now - i * 1000), queue: "critical", job_id: "j".repeat(64) + i, attempt: 9, max_attempts: 10, proxy: id(i), delay: 899.9,
      error: "the target failed in phase tls: remote error: handshake failure: " + "x".repeat(80),
    })),
  };
}

// empty is a snapshot of a worker without proxies that has done nothing.
export function empty() {
  const s = fleet();
  const none = { ...s.recent, jobs: s.recent.jobs.map(() => [0, 0, 0, 0, 0]), p95: s.recent.p95.map(() => 0), total_p95: 0, failed: 0, retries: 0 };
  return {
    ...s, worker: "w1", ready: false, problems: [{ level: "bad", text: "proxies: no proxy is configured" }], in_flight: 0, slots: 64, recent: none, minutes: none,
    hours: s.hours.map((h) => ({ ...h, total_requests: 0, classes: { "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0, none: 0 } })), workers: [], worker_count: 0, queues: [], sites: [], site_count: 0, sites_known: 0, sites_missing: [], sites_missing_count: 0, breakers: {}, proxies: [], dead: [], dead_count: 0, failures: [], retries: [],
  };
}

// invaded is a snapshot all of whose strings a stranger wrote: markup, and characters that turn a line around.
export function invaded() {
  const mark = "<img src=x onerror=\"window.pwned=true\"><script>window.pwned=true</script>\u001b]0;pwned\u0007\u009b31m\u202e\u2066";
  const marked = (value, key) => {
    if (Array.isArray(value)) return value.map((item) => marked(item, ""));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, marked(v, k)]));
    return typeof value === "string" && !Date.parse(value) && !["scope", "state", "watched", "level"].includes(key) ? value + mark : value;
  };
  return marked(fleet(), "");
}

function hourly(timestamp, i) {
  const classes = i === 5 ? { "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0, none: 0 } : { "2xx": 40_000_000 + i * 100_000, "3xx": 0, "4xx": 4_000_000, "5xx": 1_000_000, none: 1_000_000 };
  return {
    timestamp, total_requests: i === 5 ? 0 : 46_000_000 + i * 100_000, total_retries: 4_000_000, success_rate: 0.9 + i / 300, avg_latency: 12.3,
    p50_latency: 1, p95_latency: 123.4, p99_latency: 200, attempts: 50_000_000, bytes: 7.1e13, circuit_breaker_opens: 12_345, classes,
  };
}

// play is run in the page before its own scripts: the snapshot comes every second, as from a worker.
export function play(snapshot) {
  window.EventSource = class {
    constructor() {
      this.timer = setInterval(() => this.onmessage({ data: JSON.stringify(snapshot) }), 1000);
      setTimeout(() => this.onmessage({ data: JSON.stringify(snapshot) }));
    }

    close() {
      clearInterval(this.timer);
    }
  };
}
