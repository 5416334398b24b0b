"use strict";
// The two charts. What they are written with, such as number and sum, is in app.js.

const compact = new Intl.NumberFormat(undefined, { notation: "compact" });
const charts = {};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function axis(more) {
  const line = { stroke: colour("--grid"), width: 1 };
  return { stroke: colour("--quiet"), grid: line, ticks: line, ...more };
}

// whole are the steps of an axis that counts: there is no half job.
const whole = Array.from({ length: 13 }, (_, n) => [1, 2, 5].map((step) => step * 10 ** n)).flat();

// draw shows data in a box; margin is how many seconds of room it has at both ends.
function draw(id, format, margin, series, data) {
  const box = $(id);
  if (charts[id]) {
    charts[id].setData(data);
    return;
  }
  if (!box.clientWidth) return;
  const times = (_, values) => values.map((v) => format.format(new Date(v * 1000)));
  const counts = (_, values) => values.map((v) => compact.format(v));
  const options = {
    width: box.clientWidth, height: box.clientHeight - 34, cursor: { drag: { x: false, y: false } }, legend: { live: false },
    axes: [axis({ values: times, space: 80 }), axis({ values: counts, incrs: whole, size: 52 })], series: [{}, ...series],
    scales: { x: { range: (_, low, high) => [low - margin, high + margin] }, y: { range: (_, low, high) => [0, Math.max(high, 1) * 1.1] } },
  };
  charts[id] = new uPlot(options, data, box);
}

function redraw() {
  for (const id of Object.keys(charts)) {
    charts[id].destroy();
    delete charts[id];
  }
  if (last) show(last);
}

function drawNow(list) {
  const at = list.map((s) => Date.parse(s.at) / 1000);
  const bad = list.map((s) => s.jobs - s.succeeded);
  const series = [
    { label: "succeeded", stroke: colour("--good"), width: 2, points: { show: false } },
    { label: "not succeeded", stroke: colour("--bad"), width: 2, dash: [6, 4], points: { show: false } },
  ];
  draw("chart-now", clock, 0, series, [at, list.map((s) => s.succeeded), bad]);
  $("chart-now").setAttribute("aria-label",
    `Last two minutes: ${number.format(sum(list, "succeeded"))} jobs succeeded, ${number.format(bad.reduce((a, b) => a + b, 0))} did not`);
}

// The bars stand behind one another: the whole hour first, then what did not succeed, so that what is seen of the first
// is what succeeded. An hour with nothing has no bar, not one of no height.
function drawDay(list) {
  const at = list.map((p) => Date.parse(p.timestamp) / 1000);
  const bad = list.map((p) => Math.round(p.total_requests * (1 - p.success_rate)));
  const bars = uPlot.paths.bars({ size: [0.7, 40] });
  const series = [
    { label: "succeeded", stroke: colour("--good"), fill: colour("--good"), paths: bars, points: { show: false } },
    { label: "not succeeded", stroke: colour("--bad"), fill: colour("--bad"), paths: bars, points: { show: false } },
  ];
  draw("chart-day", hour, 1800, series, [at, list.map((p) => p.total_requests || null), bad.map((n) => n || null)]);
  const total = sum(list, "total_requests");
  $("chart-day").setAttribute("aria-label",
    `Last 24 hours: ${number.format(total)} jobs, ${number.format(bad.reduce((a, b) => a + b, 0))} did not succeed, ${number.format(sum(list, "total_retries"))} retries`);
}
