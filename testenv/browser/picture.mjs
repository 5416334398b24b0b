// node picture.mjs URL FILE makes the picture of README.md: the page at URL in the light, in a window of 1200 by 1010 px. Its numbers are
// those of a playground with about 60 jobs a second for a minute and a half.
import { chromium } from "playwright-core";

const [url, path] = process.argv.slice(2);
// Chromium's sandbox needs a user that is not root; the page is our own.
const browser = await chromium.launch({ executablePath: process.env.BROWSER || "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1200, height: 1010 }, colorScheme: "light" });
await page.goto(url);
await page.waitForFunction(() => document.getElementById("link").textContent === "live" && document.querySelector("#chart canvas"));
await page.waitForTimeout(3000); // the tiles show a line once they have two values
await page.screenshot({ path });
await browser.close();
