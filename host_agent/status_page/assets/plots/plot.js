// One plot by uPlot: its lines, the marks of incidents, and the crosshair that all plots share.

import { html, useEffect, useRef, useState } from "/assets/vendor/preact-htm.js";
import { clock, count } from "/assets/format.js";
import { stacked } from "/assets/plots/data.js";

const HEIGHT = 170;
const MARK_WITHIN_PX = 7;
const FONT = "12px system-ui, sans-serif";
const DAY_S = 86400;

let library = null;
// Loads uPlot when the first plot is shown. Resolves when the global `uPlot` exists.
export function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "/assets/vendor/uplot.css" });
    const script = Object.assign(document.createElement("script"), { src: "/assets/vendor/uplot.js", onload: resolve, onerror: reject });
    document.head.append(style, script);
  });
  return library;
}

// `kind` is one of PLOTS (definitions.js), `history` is {times, series}, `marks` are {ts, title}, `theme` is "dark" or "light".
// `version` must change whenever the figures have changed in place.
export function Plot({ kind, history, marks, span_s, end, theme, version, rangeWords }) {
  const [hidden, setHidden] = useState(new Set());
  const box = useRef(null), plot = useRef(null), tip = useRef(null), legend = useRef(new Map());
  const series = { ...history.series, ...kind.derive?.(history.series) };
  const shown = kind.series.filter((each) => !hidden.has(each.name));
  const state = useRef({});
  state.current = { marks, range: [end - span_s, end], series, times: history.times };

  const say = (index) => { // index of the figures in the legend: under the crosshair, or the newest
    for (const each of kind.series) {
      const place = legend.current.get(each.name), column = state.current.series[each.name] || [];
      if (place) place.textContent = kind.form(index == null ? column.findLast((value) => value != null) : column[index]);
    }
  };

  useEffect(() => {
    const drawn = new uPlot(options(kind, shown, box.current, state, tip, say), columns(shown, history.times, series), box.current);
    plot.current = drawn;
    const watcher = new ResizeObserver(() => {
      const width = box.current?.clientWidth;
      if (width && width !== drawn.width) drawn.setSize({ width, height: drawn.height });
    });
    watcher.observe(box.current);
    return () => { watcher.disconnect(); drawn.destroy(); plot.current = null; };
  }, [theme, span_s, [...hidden].join()]);

  useEffect(() => {
    plot.current?.setData(columns(shown, history.times, series));
    if (plot.current?.cursor.idx == null) say(null);
  }, [version, marks.length, end]);

  const toggle = (name) => {
    const changed = new Set(hidden);
    if (!changed.delete(name)) changed.add(name);
    if (changed.size < kind.series.length) setHidden(changed);
  };
  const sentence = kind.sentence(series);
  const inWords = `${kind.title}, ${rangeWords}. ${sentence || "No figures in this time."} ${marks.length ? `${count(marks.length, "incident")} ${marks.length === 1 ? "is" : "are"} marked.` : ""}`;
  return html`<figure class="plot" aria-labelledby=${`plot-${kind.id}`}>
    <figcaption><h3 id=${`plot-${kind.id}`}>${kind.title}</h3><p class="summary faint">${sentence || "No figures in this time."}</p></figcaption>
    <div class="drawing" role="img" aria-label=${inWords} ref=${box}><div class="tip" hidden ref=${tip}></div></div>
    <ul class="legend" aria-label=${`Lines of ${kind.title}`}>
      ${kind.series.map((each) => html`<li key=${each.name}>
        <button type="button" class="key" aria-pressed=${String(!hidden.has(each.name))} onClick=${() => toggle(each.name)} title="Show or hide this line">
          <span class=${`swatch color-${each.color} ${each.look || ""}`} aria-hidden="true"></span>${each.title}
          <span class="value" ref=${(node) => { if (node) legend.current.set(each.name, node); }}></span>
        </button></li>`)}
    </ul>
  </figure>`;
}

// Returns the data in uPlot's form: times, then one column for each shown series; stacked series as sums.
function columns(shown, times, series) {
  const of = (each) => series[each.name] || times.map(() => null);
  const layers = shown.filter((each) => each.look === "stack");
  const sums = stacked(layers.map(of));
  return [times, ...shown.map((each) => (each.look === "stack" ? sums[layers.indexOf(each)] : of(each)))];
}

