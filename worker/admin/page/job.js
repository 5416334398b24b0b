// The story of one job, in a dialog.
import { $, at, block, button, bytes, clock, make, number, put, seconds, span } from "./dom.js";
import { cancelJob, cancelJobs, get, replayJob } from "./acts.js";

let shown = ""; // the job that the dialog shows, as queue/id
let onChange = () => {};

// setUp says what to call when the dialog shows another job, or none.
export function setUp(changed) {
  onChange = changed;
  $("job-close").addEventListener("click", () => $("job").close());
  $("job").addEventListener("close", () => {
    shown = "";
    onChange("");
  });
}

const isURL = (text) => /^https?:\/\//i.test(text);

// listed is how the address names the jobs of a queue in one state; neither a queue nor an id has a colon.
const listed = /^([a-z0-9_-]{1,32}):(queued|running|delayed|retrying|no_proxy|site_down)$/;
const listLimit = 100;

function titleOf(text) {
  const list = listed.exec(text);
  if (list) return `Jobs of queue ${list[1]}: ${list[2].replaceAll("_", " ")}`;
  return isURL(text) ? `Jobs of ${text}` : `Job ${text}`;
}

// open shows a job, "queue/id" or "id", the jobs of a URL, or those of "queue:state".
export async function open(text) {
  text = text.trim();
  if (!text || text === shown) return;
  shown = text;
  put("job-name", titleOf(text));
  $("job-body").replaceChildren(make("p", "looking for it …", "quiet"));
  if (!$("job").open) $("job").showModal();
  try {
    if (isURL(text)) {
      const answer = await get("jobs?url=" + encodeURIComponent(text));
      if (shown === text) chooseOf(answer);
      return;
    }
    const list = listed.exec(text);
    if (list) {
      const answer = await get(`jobs?queue=${list[1]}&state=${list[2]}&limit=${listLimit}`);
      if (shown === text) listOf(answer, list[1], list[2]);
      return;
    }
    const found = text.includes("/") ? [text] : (await get("jobs?id=" + encodeURIComponent(text))).jobs.map((j) => `${j.queue}/${j.id}`);
    if (shown !== text) return;
    if (found.length === 1) await tell(found[0]);
    else choose(text, found);
  } catch (e) {
    if (shown === text) fail(e.message);
  }
}

export function close() {
  if ($("job").open) $("job").close();
}

function fail(message) {
  $("job-body").replaceChildren(make("p", `The job is not shown: ${message}.`), make("p", "An id without its queue is searched in every queue. Results are kept for a day, unless the fleet is set up otherwise.", "quiet"));
}

function choose(id, found) {
  if (!found.length) {
    fail(`no job ${id} is known`);
    return;
  }
  const list = found.map((name) => button(name, () => open(name)));
  $("job-body").replaceChildren(make("p", "The id is in more than one queue:"), ...list);
}

// chooseOf offers the jobs of a URL, and says how far the search for them has come.
function chooseOf(answer) {
  const far = `The search has looked at ${number.format(answer.looked)} of about ${number.format(answer.total)} jobs, results and dead letters.${answer.partial ? " There may be other jobs of this URL." : ""} A job that has ended is found by the URL where it ended, after redirects, and by its own URL only while its dead letter is kept.`;
  $("job-body").replaceChildren(make("p", answer.jobs.length ? "Jobs of this URL, the oldest first:" : "No job of this URL was found."), items(answer.jobs), make("p", far, "quiet"));
}

// listOf offers the jobs of a queue that are in one state.
function listOf(answer, queue, state) {
  const more = answer.partial || answer.jobs.length === listLimit ? `There may be more: gofer jobs ls --queue ${queue} --state ${state} --limit N lists them.` : "";
  const acts = make("p", undefined, "pages");
  const again = () => { shown = ""; open(`${queue}:${state}`); };
  if (answer.jobs.length) acts.append(button("Cancel the listed jobs", async () => { if (await cancelJobs(answer.jobs)) again(); }));
  acts.append(button("Refresh", again));
  $("job-body").replaceChildren(make("p", answer.jobs.length ? "The oldest first:" : "None now."), acts, items(answer.jobs), make("p", more, "quiet"));
}

function items(jobs) {
  const list = make("ul", undefined, "found");
  for (const j of jobs) {
    const item = make("li");
    item.append(button(`${j.queue}/${j.id}`, () => open(`${j.queue}/${j.id}`)), make("span", `${j.site ? ` ${j.site},` : ""} ${j.state.replaceAll("_", " ")} since `), at(j.since, true));
    if (j.until) item.append(make("span", ", until "), at(j.until, true));
    list.append(item);
  }
  return list;
}

async function tell(name) {
  const [queue, ...id] = name.split("/");
  const asked = shown;
  const s = await get(`jobs/${encodeURIComponent(queue)}/${encodeURIComponent(id.join("/"))}`);
  if (shown !== asked) return; // the dialog was closed meanwhile, or shows another job
  shown = name;
  onChange(name);
  put("job-name", `Job ${name}`);
  $("job-body").replaceChildren(...parts(s, name));
}

