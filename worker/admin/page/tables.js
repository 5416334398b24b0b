// The tables of the page: what each column shows, and what can be done to a row.
import { $, at, make, number, printable, put, seconds, share, span, table } from "./dom.js";
import * as acts from "./acts.js";

let now = Date.now(); // by the worker's clock: the viewer's may be wrong
let cut = false; // the worker has no connection to NATS, so what it says of the fleet is old
const until = (text) => {
  if (!text) return "–";
  const left = (Date.parse(text) - now) / 1000;
  return left > 0 ? `in ${left < 60 ? Math.ceil(left) + " s" : Math.ceil(left / 60) + " min"}` : "at the next job";
};
const sum = (classes) => Object.values(classes).reduce((a, b) => a + b, 0);
const words = (code) => code.replaceAll("_", " ");

// A state is a word with a sign before it: colour is never the only one.
const signs = { bad: "✕ ", warn: "! ", good: "✓ ", "": "" };
const mark = (kind, text) => make("span", signs[kind] + text, kind);

// jobLink opens the story of a job.
function jobLink(queue, id) {
  const a = make("a", `${queue}/${id}`, "id");
  a.href = "#job=" + encodeURIComponent(`${queue}/${id}`);
  return a;
}

// why puts a code of the worker into words.
const reasons = {
  connect: "cannot be reached", reset: "connection reset", timeout: "no answer in time", proxy_auth: "refuses its credentials", proxy_refused: "refuses to connect",
  proxy_tls: "its TLS fails", proxy_protocol: "speaks no proper HTTP or SOCKS", tls: "TLS to the sites fails", dns: "cannot resolve names", truncated: "answers break off",
  malformed: "answers make no sense", status_5xx: "answers 5xx for the sites", region_refused: "refuses the region", probe: "its tests fail",
};

const percent = (part) => `${Math.round(100 * part)} %`;

function why(p) {
  const u = p.unusual_4xx, text = whyState(p);
  if (!u) return text;
  const odd = `4xx in ${percent(u.share_4xx)} of ${number.format(u.answers)} answers of ${u.site}, through the others in ${percent(u.others_4xx)}`;
  return text ? `${text}; ${odd}` : odd;
}

function whyState(p) {
  if (p.state === "avoided") return `found dead by ${p.avoided_by}`;
  if (p.state === "closed") return p.bans ? `banned by ${number.format(p.bans)} ${p.bans === 1 ? "site" : "sites"}` : "";
  const reason = reasons[p.reason] || (p.reason ? words(p.reason) : "reason not known here");
  return p.failures > 1 ? `${reason}, ${number.format(p.failures)} failures` : reason;
}

const proxyState = { open: ["bad", "open"], half_open: ["warn", "half open"], avoided: ["warn", "avoided"], closed: ["good", "closed"] };

function queueState(q) {
  if (cut) return mark("warn", "not known");
  if (q.paused) return mark("warn", "paused");
  return q.served === false ? mark("bad", "no worker serves it") : mark("good", "served");
}

const count = (n) => number.format(n || 0);

// jobsLink is a number of jobs of a queue in one state, which opens their list.
function jobsLink(q, state, n) {
  if (cut) return "–";
  if (!n) return count(n);
  const a = make("a", count(n));
  a.href = `#job=${encodeURIComponent(`${q.queue}:${state}`)}`;
  a.setAttribute("aria-label", printable(`${count(n)} ${words(state)} in queue ${q.queue}`));
  return a;
}

const showQueues = table("queues", [
  ["Queue", "id", (q) => q.queue], ["State", "", queueState],
  ...["queued", "running"].map((state) => [state, "number", (q) => jobsLink(q, state, q[state])]),
  ...["delayed", "retrying", "no_proxy", "site_down"].map((state) => [words(state), "number", (q) => (q.waiting ? jobsLink(q, state, q.waiting[state]) : "–")]),
  ["Oldest", "number", (q) => (q.oldest_seconds && !cut ? span(q.oldest_seconds) : "–")],
  ["Act", "acts", (q) => (cut ? [] : q.paused
    ? [["resume", "Resume", acts.resume, `Resume queue ${q.queue}`]]
    : q.served === false ? [] : [["pause", "Pause", acts.pause, `Pause queue ${q.queue}`]])], // without consumers nothing can be paused
], (q) => q.queue);

