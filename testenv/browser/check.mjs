// node check.mjs URL OUTDIR opens the dashboard at URL in Chromium and prints a line of JSON for each thing that it looked
// at: {"fact": "what holds", "wrong": ["why it does not", …]}. The line {"ask": "break the proxy"} asks the caller to do that. Screenshots go to OUTDIR. It ends with 0 when it could look at everything, whatever it saw.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";
import * as acts from "./acts.mjs";
import { empty, fleet, invaded, play } from "./fleet.mjs";
import { walk } from "./keyboard.mjs";

const [url, outDir] = process.argv.slice(2);
const { BROWSER: executablePath = "/usr/bin/chromium", BROWSER_TOKEN: token, BROWSER_VICTIM: victim, BROWSER_FAILED: failed, BROWSER_LATER: later, BROWSER_WORKER: worker } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const looks = [
  { scheme: "light", width: 1440, height: 900 }, { scheme: "light", width: 390, height: 844 },
  { scheme: "dark", width: 1440, height: 900 }, { scheme: "dark", width: 390, height: 844 },
];

const say = (line) => console.log(JSON.stringify(line));
const tell = (fact, wrong) => say({ fact, wrong });

// Chromium's sandbox needs a user that is not root; the page under test is our own.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 }, colorScheme: "light" });
  page.setDefaultTimeout(30_000);
  const noise = listen(page);
  await page.goto(url);
  await page.evaluate(() => { window.sameDocument = true; });
  tell("the page becomes live", await missing(page));
  tell("a breaker is seen to open without a reload", await seeBreakerOpen(page));
  tell("every panel shows its numbers", await emptyPanels(page));
  for (const look of looks) await lookAt(page, look);
  for (const width of [820, 768, 320]) { // tablets, and 1280 px at 400 %
    await page.setViewportSize({ width, height: 640 });
    tell(`at ${width} px nothing needs a sideways scroll`, await tooWide(page));
  }
  await page.setViewportSize({ width: 1440, height: 900 });
  tell("every control is reached by Tab, with a visible focus", await walkStill(page));
  tell("the chart says the numbers under the pointer, and keeps its range in the address", await seeRanges(page));
  tell("the console stays silent and nobody else is asked", [...noise]); // a refused act is an error in the console
  tell("an act asks first, and a wrong token does nothing", await acts.refuse(page));
  tell("a queue is paused and resumed by keyboard", await acts.queues(page, token));
  say({ ask: "mend the proxy" });
  tell("a breaker is reset by keyboard", await acts.proxy(page, token, victim));
  tell("a proxy is found by its name", await acts.find(page));
  tell("a job's story is found, and the job replayed, by keyboard", await acts.story(page, token, failed));
  tell("a job is found by its URL, by keyboard", await acts.url(page, "http://169.254.1.1/not-allowed", "default/" + failed));
  tell("the jobs behind a number are listed, by keyboard", await acts.listed(page, later));
  tell("a job that waits is cancelled by keyboard", await acts.cancel(page, token, later));
  tell("the jobs that a list shows are cancelled by keyboard", await acts.cancelListed(page, token));
  tell("dead letters are replayed and removed by keyboard", await acts.dead(page, token));
  tell("one worker is shown alone, and the address says which", await seeOneWorker(page));
  await page.setViewportSize({ width: 390, height: 844 });
  tell("the phone's page stays in shape", [...await tooWide(page), ...await barriers(page), ...await walkStill(page)]);
  for (const look of [looks[0], looks[3]]) await lookAtFleet(look);
  for (const look of [looks[0], looks[3]]) await lookAtEmpty(look);
  tell("what strangers wrote is text, and turns no line around", await seeInvaded());
  tell("a page that is refused says why", await seeRefusal());
  tell("a worker that falls silent is said to be gone, and comes back", await seeSilence(page));
  tell("a worker is drained by keyboard", await acts.drain(page, token, worker));
} finally {
  await browser.close();
}

// listen collects what a healthy page never causes.
function listen(page) {
  const wrong = [];
  const origin = new URL(url).origin;
  page.on("console", (m) => { if (["error", "warning"].includes(m.type())) wrong.push(`console ${m.type()}: ${m.text()}`); });
  page.on("pageerror", (e) => wrong.push(`page error: ${e.message}`));
  page.on("request", (r) => {
    const to = new URL(r.url());
    if (to.origin !== origin && to.protocol !== "data:") wrong.push(`request to ${to.href}`);
  });
  page.on("requestfailed", (r) => {
    // A page that has heard nothing for a while, as on a busy machine, ends its own stream and opens another one.
    if (r.url().includes("/api/v1/live") && r.failure()?.errorText === "net::ERR_ABORTED") return;
    wrong.push(`failed request: ${r.url()} ${r.failure()?.errorText}`);
  });
  return wrong;
}

// met waits for a condition in the page and returns what is wrong: nothing, or that it never came.
async function met(page, what, condition, arg) {
  try {
    await page.waitForFunction(condition, arg);
    return [];
  } catch (e) {
    return [`${what}: ${e.message.split("\n")[0]}`];
  }
}

