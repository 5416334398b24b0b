// fleet is a snapshot as a large fleet sends it after a long day: numbers and names as long as they get.
export function fleet() {
  const now = Date.now();
  const at = (t) => new Date(t).toISOString();
  const hour = 3_600_000;
  const many = (n, make) => Array.from({ length: n }, (_, i) => make(i));
  const id = (i) => `residential-provider-of-many-addresses-session_00000000000000${i % 10}`;
  return {
    at: at(now), worker: "gofer-worker-deployment-7f9c4d6b58-x2k9q", version: "1.0.0-rc.1+build.20261123", token_needed: false, ready: false,
    checks: [{ name: "results", ok: false, detail: "the result stream is full: 107374182400 of 107374182400 bytes" }], in_flight: 1000, slots: 1024,
    seconds: many(120, (i) => ({ at: at(now - (120 - i) * 1000), jobs: 12_900 + i, succeeded: 12_000 + i, retries: 1234 })),
    scope: "cluster", hours: many(24, (i) => hourly(at((Math.floor(now / hour) - 23 + i) * hour), i)),
    success_by_attempt: Object.fromEntries(many(10, (i) => [i + 1, Math.round(987_654_321 / 9 ** i)])),
    breakers: { closed: 19_900, half_open: 20, open: 80 },
    resting: many(10, (i) => ({
      proxy_id: id(i), state: i < 2 ? "half_open" : "open", failure_count: 1000, failure_threshold: 1000,
      next_test_time: i < 2 ? null : at(now + i * 60_000),
      last_state_change: at(now - i * 60_000), reason: "5 failures within 1m0s, the last one: connection refused",
    })),
    worst: many(10, (i) => ({ proxy_id: id(i), failure_count: 9_123_456, total_attempts: 91_234_567, avg_latency: 123.4, bytes: 1.2e14 })),
    failures: many(20, (i) => ({ at: at(now - i * 1000), queue: "critical", job_id: "j".repeat(64) + i, error: "too_many_redirects", detail: "the 11th redirect leads to http://shop.test/" + "x".repeat(120), attempts: 10 })),
    retries: many(20, (i) => ({
      at: at(now - i * 1000), queue: "critical", job_id: "j".repeat(64) + i, attempt: 9, max_attempts: 10, proxy: id(i), delay: 899.9,
      error: "the target failed in phase tls: remote error: handshake failure: " + "x".repeat(80),
    })),
    queues: many(8, (i) => ({ name: "a-queue-with-quite-a-long-name-" + i, paused: i === 0, pending: 123_456_789, ack_pending: 65_536, in_flight: 1024 })),
  };
}

// invaded is a snapshot all of whose strings a stranger wrote: markup, and characters that turn a line around.
export function invaded() {
  const mark = "<img src=x onerror=\"window.pwned=true\"><script>window.pwned=true</script>\u001b]0;pwned\u0007\u009b31m\u202e\u2066";
  const marked = (value, key) => {
    if (Array.isArray(value)) return value.map((item) => marked(item, ""));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, marked(v, k)]));
    return typeof value === "string" && !Date.parse(value) && key !== "scope" && key !== "state" ? value + mark : value;
  };
  return marked(fleet(), "");
}

function hourly(timestamp, i) {
  return {
    timestamp, total_requests: i === 5 ? 0 : 46_000_000 + i * 100_000, total_retries: 4_000_000, success_rate: 0.9 + i / 300, avg_latency: 12.3,
    p95_latency: 123.4, bytes: 7.1e13, circuit_breaker_opens: 12_345,
  };
}

// play is run in the page before its own scripts: the snapshot comes every second, as from a worker.
export function play(snapshot) {
  window.EventSource = class {
    constructor() {
      this.timer = setInterval(() => this.onmessage({ data: JSON.stringify(snapshot) }), 1000);
    }

    close() {
      clearInterval(this.timer);
    }
  };
}