// parts are the counts that are not zero, by name.
const parts = (counts) => Object.entries(counts || {}).filter(([, n]) => n).map(([name, n]) => `${name === "none" ? "no status" : name} ${count(n)}`).join(", ") || "–";
const siteReasons = {
  failures: "its attempts failed one after the other", share: "fewer than one in ten attempts brought an answer", test: "it is being tested", test_failed: "its last test failed",
  test_void: "its last test decided nothing", slower: "an attempt failed while its jobs came back", outage: "the worker's own network failed", finding: "another worker reported it",
};
const siteState = { new: ["", "new"], up: ["good", "up"], resting: ["bad", "resting"], testing: ["warn", "testing"] };
// siteMark is the worst state that a worker sees, and in how many workers it is that, if not in all.
function siteMark(s) {
  const [kind, word] = siteState[s.state] || ["", s.state];
  const all = sum(s.workers), n = s.workers[s.state];
  return mark(kind, n < all ? `${word} in ${count(n)} of ${count(all)}` : word);
}

const showSites = table("sites", [
  ["Site", "id", (s) => s.site], ["State", "when", siteMark], ["Why", "says", (s) => (s.reason && s.state !== "up" ? siteReasons[s.reason] || words(s.reason) : "")],
  ["Attempts", "number", (s) => count(s.attempts)], ["Classes", "says", (s) => parts(s.classes)], ["Bans", "number", (s) => count(s.bans)], ["Failures by fault", "says", (s) => parts(s.failures)],
  ["Last error", "says", (s) => s.last_error || "–"],
  ["Since", "when", (s) => (s.last_state_change ? at(s.last_state_change) : "–")], ["Next test", "number", (s) => until(s.next_test_time)],
  ["Act", "acts", (s) => (["resting", "testing"].includes(s.state) ? [["reset", "End the rest", acts.resetSite, `End the rest of ${s.site}`]] : [])],
], (s) => s.site);

const showProxies = table("proxies", [
  ["Proxy", "id", (p) => p.proxy_id], ["State", "", (p) => mark(...(proxyState[p.state] || ["", p.state]))], ["Why", "says", why],
  ["Region", "", (p) => p.region || "–"], ["2xx", "number", (p) => share(p.classes["2xx"], sum(p.classes))], ["Failed, any fault", "number", (p) => share(p.failed, p.attempts)],
  ["Attempts", "number", (p) => count(p.attempts)], ["Bans", "number", (p) => count(p.bans)], ["Average", "number", (p) => seconds(p.avg_latency)],
  ["Next test", "number", (p) => (p.state === "closed" ? "–" : p.state === "half_open" ? "now" : until(p.next_test_time))],
  ["Act", "acts", (p) => (p.state === "closed" ? [] : [["reset", "Reset", acts.resetBreaker, `Reset the breaker of ${p.proxy_id}`]])],
], (p) => p.proxy_id);

const showDead = table("dead", [
  ["Letters", "number", (g) => count(g.count)], ["Reason", "says", (g) => (g.reason ? words(g.reason) : "any")], ["Site", "id", (g) => g.site || "any"], ["Queue", "id", (g) => g.queue || "any"],
  ["Oldest", "when", (g) => at(g.oldest)], ["Newest", "when", (g) => at(g.newest)],
  ["Act", "acts", (g) => [["replay", "Replay", acts.replayGroup, `Replay ${g.count} letters of ${g.key}`], ["purge", "Remove", acts.purgeGroup, `Remove ${g.count} letters of ${g.key}`]]],
], (g) => g.key);

function workerState(w) {
  if (w.silent) return [cut ? mark("warn", "cannot be asked") : mark("bad", "does not answer")];
  if (w.draining) return [mark("warn", "draining")];
  return w.ready ? [mark("good", "ready")] : [mark("bad", "not ready: "), w.reasons.join("; ")];
}

const showWorkers = table("workers", [
  ["Worker", "id", (w) => workerLink(w.worker)], ["State", "says", workerState], ["Jobs", "number", (w) => (w.slots ? `${count(w.in_flight)} of ${count(w.slots)}` : count(w.in_flight))],
  ["Proxies", "says", (w) => Object.entries(w.proxies || {}).filter(([, n]) => n).sort().map(([state, n]) => `${count(n)} ${words(state)}`).join(", ") || "–"],
  ["Queues", "says", (w) => w.queues.join(", ") || "–"], ["Up", "number", (w) => (Date.parse(w.started_at) > 0 ? span((now - Date.parse(w.started_at)) / 1000) : "–")], ["Version", "says", (w) => w.version || "–"],
  ["Act", "acts", (w) => (w.silent || w.draining ? [] : [["drain", "Drain", acts.drain, `Drain worker ${w.worker}`]])],
], (w) => w.worker);

