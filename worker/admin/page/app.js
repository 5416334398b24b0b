"use strict";
// The page of one worker. A snapshot arrives every second and is whole, so showing one never depends on an earlier
// one; rows are kept by key only so that focus and a screen reader's place survive.

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const time = (text) => clock.format(new Date(text));
const sum = (list, field) => list.reduce((n, item) => n + item[field], 0);

// share rounds neither a few to none nor almost all to all.
function share(part, whole) {
  if (!whole) return "–";
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.05) return "< 0.1 %";
  if (percent < 100 && percent >= 99.95) return "> 99.9 %";
  return number.format(percent) + " %";
}

function seconds(s) {
  if (!s) return "–";
  return s < 1 ? Math.round(s * 1000) + " ms" : number.format(s) + " s";
}

function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; n >= 1000 && unit < units.length - 1; unit++) n /= 1000;
  return number.format(n) + " " + units[unit];
}

// printable shows what strangers wrote and cannot be seen, such as what turns a line around, as the command line does.
function printable(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (c) => {
    if (c === "\u200c" || c === "\u200d") return c; // joiners belong to the spelling of some languages
    return "\\u" + c.codePointAt(0).toString(16).padStart(4, "0");
  });
}

function put(at, text, className) {
  const node = at instanceof Node ? at : $(at);
  text = printable(text);
  if (node.textContent !== text) node.textContent = text;
  if (className !== undefined && node.className !== className) node.className = className;
}

// cell is [text or node, class].
function fill(td, [content, className]) {
  td.className = className || "";
  if (content instanceof Node) {
    if (td.firstChild !== content) td.replaceChildren(content);
  } else if (td.textContent !== printable(content)) {
    td.textContent = printable(content);
  }
}

// rows makes the body's rows those of the list; the first cell heads its row.
function rows(id, list, key, cells) {
  const body = $(id);
  const heads = [...body.parentElement.tHead.rows[0].cells].map((th) => th.textContent);
  const old = new Map([...body.children].map((tr) => [tr.dataset.key, tr]));
  const next = list.map((item) => {
    const name = key(item);
    const tr = old.get(name) || newRow(name);
    cells(item, tr).forEach((content, i) => fill(tr.children[i] || newCell(tr, heads[i]), content));
    return tr;
  });
  if (!next.length && body.dataset.empty) next.push(emptyRow(body, old.get("")));
  arrange(body, next);
}

// arrange moves no row that is in its place already. The focus follows a row that moves, and stays at the table when its
// row goes: else it would start again at the top of the page.
function arrange(body, next) {
  const held = body.contains(document.activeElement) ? document.activeElement : null;
  const stays = new Set(next);
  for (const tr of [...body.children]) if (!stays.has(tr)) tr.remove();
  next.forEach((tr, i) => {
    if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] || null);
  });
  if (held && document.activeElement !== held) (held.isConnected ? held : body.closest(".scroll")).focus();
}

// The roles say again what the elements are: a phone's layout takes that from them in some browsers.
function newRow(key) {
  const tr = document.createElement("tr");
  tr.setAttribute("role", "row");
  tr.dataset.key = key;
  return tr;
}

function newCell(tr, head) {
  const td = tr.appendChild(document.createElement("td"));
  td.setAttribute("role", "cell");
  if (head) td.dataset.head = head;
  return td;
}

function emptyRow(body, old) {
  const tr = old || newRow("");
  const td = tr.children[0] || newCell(tr);
  td.colSpan = body.parentElement.tHead.rows[0].cells.length;
  fill(td, [body.dataset.empty, "quiet"]);
  return tr;
}

// --- what a snapshot shows

let last = null;
let token = "";
let tokenNeeded = true;

function show(s) {
  last = s;
  document.title = `${printable(s.worker)}: ${s.ready ? "ready" : "not ready"} – gofer`;
  tokenNeeded = s.token_needed;
  put("worker", s.worker);
  put("version", "version " + s.version);
  put("ready", s.ready ? "ready" : "not ready", "pill " + (s.ready ? "good" : "bad"));
  showChecks(s.checks);
  showTiles(s);
  drawNow(s.seconds);
  drawDay(s.hours);
  for (const node of document.querySelectorAll(".scope")) put(node, s.scope === "cluster" ? "whole fleet" : "this worker");
  showTables(s);
  showBreakers(s);
  showControl();
}

