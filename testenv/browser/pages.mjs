// node pages.mjs URL turns the pages of the workers at URL, where 60 are known and three of them are silent. It prints lines as
// check.mjs does. The line {"ask": "let ten workers leave"} asks the caller to do that.
import { chromium } from "playwright-core";

const [url] = process.argv.slice(2);
const say = (line) => console.log(JSON.stringify(line));

const browser = await chromium.launch({ executablePath: process.env.BROWSER || "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.setDefaultTimeout(40_000);
  await page.goto(url);
  say({ fact: "no worker is skipped between two pages while some are silent", wrong: await turn(page) });
  say({ ask: "let ten workers leave" });
  say({ fact: "a page that has no rows any more gives way to the last one", wrong: await shrink(page) });
} finally {
  await browser.close();
}

// reads waits until the line below the table has a text.
async function reads(page, text) {
  try {
    await page.waitForFunction((text) => document.getElementById("workers-page").textContent === text, text);
    return [];
  } catch {
    return [`the line below the workers is ${JSON.stringify(await page.textContent("#workers-page"))}, want ${JSON.stringify(text)}`];
  }
}

function names(page) {
  return page.evaluate(() => [...document.querySelectorAll("#workers tr")].map((tr) => tr.dataset.key));
}

async function turn(page) {
  await page.waitForFunction(() => document.getElementById("workers").textContent.split("does not answer").length === 4);
  const wrong = await reads(page, "1 to 50 of 60");
  const first = await names(page);
  await page.click("#workers-on");
  wrong.push(...await reads(page, "51 to 60 of 60"));
  const all = new Set([...first, ...await names(page)]);
  if (all.size !== 60) wrong.push(`the pages have ${all.size} workers, want 60`);
  return wrong;
}

// shrink looks at the second page, which is open, until the workers fit on one.
async function shrink(page) {
  const wrong = await reads(page, "1 to 50 of 50");
  if ((await names(page)).length !== 50) wrong.push(`the page has ${(await names(page)).length} rows, want 50`);
  if (await page.locator("#pages-workers").isVisible()) wrong.push("pages can be turned, and there is only one");
  return wrong;
}