function workerLink(name) {
  const a = make("a", name, "id");
  a.href = "#worker=" + encodeURIComponent(name);
  return a;
}

const showFailures = table("failures", [
  ["Time", "when", (f) => at(f.at)], ["Job", "id", (f) => jobLink(f.queue, f.job_id)], ["URL", "says", (f) => f.url || "–"], ["Reason", "says", (f) => words(f.error) + (f.detail ? ": " + f.detail : "")], ["Attempts", "number", (f) => count(f.attempts)],
], (f) => f.at + f.queue + f.job_id);

const showRetries = table("retries", [
  ["Time", "when", (e) => at(e.at)], ["Job", "id", (e) => jobLink(e.queue, e.job_id)], ["What went wrong", "says", (e) => e.error || `status ${e.status}`], ["Proxy", "id", (e) => e.proxy || "direct"],
  ["Attempt", "number", (e) => `${e.attempt} of ${e.max_attempts}`], ["Delay", "number", (e) => seconds(e.delay)],
], (e) => e.at + e.queue + e.job_id + e.attempt);

// regroup adds up groups of dead letters by one of their names.
function regroup(groups, by) {
  if (!by) return groups.map((g) => ({ ...g, key: `${g.reason}, ${g.site}, ${g.queue}` }));
  const found = new Map();
  for (const g of groups) {
    const sum = found.get(g[by]) || { key: g[by], [by]: g[by], count: 0, oldest: g.oldest, newest: g.newest };
    sum.count += g.count;
    if (g.oldest < sum.oldest) sum.oldest = g.oldest;
    if (g.newest > sum.newest) sum.newest = g.newest;
    found.set(g[by], sum);
  }
  return [...found.values()].sort((a, b) => b.count - a.count);
}

// --- sites and workers: the first page comes with the stream, others are asked for

const rowsOnPage = 50;
// The API lists workers that answer; those of the stream may be silent. Pages of both would skip some.
const turned = {
  sites: { number: 0, list: null, from: 0, total: 0, show: showSites, path: "live/sites" },
  workers: { number: 0, list: null, from: 0, total: 0, show: showWorkers, path: "live/workers" },
};

// rowsText says which rows are shown; the list may have shrunk meanwhile.
const rowsText = (from, rows, total) => (rows ? `${count(from + 1)} to ${count(from + rows)} of ${count(total)}` : total ? `none of ${count(total)}` : "");

// turn shows the next page of a table, or the one before.
export async function turn(kind, by, s) {
  turned[kind].number = Math.max(0, turned[kind].number + by);
  await askRows(kind, s?.watched || "");
  if (s) showRows(kind, s);
}

async function askRows(kind, watched) {
  const p = turned[kind], mine = p.number;
  if (mine === 0) {
    p.list = null;
    return;
  }
  try {
    const answer = await acts.get(`${p.path}?limit=${rowsOnPage}&offset=${mine * rowsOnPage}${kind === "sites" ? "&worker=" + encodeURIComponent(watched) : ""}`);
    if (mine !== p.number) return;
    const last = Math.max(0, Math.ceil(answer.total / rowsOnPage) - 1);
    if (mine > last) { // the list has shrunk
      p.number = last;
      await askRows(kind, watched);
      return;
    }
    [p.list, p.from, p.total] = [answer[kind], mine * rowsOnPage, answer.total];
  } catch (e) {
    if (mine === p.number) put("outcome", `The ${kind} are not listed: ${e.message}.`, "wide note-bad");
  }
}

function showRows(kind, s) {
  const p = turned[kind];
  const total = p.list ? p.total : kind === "sites" ? s.site_count : s.worker_count;
  const from = p.list ? p.from : 0;
  const rows = p.list || s[kind];
  p.show(rows);
  put(kind + "-page", rowsText(from, rows.length, total));
  $(kind + "-back").disabled = p.number === 0;
  $(kind + "-on").disabled = from + rowsOnPage >= total;
  $("pages-" + kind).hidden = total <= rowsOnPage && p.number === 0;
}

// --- proxies: the first page comes with the stream, others are asked for

const pageSize = 20;
let page = { search: "", number: 0, total: 0, list: null };
let pending = 0;