function showChecks(checks) {
  const failing = checks.filter((c) => !c.ok).map((c) => printable(`${c.name}: ${c.detail}`));
  const list = $("checks");
  if (list.textContent !== failing.join("")) {
    list.replaceChildren(...failing.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  }
  list.hidden = !failing.length;
}

function showTiles(s) {
  const recent = s.seconds.slice(-10);
  const jobs = sum(s.seconds, "jobs");
  put("rate", recent.length ? number.format(sum(recent, "jobs") / recent.length) : "–");
  put("success", share(sum(s.seconds, "succeeded"), jobs));
  put("inflight", s.slots ? `${s.in_flight} of ${s.slots}` : String(s.in_flight));
  put("retryrate", number.format(sum(s.seconds.slice(-60), "retries")));
  const all = Object.values(s.breakers).reduce((a, b) => a + b, 0);
  put("open", `${number.format(all - (s.breakers.closed || 0))} of ${number.format(all)}`);
}

function showTables(s) {
  rows("hours", [...s.hours].reverse(), (p) => p.timestamp, (p) => [
    [hour.format(new Date(p.timestamp)), "when"], [number.format(p.total_requests), "number"], [p.total_requests ? share(p.success_rate, 1) : "–", "number"],
    [number.format(p.total_retries), "number"], [seconds(p.avg_latency), "number"], [seconds(p.p95_latency), "number"], [bytes(p.bytes), "number"], [number.format(p.circuit_breaker_opens), "number"],
  ]);
  const attempts = Object.entries(s.success_by_attempt).sort((a, b) => a[0] - b[0]);
  const total = attempts.reduce((n, [, count]) => n + count, 0);
  rows("attempts", attempts, ([n]) => n, ([n, count], tr) => [[n, "number"], [number.format(count), "number"], [meter(tr, count / total, `succeeded at attempt ${n}`)]]);
  rows("queues", s.queues, (q) => q.name, (q) => [[q.name, "id"], [q.paused ? "paused" : "open", q.paused ? "warn" : "quiet"], [number.format(q.pending), "number"], [number.format(q.ack_pending), "number"], [number.format(q.in_flight), "number"]]);
  rows("worst", s.worst, (p) => p.proxy_id, (p) => [
    [p.proxy_id, "id"], [share(p.failure_count, p.total_attempts), "number"], [number.format(p.failure_count), "number"], [number.format(p.total_attempts), "number"],
    [seconds(p.avg_latency), "number"], [bytes(p.bytes), "number"],
  ]);
  rows("failures", s.failures, (f) => f.at + f.queue + f.job_id, (f) => [
    [time(f.at), "when"], [whyFailed(f), "says bad"], [f.attempts, "number"], [`${f.queue}/${f.job_id}`, "id"],
  ]);
  rows("retries", s.retries, (e) => e.at + e.queue + e.job_id + e.attempt, (e) => [
    [time(e.at), "when"], [e.error || `status ${e.status}`, "says"], [e.proxy || "direct", "id"],
    [`${e.attempt} of ${e.max_attempts}`, "number"], [seconds(e.delay), "number"], [`${e.queue}/${e.job_id}`, "id"],
  ]);
}

const whyFailed = (f) => f.error.replaceAll("_", " ") + (f.detail ? ": " + f.detail : "");

function meter(tr, value, label) {
  const box = tr.querySelector(".meter") || newMeter();
  const [bar, text] = box.children;
  bar.value = value || 0;
  bar.setAttribute("aria-label", label);
  text.textContent = share(bar.value, 1);
  return box;
}

function newMeter() {
  const box = document.createElement("span");
  box.className = "meter";
  box.append(document.createElement("progress"), document.createElement("span"));
  return box;
}

let known = null; // what rested, to tell what changed

function showBreakers(s) {
  const counts = Object.entries(s.breakers).sort().map(([state, n]) => `${number.format(n)} ${state.replace("_", " ")}`);
  put("breakers", counts.join(", "));
  rows("resting", s.resting, (b) => b.proxy_id, (b, tr) => [
    [b.proxy_id, "id"], [b.state.replace("_", " "), b.state === "open" ? "bad" : "warn"], [sinceAndWhy(b), "says"],
    [untilTest(b, s.at), "number"], [resetButton(tr, b.proxy_id)],
  ]);
  const resting = Object.entries(s.breakers).reduce((n, [state, count]) => n + (state === "closed" ? 0 : count), 0);
  const more = resting - s.resting.length;
  $("more").hidden = more <= 0;
  put("more", more > 0 ? `and ${number.format(more)} more that are not shown; their tests come later` : "");
  const now = { states: new Map(s.resting.map((b) => [b.proxy_id, b.state])), whole: more <= 0, resting };
  if (known) tell(known, now);
  known = now;
}

function sinceAndWhy(b) {
  return [b.last_state_change ? time(b.last_state_change) : "", b.reason].filter(Boolean).join(": ") || "–";
}

// untilTest measures with the worker's clock: the reader's may be wrong.
function untilTest(b, at) {
  if (!b.next_test_time) return "now";
  const left = Math.ceil((Date.parse(b.next_test_time) - Date.parse(at)) / 1000);
  return left > 0 ? `in ${left} s` : "at the next job";
}

// tell names breakers only when all of them are listed: one that leaves a part of the list has not closed for that.
function tell(before, now) {
  if (!before.whole || !now.whole) {
    if (before.resting !== now.resting) put("news", `${number.format(now.resting)} breakers are not closed`);
    return;
  }
  const opened = [...now.states].filter(([id, state]) => state === "open" && before.states.get(id) !== "open").map(([id]) => id);
  const closed = [...before.states.keys()].filter((id) => !now.states.has(id));
  const say = [];
  if (opened.length) say.push(`Breaker opened: ${opened.slice(0, 5).join(", ")}`);
  if (closed.length) say.push(`Breaker closed: ${closed.slice(0, 5).join(", ")}`);
  if (say.length) put("news", say.join(". "));
}

// --- control

const mayChange = () => !tokenNeeded || token !== "";

function showControl() {
  $("token-form").hidden = !tokenNeeded || token !== "";
  put("control", mayChange()
    ? "Breakers can be reset in their table, for the whole fleet."
    : "This page only shows. With the admin token it can also reset breakers.");
}

function resetButton(tr, id) {
  const button = tr.querySelector("button") || document.createElement("button");
  if (button.type !== "button") {
    button.type = "button";
    button.textContent = "Reset";
    button.setAttribute("aria-label", `Reset the breaker of ${printable(id)}`);
    button.addEventListener("click", () => reset(id));
  }
  button.hidden = !mayChange();
  return button;
}

async function reset(id) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  try {
    const answer = await fetch(`api/v1/circuit-breakers/${encodeURIComponent(id)}/reset`, { method: "POST", headers });
    if (answer.ok) {
      put("outcome", `The breaker of ${id} was reset.`);
      return;
    }
    if (answer.status === 401) token = "";
    put("outcome", `The breaker of ${id} was not reset: ${(await answer.json()).message}`);
  } catch {
    put("outcome", `The breaker of ${id} was not reset: the worker did not answer.`);
  }
  showControl();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  $("token").value = "";
  if (last) show(last);
  $("control").tabIndex = -1;
  $("control").focus();
});

// --- the stream

let stream = null;
let heard = 0;
let shown = null; // when the last snapshot came
let refusal = ""; // why the worker does not let this page watch

function connect() {
  if (stream) stream.close();
  heard = Date.now();
  stream = new EventSource("api/v1/live");
  stream.onmessage = (event) => {
    heard = Date.now();
    shown = new Date();
    refusal = "";
    put("link", "live");
    $("main").classList.remove("stale");
    show(JSON.parse(event.data));
  };
  stream.onerror = () => {
    lost();
    if (stream.readyState === EventSource.CLOSED) askWhy();
  };
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
  put("ready", "unknown", "pill");
  $("main").classList.toggle("stale", shown !== null);
  document.title = `${last ? last.worker : "worker"}: ${refusal ? "refused" : "no connection"} – gofer`;
}

// A browser gives up a stream that was refused once, and does not notice one that went silent.
setInterval(() => {
  if (Date.now() - heard < 6000) return;
  lost();
  connect();
}, 2000);

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
