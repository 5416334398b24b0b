// The page: the stream of snapshots, the state line, the tiles, and the address, which holds what the viewer chose.
import { $, clock, make, number, printable, put, share } from "./dom.js";
import * as acts from "./acts.js";
import * as charts from "./charts.js";
import * as job from "./job.js";
import * as tables from "./tables.js";

let state = null; // the snapshot, put together from the events of the stream
let held = false; // the viewer wants the page to stand still
const trend = { waiting: [], dead: [] }; // what the tiles showed, since nobody keeps that

// --- the address: #worker=w1&range=1h&search=berlin&page=2&dead=site&job=default/abc

const choice = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

function choose(changes) {
  const next = new URLSearchParams();
  for (const [key, value] of Object.entries({ ...choice(), ...changes })) if (value) next.set(key, value);
  const hash = next.toString().replaceAll("%2F", "/");
  if (hash !== location.hash.slice(1)) history.replaceState(null, "", hash ? "#" + hash : location.pathname + location.search);
}

// follow does what the address says.
async function follow() {
  const c = choice();
  if ((c.worker || "") !== watched) {
    tables.rewind();
    connect();
  }
  $("group-dead").value = ["reason", "site", "queue"].includes(c.dead) ? c.dead : "";
  if ($("find-proxy") !== document.activeElement) $("find-proxy").value = c.search || "";
  for (const b of $("ranges").children) b.setAttribute("aria-pressed", String(b.dataset.range === rangeOf(c)));
  const at = Math.max(0, (parseInt(c.page, 10) || 1) - 1);
  const { search, number: pageNumber } = tables.proxiesOf();
  if ((c.search || "") !== search || at !== pageNumber) await tables.find(c.search || "", at, state);
  if (state) show();
  if (c.job) job.open(c.job);
  else job.close();
}

const rangeOf = (c) => (["2m", "1h", "24h"].includes(c.range) ? c.range : "2m");

// --- what a snapshot shows

function show() {
  const s = state;
  acts.needToken(s.token_needed);
  const healthy = !s.problems.some((p) => p.level === "bad");
  document.title = `${s.problems.length ? `${s.problems.length} to look at` : "healthy"} – gofer`;
  put("health", s.problems.length ? (healthy ? "! look at this" : "✕ not healthy") : "✓ healthy", "pill " + (s.problems.length ? (healthy ? "warn" : "bad") : "good"));
  showProblems(s);
  for (const node of document.querySelectorAll(".self")) put(node, s.worker);
  put("version", "version " + s.version);
  showWatched(s);
  showTiles(s);
  showChart(s);
  tables.show(s, $("group-dead").value);
}

function showProblems(s) {
  const list = $("problems");
  const lines = s.problems.map((p) => (p.level === "bad" ? "✕ " : "! ") + p.text);
  if (!lines.length) lines.push(s.worker_count === 1 ? "One worker, nothing to look at." : `${number.format(s.worker_count)} workers, nothing to look at.`);
  if (list.shown === lines.join("\n")) return;
  list.shown = lines.join("\n");
  list.replaceChildren(...lines.map((text, i) => make("li", text, s.problems[i]?.level || "quiet")));
}

function showWatched(s) {
  const select = $("watched");
  const names = s.workers.map((w) => w.worker);
  if (watched && !names.includes(watched)) names.unshift(watched);
  const key = names.sort().join("\n");
  if (select.shown !== key) {
    select.shown = key;
    select.replaceChildren(new Option("whole fleet", ""), ...names.map((name) => new Option(printable(name), name)));
  }
  select.value = watched;
}

const classSum = (jobs) => jobs.reduce((sum, step) => sum.map((n, i) => n + step[i]), [0, 0, 0, 0, 0]);
const total = (step) => step.reduce((a, b) => a + b, 0);

// tile shows a number, what it is of, and how to take it: "good", "warn", "bad" or nothing.
function tile(id, text, note, kind, line) {
  const box = $("tile-" + id);
  put(box.querySelector("dd"), text, kind);
  let small = box.querySelector(".of");
  if (!small) small = box.appendChild(make("dd", "", "of"));
  put(small, ({ good: "✓ ", warn: "! ", bad: "✕ " }[kind] || "") + note);
  charts.spark(box, line);
}

