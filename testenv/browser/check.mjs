// node check.mjs URL OUTDIR opens the dashboard at URL in Chromium and prints a line of JSON for each thing that it looked
// at: {"fact": "what holds", "wrong": ["why it does not", …]}. The line {"ask": "break the proxy"} asks the caller to do that. Screenshots go to OUTDIR. It ends with 0 when it could look at everything, whatever it saw.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { fleet, invaded, play } from "./fleet.mjs";
import { walk } from "./keyboard.mjs";

const [url, outDir] = process.argv.slice(2);
const { BROWSER: executablePath = "/usr/bin/chromium", BROWSER_TOKEN: token, BROWSER_VICTIM: victim } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const looks = [
  { scheme: "light", width: 1280, height: 900 }, { scheme: "light", width: 390, height: 844 },
  { scheme: "dark", width: 1280, height: 900 }, { scheme: "dark", width: 390, height: 844 },
];

const say = (line) => console.log(JSON.stringify(line));
const tell = (fact, wrong) => say({ fact, wrong });

// Chromium's sandbox needs a user that is not root; the page under test is our own.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  page.setDefaultTimeout(15_000);
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
  await page.setViewportSize({ width: 1280, height: 900 });
  tell("every control is reached by Tab, with a visible focus", await walk(page));
  tell("without the token nothing can be changed", await changeable(page));
  tell("with the token a breaker is reset by keyboard, and the focus stays near", await resetByKeyboard(page));
  await page.setViewportSize({ width: 390, height: 844 });
  await page.screenshot({ path: join(outDir, "dashboard-token-390.png"), fullPage: true });
  tell("with the token the phone's page stays in shape", [...await tooWide(page), ...await barriers(page), ...await walk(page)]);
  tell("the console stays silent and nobody else is asked", [...noise]);
  for (const look of [looks[0], looks[3]]) await lookAtFleet(look);
  tell("what strangers wrote is text, and turns no line around", await seeInvaded());
  tell("a page that is refused says why", await seeRefusal());
  tell("a worker that falls silent is said to be gone, and comes back", await seeSilence(page));
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
  page.on("requestfailed", (r) => wrong.push(`failed request: ${r.url()} ${r.failure()?.errorText}`));
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
    ...await met(page, "the worker is ready", () => document.getElementById("ready").textContent === "ready"),
    ...await met(page, "jobs have succeeded", () => parseFloat(document.getElementById("rate").textContent) > 1),
  ];
}

async function seeBreakerOpen(page) {
  const rows = (id) => [...document.querySelectorAll("#resting tr")].filter((tr) => tr.cells[0].textContent === id);
  const before = await page.evaluate(`(${rows})(${JSON.stringify(victim)}).length`);
  const wrong = before ? [`${victim} rests before it was broken`] : [];
  say({ ask: "break the proxy" });
  wrong.push(...await met(page, `${victim} is shown as open, with the time to its test`, (id) => {
    const row = [...document.querySelectorAll("#resting tr")].find((tr) => tr.cells[0].textContent === id);
    return row && row.cells[1].textContent === "open" && /^in \d+ s$/.test(row.cells[3].textContent);
  }, victim));
  const news = await page.textContent("#news");
  if (!news.includes(victim)) wrong.push(`a screen reader is told ${JSON.stringify(news)}, want ${victim} in it`);
  if (!await page.evaluate(() => window.sameDocument)) wrong.push("the page was loaded again");
  return wrong;
}

async function emptyPanels(page) {
  const wrong = [];
  for (const id of ["attempts", "queues", "worst", "failures", "retries", "hours"]) {
    wrong.push(...await met(page, `rows in #${id}`, (id) => {
      const row = document.querySelector(`#${id} tr`);
      return row && row.cells.length > 1 && row.cells[0].textContent !== "";
    }, id));
  }
  const hours = await page.locator("#hours tr").count();
  if (hours !== 24) wrong.push(`${hours} hours in the table, want 24`);
  for (const id of ["chart-now", "chart-day"]) wrong.push(...await met(page, `#${id} is drawn`, drawn, id));
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
  await page.waitForFunction((width) => document.querySelector("#chart-now canvas")?.clientWidth < width, width);
  await page.screenshot({ path: join(outDir, `dashboard-${scheme}-${width}.png`), fullPage: true });
  await page.locator("details").evaluate((details) => { details.open = true; });
  tell(`in ${scheme} at ${width} px nothing needs a sideways scroll`, await tooWide(page));
  tell(`in ${scheme} at ${width} px axe finds nothing serious`, await barriers(page));
  await page.locator("details").evaluate((details) => { details.open = false; });
}

