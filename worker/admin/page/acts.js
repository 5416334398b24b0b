// What the page changes: each act asks once, sends the token where the worker wants one, and says what came of it.
import { $, focusOn, number, put } from "./dom.js";

let token = "";
let tokenNeeded = true;
let after = () => {}; // what to do when something was changed

export function setUp(changed) {
  after = changed;
}

export function needToken(needed) {
  tokenNeeded = needed;
}

// get reads a path of the API. Its errors are sentences.
export async function get(path) {
  let answer;
  try {
    answer = await fetch("api/v1/" + path);
  } catch {
    throw new Error("the worker did not answer");
  }
  return read(answer);
}

async function read(answer) {
  if (answer.ok) return answer.json();
  let message = `the worker answered ${answer.status}`;
  try {
    message = (await answer.json()).message;
  } catch { /* the number has to do */ }
  throw Object.assign(new Error(message), { status: answer.status });
}

async function send(method, path, body) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch("api/v1/" + path, { method, headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("the worker did not answer");
  }
  if (answer.status === 401) token = "";
  return read(answer);
}

// act asks what, explains why, and sends the request, or what run sends in its place. done makes the sentence that tells what came
// of it.
export async function act({ what, why, yes, method = "POST", path, body, run = () => send(method, path, body), done }) {
  const from = document.activeElement;
  const agreed = await ask(what, why, yes);
  let said = "";
  if (agreed) {
    try {
      said = done(await run());
      put("outcome", said, "wide note-good");
    } catch (e) {
      put("outcome", `Not done: ${e.message}. (${what})`, "wide note-bad");
    }
    after();
  }
  if (from && from.isConnected && from.checkVisibility()) from.focus();
  else if (!document.querySelector("dialog[open]")) focusOn($("outcome"));
  return said !== "";
}

// ask opens the dialog, and reports whether the person agreed.
function ask(what, why, yes) {
  const dialog = $("ask");
  put("ask-what", what);
  put("ask-why", why);
  put("ask-yes", yes);
  const wantsToken = tokenNeeded && token === "";
  $("ask-token-box").hidden = !wantsToken;
  return new Promise((resolve) => {
    const end = (agreed) => {
      if (agreed && wantsToken) {
        token = $("token").value.trim();
        if (!token) {
          $("token").focus();
          return;
        }
      }
      $("token").value = "";
      $("ask-form").onsubmit = $("ask-no").onclick = dialog.oncancel = null;
      dialog.close();
      resolve(agreed);
    };
    $("ask-form").onsubmit = (event) => { event.preventDefault(); end(true); };
    $("ask-no").onclick = () => end(false);
    dialog.oncancel = (event) => { event.preventDefault(); end(false); };
    dialog.showModal();
    (wantsToken ? $("token") : $("ask-no")).focus();
  });
}

const path = encodeURIComponent;

export const pause = (q) => act({
  what: `Pause queue ${q.queue}?`, why: "No worker takes its jobs until it is resumed. Running jobs continue.", yes: "Pause", path: `queues/${path(q.queue)}/pause`, done: () => `Queue ${q.queue} is paused.`,
});

export const resume = (q) => act({
  what: `Resume queue ${q.queue}?`, why: "Workers take its jobs again.", yes: "Resume", path: `queues/${path(q.queue)}/resume`, done: () => `Queue ${q.queue} is resumed.`,
});

export const resetBreaker = (p) => act({
  what: `Close the breaker of ${p.proxy_id}?`, why: "Every worker uses the proxy again at once.", yes: "Reset", path: `circuit-breakers/${path(p.proxy_id)}/reset`, done: () => `The breaker of ${p.proxy_id} is closed.`,
});

export const resetSite = (s) => act({
  what: `End the rest of ${s.site}?`, why: "Its jobs run again at once, in every worker.", yes: "End the rest", path: `sites/${path(s.site)}/reset`, done: () => `The site ${s.site} does not rest any more.`,
});

export const drain = (w) => act({
  what: `Drain worker ${w.worker}?`, why: "It finishes its jobs and ends. Nothing on this page starts it again.", yes: "Drain", path: `workers/${path(w.worker)}/drain`, done: () => `Worker ${w.worker} drains.`,
});

const letters = (n) => (n === 1 ? "1 dead letter" : `${number.format(n)} dead letters`);
const nameOf = (g) => [g.reason && `reason ${g.reason}`, g.site && `site ${g.site}`, g.queue && `queue ${g.queue}`].filter(Boolean).join(", ");
// A group without a name, such as the letters of jobs that name no site, cannot be written as a filter.
const filterOf = (g) => Object.fromEntries(Object.entries({ reason: g.reason, site: g.site, queue: g.queue }).filter(([, v]) => v));

export const replayGroup = (g) => act({
  what: `Replay ${letters(g.count)}?`, why: `Their jobs run again: ${nameOf(g)}.`, yes: "Replay", path: "dead/replay", body: filterOf(g), done: (a) => `${letters(a.count)} replayed.`,
});

export const purgeGroup = (g) => act({
  what: `Remove ${letters(g.count)} for good?`, why: `${nameOf(g)}. They cannot be brought back.`, yes: "Remove", path: "dead/purge", body: filterOf(g), done: (a) => `${letters(a.count)} removed.`,
});

const jobPath = (j) => `jobs/${path(j.queue)}/${path(j.id)}`;

export const cancelJob = (j) => act({
  what: `Cancel job ${j.queue}/${j.id}?`, why: "It ends as cancelled. A running attempt is aborted.", yes: "Cancel the job", method: "DELETE", path: jobPath(j), done: () => `Job ${j.queue}/${j.id} is cancelled.`,
});

const jobsText = (n) => (n === 1 ? "1 job" : `${number.format(n)} jobs`);

export const cancelJobs = (list) => act({
  what: `Cancel ${jobsText(list.length)}?`, why: "The listed jobs end as cancelled. Running attempts are aborted.", yes: "Cancel them", run: () => cancelEach(list), done: (n) => `${jobsText(n)} cancelled.`,
});

// cancelEach cancels one job after the other, and returns how many. A job that has ended since it was listed is passed over.
async function cancelEach(list) {
  let n = 0;
  for (const j of list) {
    try {
      await send("DELETE", jobPath(j));
      n++;
    } catch (e) {
      if (e.status !== 409 && e.status !== 404) throw new Error(`${e.message}; ${jobsText(n)} cancelled before`);
    }
  }
  return n;
}

export const replayJob = (j) => act({
  what: `Replay job ${j.queue}/${j.id}?`, why: `It runs again as replay-${j.dead_letter}, and its dead letter is removed.`, yes: "Replay", path: "dead/replay", body: { seqs: [j.dead_letter] }, done: (a) => (a.count ? `Job ${j.queue}/${j.id} runs again as replay-${j.dead_letter}.` : "The dead letter was gone already."),
});