export const proxiesOf = () => ({ search: page.search, number: page.number });

// find shows another page of proxies, or those that fit a search.
export async function find(search, pageNumber, s) {
  page = { ...page, search, number: pageNumber };
  await askProxies();
  if (s) showProxyPage(s);
}

async function askProxies() {
  const mine = ++pending;
  if (!page.search && page.number === 0) {
    page.list = null;
    return;
  }
  try {
    const answer = await acts.get(`proxies?limit=${pageSize}&offset=${page.number * pageSize}&search=${encodeURIComponent(page.search)}`);
    if (mine === pending) page = { ...page, list: answer.proxies, total: answer.total };
  } catch (e) {
    if (mine === pending) put("outcome", `The proxies are not listed: ${e.message}.`, "wide note-bad");
  }
}

export const isTurned = () => Boolean(page.search || page.number || turned.sites.number || turned.workers.number);

// rewind shows the first page of the sites: another worker's are others.
export function rewind() {
  Object.assign(turned.sites, { number: 0, list: null });
}

// refresh asks again for pages that the stream does not bring.
export async function refresh(s) {
  await Promise.all([askProxies(), askRows("sites", s?.watched || ""), askRows("workers")]);
  if (!s) return;
  showProxyPage(s);
  for (const kind of ["sites", "workers"]) showRows(kind, s);
}

function showProxyPage(s) {
  const all = Object.values(s.breakers).reduce((a, b) => a + b, 0);
  const total = page.list ? page.total : all;
  const from = page.number * pageSize;
  const rows = page.list || s.proxies;
  showProxies(rows);
  const states = Object.entries(s.breakers).filter(([, n]) => n).sort().map(([state, n]) => `${count(n)} ${words(state)}`);
  put("of-proxies", !all ? "" : `${states.join(", ")}, as ${s.worker_count > 1 ? `worker ${s.worker} alone` : s.worker} sees them; numbers of 24 hours`);
  put("proxies-page", rowsText(from, rows.length, total));
  $("proxies-back").disabled = page.number === 0;
  $("proxies-on").disabled = from + pageSize >= total;
  $("pages-proxies").hidden = total <= pageSize && !page.search && page.number === 0;
  $("no-proxies").hidden = all > 0;
}

// isCut reports whether the worker has no connection to NATS.
export const isCut = (s) => s.checks.some((c) => c.name === "nats" && !c.ok);

// whose says whose rows a table has that only the worker that answers knows, though the page is of the whole fleet.
const whose = (s, command) => (s.worker_count > 1 ? `of worker ${s.worker} only${command ? `; ${command} has those of all workers` : ""}` : "");

// ofSites says whose sites the table has, and what it lacks.
function ofSites(s) {
  const silent = s.sites_missing_count, more = silent - s.sites_missing.length;
  const missing = silent && `without ${s.sites_missing.join(", ")}${more ? ` and ${count(more)} more` : ""}, which ${silent === 1 ? "does" : "do"} not answer`;
  const rest = s.sites_known > s.site_count && `the first of at least ${count(s.sites_known)}; gofer sites show SITE finds each`;
  const only = s.watched ? `of worker ${s.watched}` : s.sites_of && whose(s, "gofer sites ls");
  return [only, missing, rest, s.sites.length ? "those that rest first; counts of the last 30 to 60 minutes" : ""].filter(Boolean).join("; ");
}

// show fills all tables from a snapshot.
export function show(s, deadBy) {
  now = Date.parse(s.at);
  cut = isCut(s);
  showQueues(s.queues);
  showRows("sites", s);
  put("of-sites", ofSites(s));
  put("of-failures", whose(s, "gofer results --failed"));
  put("of-retries", whose(s, "gofer events"));
  showProxyPage(s);
  $("dead").dataset.empty = s.dead_count === 0 ? "No dead letters." : "Not known.";
  showDead(regroup(s.dead, deadBy).slice(0, 25));
  const shown = s.dead.reduce((n, g) => n + g.count, 0);
  put("of-dead", s.dead_count === null ? (cut ? "not known without NATS" : "not counted yet") : shown < s.dead_count ? `${count(s.dead_count)}, of which the newest ${count(shown)} are grouped` : count(s.dead_count));
  showRows("workers", s);
  put("of-workers", s.worker_count > rowsOnPage ? count(s.worker_count) : "");
  showFailures(s.failures.slice(0, 10));
  showRetries(s.retries.slice(0, 10));
}