async function missing(page) {
  return [
    ...await met(page, "the stream is live", () => document.getElementById("link").textContent === "live"),
    ...await met(page, "a state line", () => /healthy|look/.test(document.getElementById("health").textContent)),
    ...await met(page, "jobs have succeeded", () => parseFloat(document.querySelector("#tile-rate dd").textContent) > 1),
  ];
}

async function seeBreakerOpen(page) {
  say({ ask: "break the proxy" });
  const wrong = await met(page, `${victim} is shown as open, with the reason and the time to its test`, (id) => {
    const row = document.querySelector(`#proxies tr[data-key="${id}"]`);
    return row && row.cells[1].textContent.includes("open") && row.cells[2].textContent !== "" && /^(in \d+ s|now|at the next job)$/.test(row.cells[9].textContent);
  }, victim);
  if (!await page.evaluate(() => window.sameDocument)) wrong.push("the page was loaded again");
  return wrong;
}

async function emptyPanels(page) {
  const wrong = [];
  for (const id of ["queues", "sites", "proxies", "dead", "workers", "failures", "retries"]) {
    wrong.push(...await met(page, `rows in #${id}`, (id) => {
      const row = document.querySelector(`#${id} tr`);
      return row && row.cells.length > 1 && row.cells[0].textContent !== "";
    }, id));
  }
  for (const id of ["rate", "success", "p95", "waiting", "dead"]) {
    wrong.push(...await met(page, `a number and a line in the tile ${id}`, (id) => /\d/.test(document.querySelector(`#tile-${id} dd`).textContent) && document.querySelector(`#tile-${id} path`).getAttribute("d"), id));
  }
  return [...wrong, ...await met(page, "the chart is drawn", drawn, "chart")];
}

// walkStill walks while the page stands still: else its rows come and go meanwhile.
async function walkStill(page) {
  await page.focus("#hold");
  await page.keyboard.press("Enter");
  const wrong = await walk(page);
  await page.focus("#hold");
  await page.keyboard.press("Enter");
  return wrong;
}

async function seeRanges(page) {
  const wrong = [];
  for (const [range, sentence] of [["1h", "last hour"], ["24h", "last 24 hours"], ["2m", "last 2 minutes"]]) {
    await page.locator(`#ranges [data-range="${range}"]`).focus();
    await page.keyboard.press("Enter");
    wrong.push(...await met(page, `the chart of the ${sentence}`, (text) => document.getElementById("of").textContent.includes(text), sentence), ...await met(page, "the chart is drawn", drawn, "chart"));
    if (range !== "2m") wrong.push(...await met(page, "an address with the range", (range) => location.hash.includes(`range=${range}`), range));
  }
  const before = await page.textContent("#values b");
  const box = await page.locator("#chart .u-over").boundingBox();
  await page.mouse.move(box.x + box.width * 0.9, box.y + box.height / 2);
  wrong.push(...await met(page, "the numbers under the pointer", (before) => document.querySelector("#values b").textContent !== before && /\d+:\d+:\d+/.test(document.querySelector("#values b").textContent), before));
  await page.mouse.move(0, 0);
  return wrong;
}

async function seeOneWorker(page) {
  await page.locator("#watched").selectOption(worker);
  const wrong = await met(page, "the worker's name at the chart", (name) => document.getElementById("of").textContent.includes(name), worker);
  wrong.push(...await met(page, "an address with the worker", (worker) => location.hash.includes(`worker=${worker}`), worker));
  await page.locator("#watched").selectOption("");
  return wrong;
}

// drawn tells whether a chart's canvas has a pixel that is not empty.
function drawn(id) {
  const canvas = document.querySelector(`#${id} canvas`);
  if (!canvas) return false;
  return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value);
}

async function lookAt(page, { scheme, width, height }) {
  await page.emulateMedia({ colorScheme: scheme });
  await page.setViewportSize({ width, height });
  await page.waitForFunction((width) => document.querySelector("#chart canvas")?.clientWidth < width, width);
  await page.screenshot({ path: join(outDir, `console-${scheme}-${width}.png`), fullPage: true, timeout: 120_000 });
  tell(`in ${scheme} at ${width} px nothing needs a sideways scroll`, await tooWide(page));
  tell(`in ${scheme} at ${width} px axe finds nothing serious`, await barriers(page));
}

// lookAtPlayed opens a page that gets a snapshot of ours.
async function lookAtPlayed(snapshot, { scheme, width, height }, ready) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme });
  await page.addInitScript(play, snapshot);
  await page.goto(url);
  await page.waitForFunction(ready);
  return page;
}

async function lookAtFleet(look) {
  const page = await lookAtPlayed(fleet(), look, () => document.querySelectorAll("#failures tr").length === 10);
  await page.screenshot({ path: join(outDir, `fleet-${look.scheme}-${look.width}.png`), fullPage: true, timeout: 120_000 });
  tell(`what a large fleet has more of is told in ${look.scheme} at ${look.width} px`, await leftOut(page));
  tell(`a large fleet's numbers fit in ${look.scheme} at ${look.width} px`, await tooWide(page));
  await page.close();
}

