// What every part of the page is written with: numbers, times, text from outside, and tables whose rows stay the same elements, so
// that focus and a screen reader's place survive.

export const $ = (id) => document.getElementById(id);
export const number = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
export const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
export const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

// share rounds neither a few to none nor almost all to all.
export function share(part, whole) {
  if (!whole) return "–";
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.05) return "< 0.1 %";
  if (percent < 100 && percent >= 99.95) return "> 99.9 %";
  return number.format(percent) + " %";
}

export function seconds(s) {
  if (!s) return "–";
  return s < 1 ? Math.round(s * 1000) + " ms" : number.format(s) + " s";
}

// span is a length of time in its two largest units.
export function span(s) {
  s = Math.max(0, Math.round(s));
  for (const [unit, size, small, of] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (s >= size) {
      const rest = Math.floor((s % size) / of);
      return Math.floor(s / size) + " " + unit + (rest ? ` ${rest} ${small}` : "");
    }
  }
  return s + " s";
}

export function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; n >= 1000 && unit < units.length - 1; unit++) n /= 1000;
  return number.format(n) + " " + units[unit];
}

// printable shows what strangers wrote and cannot be seen, such as what turns a line around, as the command line does.
export function printable(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (c) => {
    if (c === "\u200c" || c === "\u200d") return c; // joiners belong to the spelling of some languages
    return "\\u" + c.codePointAt(0).toString(16).padStart(4, "0");
  });
}

// block is printable that keeps lines.
export const block = (text) => String(text).replaceAll("\r\n", "\n").split("\n").map((line) => line.split("\t").map(printable).join("\t")).join("\n");

export function put(at, text, className) {
  const node = at instanceof Node ? at : $(at);
  text = printable(text);
  if (node.textContent !== text) node.textContent = text;
  if (className !== undefined && node.className !== className) node.className = className;
}

// make is an element with a class and a text from outside.
export function make(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = printable(text);
  if (className) node.className = className;
  return node;
}

export function button(label, act, name) {
  const b = make("button", label, "small");
  b.type = "button";
  if (name) b.setAttribute("aria-label", printable(name));
  b.addEventListener("click", act);
  return b;
}

// at is a time in the viewer's zone, with UTC in its title.
export function at(text, long) {
  const t = new Date(text);
  const node = document.createElement("time");
  node.dateTime = node.title = text;
  const today = new Date().toDateString() === t.toDateString();
  node.textContent = (long ? full : today ? clock : dayAndClock).format(t);
  return node;
}

// fill puts content into a cell: a text, a node, or a list of both. A part that has not changed stays.
function fill(td, content, className) {
  td.className = className || "";
  const parts = Array.isArray(content) ? content : [content];
  const key = parts.map((p) => (p instanceof Node ? p.outerHTML : printable(p))).join("\u0000");
  if (td.shown === key) return;
  td.shown = key;
  td.toggleAttribute("data-none", key === "–");
  td.replaceChildren(...parts.map((p) => (p instanceof Node ? p : document.createTextNode(printable(p)))));
}

// table makes a function that shows a list. A column is [head, class, content of an item]; the first column heads its row. Buttons are
// made once for each row: a column of class "acts" gets the row and returns its buttons.
export function table(id, columns, key) {
  const body = $(id);
  $("head-" + id).replaceChildren(...columns.map(([head, className]) => {
    const th = make("th", "", className);
    th.scope = "col";
    th.setAttribute("role", "columnheader");
    th.append(className === "acts" ? make("span", head, "visually-hidden") : printable(head));
    return th;
  }));
  return (list) => {
    const old = new Map([...body.children].map((tr) => [tr.dataset.key, tr]));
    const next = list.map((item) => {
      const name = printable(key(item));
      const tr = old.get(name) || newRow(name, columns);
      tr.item = item;
      columns.forEach(([, className, content], i) => {
        if (className !== "acts") fill(tr.children[i], content(item), className);
        else arrangeActs(tr.children[i], tr, content);
      });
      return tr;
    });
    if (!next.length) next.push(emptyRow(body, old.get(""), columns));
    arrange(body, next);
  };
}

// arrangeActs shows those buttons of a row that make sense now; content returns [name, label, act] for each.
function arrangeActs(td, tr, content) {
  td.className = "acts";
  const wanted = content(tr.item);
  const have = new Map([...td.children].map((b) => [b.dataset.act, b]));
  for (const [name, b] of have) if (!wanted.some(([n]) => n === name)) b.remove();
  wanted.forEach(([name, label, act, described], i) => {
    let b = have.get(name);
    if (!b) {
      b = button(label, () => act(tr.item), described);
      b.dataset.act = name;
    }
    if (td.children[i] !== b) td.insertBefore(b, td.children[i] || null);
  });
}

// arrange moves no row that is in its place already. The focus follows a row that moves, and stays at the table when its row goes:
// else it would start again at the top of the page.
function arrange(body, next) {
  const held = body.contains(document.activeElement) ? document.activeElement : null;
  const stays = new Set(next);
  for (const tr of [...body.children]) if (!stays.has(tr)) tr.remove();
  next.forEach((tr, i) => {
    if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] || null);
  });
  if (!held || document.activeElement === held) return;
  if (held.isConnected) held.focus();
  else focusOn(body.closest("section"));
}

// focusOn gives the focus to something that is no control.
export function focusOn(node) {
  node.tabIndex = -1;
  node.focus({ preventScroll: true });
}

// The roles say again what the elements are: a phone's layout takes that from them in some browsers.
function newRow(key, columns) {
  const tr = document.createElement("tr");
  tr.setAttribute("role", "row");
  tr.dataset.key = key;
  for (const [head] of columns) {
    const td = tr.appendChild(document.createElement("td"));
    td.setAttribute("role", "cell");
    td.dataset.head = printable(head);
  }
  return tr;
}

function emptyRow(body, old, columns) {
  const tr = old || document.createElement("tr");
  tr.setAttribute("role", "row");
  tr.dataset.key = "";
  if (!tr.children.length) tr.appendChild(document.createElement("td")).setAttribute("role", "cell");
  tr.children[0].colSpan = columns.length;
  fill(tr.children[0], body.dataset.empty, "quiet");
  return tr;
}
