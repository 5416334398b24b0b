// The chart of throughput and the small lines in the tiles.
import { $, clock, minute, number, put } from "./dom.js";

/* global uPlot */

const compact = new Intl.NumberFormat(undefined, { notation: "compact" });
export const classes = ["2xx", "3xx", "4xx", "5xx", "none"];
let chart = null;
let drawn = ""; // the range that the chart shows

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// stackOf is one series for each class, drawn from the back: what is seen of the first one is its own part.
function stackOf(jobs) {
  return classes.map((_, first) => jobs.map((step) => step.slice(first).reduce((a, b) => a + b, 0)));
}

// show draws the jobs of each step, by class. Data is {start, step, jobs}, jobs being a list for each step; per is how many seconds a
// value counts for.
export function show(range, data, per, ends) {
  const box = $("chart");
  if (!box.clientWidth) return;
  const times = data.jobs.map((_, i) => data.start + i * data.step);
  const stack = stackOf(data.jobs).map((list) => list.map((n) => n / per));
  box.data = { ...data, per, ends };
  describe(box, data, ends);
  if (chart && drawn === range) {
    chart.setData([times, ...stack]);
    return;
  }
  if (chart) chart.destroy();
  drawn = range;
  chart = new uPlot(options(box, data.step), [times, ...stack], box);
}

function options(box, step) {
  const line = { stroke: colour("--grid"), width: 1 };
  const axis = { stroke: colour("--quiet"), grid: line, ticks: line };
  const format = step >= 60 ? minute : clock;
  return {
    width: box.clientWidth, height: box.clientHeight, legend: { show: false }, cursor: { drag: { x: false, y: false }, points: { show: false } },
    hooks: { setCursor: [(u) => values(box.data, u.cursor.idx)] },
    scales: { x: { range: (_, low, high) => [low - step / 2, high + step / 2] }, y: { range: (_, __, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [
      { ...axis, size: 32, space: step >= 60 ? 60 : 90, values: (_, list) => list.map((v) => format.format(new Date(v * 1000))) },
      { ...axis, size: 52, values: (_, list) => list.map((v) => compact.format(v)) },
    ],
    series: [{}, ...classes.map((name) => ({
      label: name, stroke: colour("--class-" + name), fill: colour("--class-" + name), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.86, 40], gap: 1 }),
    }))],
  };
}

// describe says in words what the chart shows.
function describe(box, data, ends) {
  const total = classes.map((_, i) => data.jobs.reduce((n, step) => n + step[i], 0));
  box.setAttribute("aria-label", `Throughput, ${ends}: ` + classes.map((name, i) => `${number.format(total[i])} ${name === "none" ? "without a status" : name}`).join(", "));
  if (!chart || chart.cursor.idx === null || chart.cursor.idx === undefined || chart.cursor.left < 0) values(data, null);
}

// values shows the numbers under the pointer, or the sums.
function values(data, i) {
  if (!data) return;
  const pointed = i !== null && i !== undefined && data.jobs[i];
  const jobs = pointed ? data.jobs[i] : classes.map((_, c) => data.jobs.reduce((n, step) => n + step[c], 0));
  const length = pointed ? data.step : data.step * data.jobs.length;
  const from = pointed ? new Date((data.start + i * data.step) * 1000) : null;
  const total = jobs.reduce((a, b) => a + b, 0);
  const box = $("values");
  const key = JSON.stringify([jobs, i]);
  if (box.key === key) return;
  box.key = key;
  const parts = classes.map((name, c) => {
    const span = document.createElement("span");
    const mark = span.appendChild(document.createElement("i"));
    mark.className = "mark class-" + name;
    span.append(`${name === "none" ? "no status" : name} ${number.format(jobs[c])}`);
    return span;
  });
  const head = document.createElement("b");
  put(head, pointed ? `${(data.step >= 60 ? minute : clock).format(from)}, ${number.format(total)} jobs, ${number.format(total / length)}/s` : `${number.format(total)} jobs, ${number.format(total / length)}/s`);
  head.title = pointed ? from.toISOString() : "";
  box.replaceChildren(head, ...parts);
}

// again draws with other colours or another width.
export function again() {
  if (chart) chart.destroy();
  chart = null;
  drawn = "";
}

const svg = "http://www.w3.org/2000/svg";

// spark draws a small line; a value that is null is left out.
export function spark(tile, list) {
  let picture = tile.querySelector("svg");
  if (!picture) {
    picture = tile.appendChild(document.createElementNS(svg, "svg"));
    picture.setAttribute("viewBox", "0 0 100 24");
    picture.setAttribute("preserveAspectRatio", "none");
    picture.setAttribute("aria-hidden", "true");
    picture.appendChild(document.createElementNS(svg, "path"));
  }
  const most = Math.max(...list.filter((n) => n !== null), 0) || 1;
  let pen = "M";
  let path = "";
  list.forEach((n, i) => {
    if (n === null) {
      pen = "M";
      return;
    }
    path += `${pen}${((100 * i) / Math.max(list.length - 1, 1)).toFixed(1)} ${(22 - (20 * n) / most).toFixed(1)}`;
    pen = "L";
  });
  const line = picture.firstChild;
  if (line.getAttribute("d") !== path) line.setAttribute("d", path);
}

