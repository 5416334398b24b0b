// Reads lines of [location, base] and writes what the URL parser of Node makes of each: the URL without its fragment, or a word
// for why gofer requests no such URL.
import { createInterface } from "node:readline";

function read(location, base) {
  let url;
  try {
    url = new URL(location, base);
  } catch {
    return "!malformed";
  }
  if (!/^https?:$/.test(url.protocol)) return "!scheme";
  if (url.username || url.password) return "!user";
  if (url.port === "0") return "!port";
  if (!url.hostname.startsWith("[") && !/^([a-z0-9_-]+\.)*[a-z0-9_-]+\.?$/.test(url.hostname)) return "!label";
  url.hash = "";
  return url.href.replace(/#$/, "");
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(read(...JSON.parse(line))));
}