function showTiles(s) {
  const r = s.recent;
  const ended = classSum(r.jobs);
  const jobs = total(ended);
  const lately = classSum(r.jobs.slice(-3));
  const rate = total(lately) / (3 * r.step);
  const slots = s.slots ? `${number.format(s.in_flight)} of ${number.format(s.slots)} slots busy` : "";
  const waiting = s.queues.reduce((n, q) => n + q.queued + Object.values(q.waiting || {}).reduce((a, b) => a + b, 0), 0);
  const counted = (why) => s.queues.reduce((n, q) => n + (q.waiting?.[why] || 0), 0);
  const stuck = counted("no_proxy") + counted("site_down");
  const awaited = [counted("no_proxy") && "a proxy", counted("site_down") && "a site"].filter(Boolean).join(" or ");
  const stands = s.queues.some((q) => q.queued > 0) && s.in_flight === 0; // a job that waits for its time needs no slot yet
  tile("rate", number.format(rate), slots, rate === 0 && stands ? "warn" : "", r.jobs.map(total));
  const good = jobs ? ended[0] / jobs : 0;
  tile("success", share(ended[0], jobs), jobs ? `of ${number.format(jobs)} jobs, ${number.format(r.failed)} failed` : "no job ended", jobs < 10 ? "" : good >= 0.95 ? "good" : good >= 0.8 ? "warn" : "bad",
    r.jobs.map((step) => (total(step) ? step[0] / total(step) : null)));
  const p95 = r.total_p95;
  tile("p95", p95 ? (p95 < 1000 ? `${number.format(p95)} ms` : `${number.format(p95 / 1000)} s`) : "–", "from first attempt to end", !p95 ? "" : p95 < 10000 ? "good" : p95 < 30000 ? "warn" : "bad", r.p95.map((ms) => ms || null));
  const cut = tables.isCut(s);
  if (!cut) remember(trend.waiting, waiting);
  if (cut) tile("waiting", "–", "not known without NATS", "", trend.waiting);
  else tile("waiting", number.format(waiting), stuck ? `${number.format(stuck)} for ${awaited}` : "in all queues", stuck ? "warn" : "", trend.waiting);
  if (s.dead_count !== null) remember(trend.dead, s.dead_count);
  const newest = s.dead.map((g) => g.newest).sort().at(-1);
  const fresh = newest && Date.parse(s.at) - Date.parse(newest) < 3_600_000;
  tile("dead", s.dead_count === null ? "–" : number.format(s.dead_count), s.dead_count === null ? (cut ? "not known without NATS" : "not counted yet") : fresh ? "new ones in the last hour" : s.dead_count ? "none in the last hour" : "none kept", fresh ? "warn" : s.dead_count === 0 ? "good" : "", trend.dead);
}

function remember(list, value) {
  list.push(value);
  if (list.length > 120) list.shift();
}

function showChart(s) {
  const range = rangeOf(choice());
  const of = s.watched ? `worker ${s.watched}` : s.worker_count === 1 ? "one worker" : "whole fleet";
  if (range === "24h") {
    const hours = s.hours.map((h) => charts.classes.map((name) => h.classes[name]));
    const first = Math.max(0, Math.min(hours.findIndex((h) => total(h) > 0), hours.length - 6));
    put("of", `jobs an hour, ${s.scope === "cluster" ? "whole fleet" : "this worker"}, last 24 hours`);
    charts.show(range, { start: Date.parse(s.hours[first].timestamp) / 1000, step: 3600, jobs: hours.slice(first) }, 1, "last 24 hours");
    return;
  }
  const data = range === "1h" ? s.minutes : s.recent;
  put("of", `jobs a second, ${of}, last ${range === "1h" ? "hour" : "2 minutes"}`);
  charts.show(range, data, data.step, range === "1h" ? "last hour" : "last two minutes");
}

// --- the stream

let stream = null;
let watched = ""; // the worker that the stream is of
let heard = 0;
let shown = null; // when the last snapshot came
let refusal = ""; // why the worker does not let this page watch

function connect() {
  if (stream) stream.close();
  watched = choice().worker || "";
  heard = Date.now();
  let whole = false; // the first event of a stream has everything, the later ones what changed
  const source = stream = new EventSource("api/v1/live" + (watched ? "?worker=" + encodeURIComponent(watched) : ""));
  source.onopen = () => { whole = false; };
  source.onmessage = (event) => {
    if (source !== stream) return;
    heard = Date.now();
    shown = new Date();
    refusal = "";
    const news = JSON.parse(event.data);
    const before = state?.problems;
    state = whole ? { ...state, ...news } : news;
    whole = true;
    if ($("link").textContent !== "live") put("link", "live");
    $("main").classList.remove("stale");
    if (held) return;
    show();
    if (before) tell(before, state.problems);
  };
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) askWhy();
  };
}