function parts(s, name) {
  const again = () => { shown = ""; open(name); };
  const acts = make("p", undefined, "pages");
  if (!s.result && s.state) acts.append(button("Cancel the job", async () => { if (await cancelJob(s)) again(); }));
  if (s.dead_letter) acts.append(button("Replay", async () => { if (await replayJob(s)) again(); }));
  acts.append(button("Refresh", again));
  const out = [state(s), acts, make("h3", "What happened"), moments(s.story)];
  if (s.result?.reasons) out.push(make("h3", "What is wrong with it"), ...s.result.reasons.map((text) => make("p", text)));
  if (s.result?.headers) out.push(make("h3", "Response headers"), headers(s.result.headers));
  if (s.result) out.push(make("h3", "Body"), ...body(s));
  return out;
}

function state(s) {
  const list = make("dl", undefined, "facts");
  const add = (name, ...content) => {
    const dd = make("dd");
    dd.append(...content);
    list.append(make("dt", name), dd);
  };
  const r = s.result;
  const good = s.state === "succeeded" && r && r.status < 400;
  add("State", make("span", (s.state || "ended, its result is no longer kept").replaceAll("_", " "), "pill " + (good ? "good" : s.state === "failed" ? "bad" : "")));
  if (r?.status) add("Status", make("span", String(r.status)));
  if (r?.error) add("Error", make("span", r.error.replaceAll("_", " ") + (r.detail ? ": " + r.detail : "")));
  if (r?.url) add("URL", make("span", r.url, "id"));
  if (r) add("Attempts", make("span", `${r.attempts}, ${seconds(r.duration)}, ${bytes(r.bytes)} received`));
  if (r?.proxy) add("Last proxy", make("span", r.proxy + (r.exit ? ` (exit ${r.exit})` : ""), "id"));
  if (s.waiting) {
    add("Waits for", make("span", s.waiting.detail || s.waiting.why.replaceAll("_", " ")));
    add("Since", at(s.waiting.since, true));
    if (s.waiting.until) add("Until", at(s.waiting.until, true), ` (in ${span((Date.parse(s.waiting.until) - Date.now()) / 1000)})`);
    if (s.waiting.site) add("Site", make("span", s.waiting.site, "id"));
    if (s.waiting.proxies?.length) add("Proxies", make("span", s.waiting.proxies.join(", "), "id"));
  }
  for (const [key, value] of Object.entries(r?.meta || {})) add(`meta ${key}`, make("span", value));
  return list;
}

function moments(story) {
  const list = make("ol", undefined, "story");
  for (const m of story) {
    const li = make("li");
    li.append(at(m.at), " ", make("span", sentence(m), m.fault || m.error ? "bad" : ""));
    list.append(li);
  }
  if (!story.length) list.append(make("li", "Nothing is known about this job any more."));
  return list;
}

// sentence says what happened.
function sentence(m) {
  const by = m.proxy ? ` via ${m.proxy}` : "";
  switch (m.what) {
    case "queued": return "queued" + (m.source === "id" ? " (as its id says)" : "");
    case "attempt": return `attempt ${m.attempt}${m.max_attempts ? ` of ${m.max_attempts}` : ""}${by}: ` +
      (m.error || (m.status ? `status ${m.status}` : "no answer")) + (m.fault ? `, fault: ${m.fault}` : "") + (m.duration ? `, ${seconds(m.duration)}` : "");
    case "wait": return (m.site ? `waits for the site ${m.site}` : "waits") + (m.until ? ` until ${clock.format(new Date(m.until))}` : "") + (m.kind === "inline" ? " in its worker" : "") + (m.overdue_since ? ", and is overdue" : "");
    case "due": return "its time has come";
    case "duplicate": return "the same id was published again; that job stored nothing";
    case "ended": return "ended" + (m.error ? `: ${m.error.replaceAll("_", " ")}` : m.status ? ` with status ${m.status}` : "") + by;
  }
  return m.what;
}

function headers(list) {
  const out = make("dl", undefined, "facts headers");
  for (const [name, values] of Object.entries(list).sort()) {
    for (const value of values) out.append(make("dt", name), make("dd", value));
  }
  return out;
}

function body(s) {
  const r = s.result;
  if (r.object) return [make("p", `It is in the object store: ${r.object}. Read it with: gofer results ${s.queue}/${s.id}`, "id")];
  if (!s.body?.bytes) return [make("p", "empty", "quiet")];
  if (!s.body.text) return [make("p", `${bytes(s.body.bytes)} that are no text. Read them with: gofer results ${s.queue}/${s.id}`)];
  const pre = document.createElement("pre");
  pre.textContent = block(s.body.text);
  return s.body.truncated ? [pre, make("p", `the first ${bytes(new TextEncoder().encode(s.body.text).length)} of ${bytes(s.body.bytes)}`, "quiet")] : [pre];
}