function options(kind, shown, node, state, tip, say) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(/^\d$/.test(name) ? `--plot-${name}` : `--${name}`).trim();
  const axis = { stroke: color("faint"), font: FONT, grid: { stroke: color("grid"), width: 1 }, ticks: { show: false } };
  const right = shown.some((each) => each.axis === "right");
  const up = (u, least, most) => [0, kind.highest ?? Math.max(kind.floor, (most ?? 0) * 1.08)];
  const stack = shown.map((each, index) => (each.look === "stack" ? index + 1 : 0)).filter(Boolean);
  return {
    width: node.clientWidth || 600,
    height: HEIGHT,
    legend: { show: false },
    cursor: { sync: { key: "vestal", scales: ["x", null] }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
    scales: { x: { range: () => state.current.range }, y: { range: up }, right: { range: up } },
    axes: [
      { ...axis, values: (u, splits) => splits.map((ts) => timeWords(ts, u.scales.x.max - u.scales.x.min)), space: 64, size: 28 },
      { ...axis, values: (u, splits) => splits.map((value) => tick(kind, value)), size: 66, gap: 6, space: 34, ...(kind.steps && { incrs: kind.steps }) },
      ...(right ? [{ ...axis, scale: "right", side: 1, values: (u, splits) => splits.map((value) => tick(kind, value)), size: 62, gap: 6, space: 34, grid: { show: false } }] : []),
    ],
    series: [{}, ...shown.map((each) => lineOf(each, color(String(each.color)), uPlot.paths))],
    bands: stack.slice(1).map((upper, index) => ({ series: [upper, stack[index]], fill: tint(color(String(shown[upper - 1].color))) })),
    hooks: {
      draw: [(u) => drawMarks(u, state.current.marks, color("mark"))],
      setCursor: [(u) => { say(u.cursor.idx); showTip(u, state.current.marks, tip.current); }],
    },
  };
}

function lineOf(each, stroke, paths) {
  const line = { stroke, width: 1.5, scale: each.axis === "right" ? "right" : "y", points: { show: () => false, filter: (u, index) => lonely(u.data[index]) }, spanGaps: false };
  if (each.look === "stack") return { ...line, width: 1, fill: tint(stroke) };
  if (each.look === "dashed") return { ...line, dash: [7, 5], width: 1.5 };
  if (each.look === "dotted") return { ...line, dash: [2, 4], width: 1.2 };
  if (each.look === "bars") return { ...line, fill: tint(stroke), paths: paths.bars({ size: [0.9, 16, 3] }), points: { show: false } };
  return line;
}

// Returns the indices of values whose neighbors are unknown, or null. They are drawn as points, since no line reaches them.
function lonely(values) {
  const found = [...values.keys()].filter((at) => values[at] != null && values[at - 1] == null && values[at + 1] == null);
  return found.length ? found : null;
}

const tick = (kind, value) => kind.form(value).replace(/\.0(?=\D|$)/, ""); // "8.0 GiB" -> "8 GiB"
const tint = (color) => `${color}38`;

function timeWords(ts, span_s) {
  const when = new Date(ts * 1000), two = (value) => String(value).padStart(2, "0");
  const midnight = when.getHours() === 0 && when.getMinutes() === 0;
  if (span_s > 2 * DAY_S || midnight) return when.toLocaleDateString("en-GB", { weekday: "short", day: "numeric" });
  return `${two(when.getHours())}:${two(when.getMinutes())}`;
}

function drawMarks(u, marks, color) {
  const { ctx, bbox } = u, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = color;
  ctx.lineWidth = ratio;
  for (const mark of marks) {
    const x = Math.round(u.valToPos(mark.ts, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.setLineDash([3 * ratio, 3 * ratio]);
    ctx.beginPath(); ctx.moveTo(x, bbox.top); ctx.lineTo(x, bbox.top + bbox.height); ctx.stroke();
    ctx.setLineDash([]);
    ctx.beginPath(); ctx.moveTo(x - 4 * ratio, bbox.top); ctx.lineTo(x + 4 * ratio, bbox.top); ctx.lineTo(x, bbox.top + 6 * ratio); ctx.fill();
  }
  ctx.restore();
}

function showTip(u, marks, tip) {
  if (!tip) return;
  const left = u.cursor.left;
  const near = left == null || left < 0 || !u.over.matches(":hover") ? [] : marks.filter((mark) => Math.abs(u.valToPos(mark.ts, "x") - left) <= MARK_WITHIN_PX);
  tip.hidden = !near.length;
  if (!near.length) return;
  tip.textContent = near.map((mark) => `${clock(mark.ts)} ${mark.title}`).join("\n");
  const x = u.over.offsetLeft + u.valToPos(near[0].ts, "x"), room = u.width - tip.offsetWidth - 4;
  tip.style.left = `${Math.max(4, Math.min(room, x + 10))}px`;
}