async function lookAtFleet({ scheme, width, height }) {
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme });
  await page.addInitScript(play, fleet());
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#failures tr").length === 20);
  await page.locator("details").evaluate((details) => { details.open = true; });
  await page.screenshot({ path: join(outDir, `fleet-${scheme}-${width}.png`), fullPage: true });
  tell(`what a large fleet has more of is told in ${scheme} at ${width} px`, await leftOut(page));
  tell(`a large fleet's numbers fit in ${scheme} at ${width} px`, await tooWide(page));
  await page.close();
}

// seeInvaded looks at a page that is full of markup and of characters that cannot be seen.
async function seeInvaded() {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  await page.addInitScript(play, invaded());
  await page.goto(url);
  await page.waitForFunction(() => document.querySelectorAll("#failures tr").length === 20);
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

// leftOut looks at what the lists do not show, and at what is said when they shift.
async function leftOut(page) {
  const got = await page.evaluate(() => ({
    more: document.getElementById("more").textContent, news: document.getElementById("news").textContent, title: document.title,
    why: document.querySelector("#resting tr").cells[2].textContent, state: document.querySelector("#queues tr").cells[1].textContent,
  }));
  const good = got.more.startsWith("and 90 more") && got.news === "" && got.title.endsWith("not ready – gofer") && got.why.includes("refused") && got.state === "paused";
  return good ? [] : [`the page says ${JSON.stringify(got)}`];
}

// seeRefusal has the stream answered as by a worker that too many pages watch.
async function seeRefusal() {
  const page = await browser.newPage();
  await page.route("**/api/v1/live", (route) => route.fulfill({ status: 503, contentType: "application/json", body: '{"error":"busy","message":"too many pages are watching","details":[]}' }));
  await page.goto(url);
  const wrong = await met(page, "the reason is shown", () => document.getElementById("link").textContent.startsWith("too many pages are watching"));
  await page.close();
  return wrong;
}

// tooWide looks at the page and at the parts that scroll within it.
function tooWide(page) {
  return page.evaluate(() => [document.documentElement, ...document.querySelectorAll(".scroll")]
    .filter((box) => box.scrollWidth > box.clientWidth)
    .map((box) => `${box.getAttribute("aria-label") ?? "the page"} is ${box.scrollWidth} px wide in a room of ${box.clientWidth}`));
}

async function barriers(page) {
  await page.evaluate(axe); // the page's policy holds for its own scripts, not for the debugger's
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return violations.filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => `${v.impact} ${v.id}: ${v.help}: ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
}

async function changeable(page) {
  const n = await page.locator("#resting button:visible").count();
  return n ? [`${n} reset buttons are shown`] : [];
}

async function resetByKeyboard(page) {
  say({ ask: "mend the proxy" });
  await page.focus("#token");
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await page.focus(`#resting tr[data-key="${victim}"] button:not([hidden])`);
  await page.keyboard.press("Enter");
  const wrong = [
    ...await met(page, "the outcome is said", (id) => document.getElementById("outcome").textContent === `The breaker of ${id} was reset.`, victim),
    ...await met(page, "the row is gone", (id) => !document.querySelector(`#resting tr[data-key="${id}"]`), victim),
  ];
  if (!await page.evaluate(() => document.activeElement.contains(document.getElementById("resting")) && document.activeElement !== document.body)) {
    wrong.push("the focus is lost with the row that it was in");
  }
  if (await page.inputValue("#token")) wrong.push("the token stays in its field");
  return wrong;
}

async function seeSilence(page) {
  const link = (text) => met(page, `the link is said to be ${text}`, (text) => document.getElementById("link").textContent.startsWith(text), text);
  say({ ask: "freeze the worker" });
  const wrong = await link("no connection");
  const news = await page.textContent("#news");
  if (!news.includes("lost")) wrong.push(`a screen reader is told ${JSON.stringify(news)}`);
  const stale = await page.evaluate(() => ({ link: document.getElementById("link").textContent, title: document.title, faded: document.querySelector("main").className }));
  if (!/numbers of \d/.test(stale.link) || !/^\S+: no connection/.test(stale.title) || stale.faded !== "stale") wrong.push(`old numbers look like new ones: ${JSON.stringify(stale)}`);
  say({ ask: "wake the worker" });
  return [...wrong, ...await link("live")];
}