async function lookAtEmpty(look) {
  const page = await lookAtPlayed(empty(), look, () => document.getElementById("health").textContent.includes("not healthy"));
  await page.screenshot({ path: join(outDir, `empty-${look.scheme}-${look.width}.png`), fullPage: true, timeout: 120_000 });
  const help = await page.textContent("#no-proxies");
  const wrong = await page.locator("#no-proxies").isVisible() && help.includes("gofer proxies add") ? [] : ["nothing says how to add a proxy"];
  tell(`a worker without proxies says what to do in ${look.scheme} at ${look.width} px`, [...wrong, ...await tooWide(page), ...await barriers(page)]);
  await page.close();
}

// seeInvaded looks at a page that is full of markup and of characters that cannot be seen.
async function seeInvaded() {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.addInitScript(play, invaded());
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#failures tr").length === 10);
  const got = await page.evaluate(() => {
    const words = [document.title, document.body.textContent];
    for (const node of document.querySelectorAll("[aria-label]")) words.push(node.getAttribute("aria-label"));
    return {
      ran: Boolean(window.pwned), images: document.querySelectorAll("#main img").length, shown: document.body.textContent.includes("<img src=x"),
      unseen: words.flatMap((text) => text.match(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069].{0,20}/g) || []),
    };
  });
  await page.close();
  return !got.ran && got.images === 0 && got.shown && got.unseen.length === 0 ? [] : [`the page has ${JSON.stringify(got).slice(0, 500)}`];
}

// leftOut looks at what the lists do not show.
async function leftOut(page) {
  const got = await page.evaluate(() => ({
    workers: document.getElementById("of-workers").textContent, pages: document.getElementById("proxies-page").textContent, dead: document.getElementById("of-dead").textContent,
    sites: document.getElementById("of-sites").textContent, site: document.querySelector("#sites tr").cells[1].textContent,
    health: document.getElementById("health").textContent, problems: document.querySelectorAll("#problems li").length, why: document.querySelector("#proxies tr").cells[2].textContent,
    state: document.querySelector("#queues tr").cells[1].textContent, turns: ["sites", "workers"].map((kind) => document.getElementById(kind + "-page").textContent).join("; "),
  }));
  const good = /1.000/.test(got.workers) && /1 to 50 of 2.000; 1 to 50 of 1.000/.test(got.turns) && /1 to 20 of 20.000/.test(got.pages) && got.dead.includes("of which the newest") && got.health.includes("not healthy") && got.problems === 8 &&
    got.why.startsWith("cannot be reached") && got.site.includes("resting in 3 of 1") && /-9 and 2 more, which do not answer; the first of at least 10.000; gofer sites show SITE/.test(got.sites) && got.state.includes("paused");
  return good ? [] : [`the page says ${JSON.stringify(got)}`];
}

// seeRefusal has the stream answered as by a worker that too many pages watch.
async function seeRefusal() {
  const page = await browser.newPage();
  await page.route("**/api/v1/live*", (route) => route.fulfill({ status: 503, contentType: "application/json", body: '{"error":"busy","message":"too many pages are watching","details":[]}' }));
  await page.goto(url);
  const wrong = await met(page, "the reason is shown", () => document.getElementById("link").textContent.startsWith("too many pages are watching"));
  await page.close();
  return wrong;
}

// tooWide looks at the page and at every part that would have to scroll within it.
function tooWide(page) {
  return page.evaluate(() => [document.documentElement, ...document.querySelectorAll("section, table, header, nav")]
    .filter((box) => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1 && box.clientWidth > 0)
    .map((box) => `${box.id || box.getAttribute("aria-labelledby") || box.tagName} is ${box.scrollWidth} px wide in a room of ${box.clientWidth}`));
}

async function barriers(page) {
  await page.evaluate(axe); // the page's policy holds for its own scripts, not for the debugger's
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => `${v.impact} ${v.id}: ${v.help}: ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
}

async function seeSilence(page) {
  const link = (text) => met(page, `the link is said to be ${text}`, (text) => document.getElementById("link").textContent.startsWith(text), text);
  say({ ask: "freeze the worker" });
  const wrong = await link("no connection");
  await page.screenshot({ path: join(outDir, "silent.png"), fullPage: true, timeout: 120_000 });
  const news = await page.textContent("#news");
  if (!news.includes("lost")) wrong.push(`a screen reader is told ${JSON.stringify(news)}`);
  const stale = await page.evaluate(() => ({ link: document.getElementById("link").textContent, title: document.title, faded: document.querySelector("main").className }));
  if (!/numbers of \d/.test(stale.link) || !stale.title.startsWith("no connection") || stale.faded !== "stale") wrong.push(`old numbers look like new ones: ${JSON.stringify(stale)}`);
  say({ ask: "wake the worker" });
  return [...wrong, ...await link("live")];
}