// tell lets a screen reader say what has become wrong.
function tell(before, now) {
  const known = new Set(before.map((p) => p.text));
  const fresh = now.filter((p) => !known.has(p.text)).map((p) => p.text);
  if (fresh.length) put("news", fresh.join(". "));
  else if (before.length && !now.length) put("news", "Healthy again.");
}

// askWhy asks once more, for a stream does not tell its page why it was refused.
async function askWhy() {
  const stop = new AbortController();
  try {
    const answer = await fetch("api/v1/live", { signal: stop.signal });
    refusal = answer.ok ? "" : await refused(answer);
  } catch {
    refusal = "";
  }
  stop.abort();
  if ($("link").textContent !== "live") lost();
}

async function refused(answer) {
  if (answer.status === 401) return "the token is no longer taken: load the page again";
  return (await answer.json()).message;
}

function lost() {
  if ($("link").textContent === "live") put("news", "The connection to the worker is lost.");
  const age = shown ? `, numbers of ${clock.format(shown)}` : "";
  put("link", `${refusal || "no connection"}${age}, trying again`);
  put("health", "? unknown", "pill");
  $("main").classList.toggle("stale", shown !== null);
  document.title = `${refusal ? "refused" : "no connection"} – gofer`;
}

// A browser gives up a stream that was refused once, and does not notice one that went silent.
setInterval(() => {
  if (Date.now() - heard < 6000) return;
  lost();
  connect();
}, 2000);

// A page of a table that the stream does not bring is asked for every ten seconds.
setInterval(() => {
  if (!held && !document.hidden && tables.isTurned()) tables.refresh(state);
}, 10_000);

// --- what the viewer does

$("watched").addEventListener("change", () => { choose({ worker: $("watched").value }); follow(); });
$("ranges").addEventListener("click", (event) => {
  if (!event.target.dataset.range) return;
  choose({ range: event.target.dataset.range === "2m" ? "" : event.target.dataset.range });
  follow();
});
$("group-dead").addEventListener("change", () => { choose({ dead: $("group-dead").value }); follow(); });
let typing = 0;
$("find-proxy").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => { choose({ search: $("find-proxy").value.trim(), page: "" }); follow(); }, 250);
});
const turn = (by) => { choose({ page: String(tables.proxiesOf().number + 1 + by) }); follow(); };
$("proxies-back").addEventListener("click", () => turn(-1));
$("proxies-on").addEventListener("click", () => turn(1));
for (const kind of ["sites", "workers"]) {
  $(kind + "-back").addEventListener("click", () => tables.turn(kind, -1, state));
  $(kind + "-on").addEventListener("click", () => tables.turn(kind, 1, state));
}
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = $("job-id").value.trim();
  if (id) location.hash = "#" + new URLSearchParams({ ...choice(), job: id }).toString().replaceAll("%2F", "/");
});
$("hold").addEventListener("click", () => {
  held = !held;
  $("hold").setAttribute("aria-pressed", String(held));
  put("hold", held ? "Go on" : "Hold still");
  if (!held && state) show();
});
window.addEventListener("hashchange", () => {
  // A link in a table names one thing; what else was chosen stays.
  const c = choice();
  if (c.job || c.worker) choose({ ...before, ...c });
  before = choice();
  follow();
});
let before = choice();
job.setUp((name) => { choose({ job: name }); before = choice(); });
acts.setUp(() => tables.refresh(state));

// On a phone a bar at the bottom leads to each table.
for (const name of ["queues", "sites", "proxies", "dead", "workers"]) {
  const section = $("h-" + name).closest("section");
  const b = make("button", $("h-" + name).firstChild.textContent.trim().replace(" letters", ""));
  b.type = "button";
  b.addEventListener("click", () => section.scrollIntoView({ behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" }));
  $("tabs").append(b);
}

function redraw() {
  charts.again();
  if (state) showChart(state);
}

put("zone", "times in " + Intl.DateTimeFormat().resolvedOptions().timeZone);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
let width = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth !== width) {
    width = document.body.clientWidth;
    redraw();
  }
}).observe(document.body);
connect();
follow();
