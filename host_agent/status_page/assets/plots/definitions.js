// The definitions of the plots: their series, the format of their figures, and a sentence that describes each.

import { bytes, count, duration, number, percent, rate } from "/assets/format.js";
import { figures } from "/assets/plots/data.js";

const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const BINARY_STEPS = Array.from({ length: 44 }, (_, power) => 2 ** power); // 1 B to 8 TiB
const whole = (n) => (n == null ? "–" : Number.isInteger(n) ? number(n) : n.toFixed(1));

// A series is {name, title, color (1 to 4), form(value), axis?: "right", look?: "stack" | "dashed" | "dotted" | "bars"}.
// `floor`: the axis reaches up to this value or further, so that a plot of zeros has a scale. `steps`: allowed distances of ticks.
// `sentence(series)` returns the plot's text for screen readers; "" if nothing is known.
export const PLOTS = [
  {
    id: "memory", title: "Memory of the engine", form: bytes, floor: 2 ** 20, steps: BINARY_STEPS,
    series: [
      { name: "weights_bytes", title: "Weights", color: 1, look: "stack" },
      { name: "kv_bytes", title: "KV cache", color: 2, look: "stack" },
      { name: "prompt_cache_bytes", title: "Prompt cache", color: 3, look: "stack" },
      { name: "in_use_bytes", title: "In use (measured)", color: "text" },
      { name: "memory_limit_bytes", title: "Limit", color: "mark", look: "dashed" },
      { name: "peak_bytes", title: "Highest use", color: "faint", look: "dotted" },
    ],
    derive: (series) => {
      const use = figures(series.in_use_bytes);
      return { peak_bytes: (series.in_use_bytes || []).map((value) => (value == null ? null : use.most)) };
    },
    sentence: (series) => {
      const use = figures(series.in_use_bytes), limit = figures(series.memory_limit_bytes);
      if (!use) return "";
      return `${bytes(use.last)} in use now${limit ? ` of at most ${bytes(limit.last)}` : ""}; ${bytes(use.most)} at the highest.`;
    },
  },
  {
    id: "speed", title: "Tokens a second", form: rate, floor: 10,
    series: [
      { name: "tokens_out_per_s", title: "Out (written)", color: 1 },
      { name: "tokens_in_per_s", title: "In (read, right axis)", color: 2, axis: "right" },
    ],
    sentence: (series) => {
      const out = figures(series.tokens_out_per_s), taken = figures(series.tokens_in_per_s);
      if (!out && !taken) return "";
      if (!out?.most && !taken?.most) return "No token was read or written.";
      return `Out ${rate(out?.last)} now, ${rate(out?.most)} at most; in ${rate(taken?.last)} now, ${rate(taken?.most)} at most.`;
    },
  },
  {
    id: "first-token", title: "Time to the first token", form: duration, floor: 1,
    series: [{ name: "first_token_s", title: "Mean of the answers", color: 1 }],
    sentence: (series) => {
      const found = figures(series.first_token_s);
      return found ? `${duration(found.last)} last, ${duration(found.mean)} on average, ${duration(found.most)} at the longest.` : "";
    },
  },
  {
    id: "requests", title: "Requests", form: whole, floor: 4, steps: WHOLE_STEPS,
    series: [
      { name: "running", title: "Running", color: 4 },
      { name: "queued", title: "Queued", color: 2 },
      { name: "parked", title: "Parked (no engine)", color: 1 },
    ],
    sentence: (series) => {
      const running = figures(series.running), queued = figures(series.queued), parked = figures(series.parked);
      if (!running && !queued && !parked) return "";
      if (!running?.most && !queued?.most && !parked?.most) return "No request ran or waited.";
      return `${whole(running?.last)} running, ${whole(queued?.last)} queued, ${whole(parked?.last)} parked now; at most ${whole(queued?.most)} queued and ${whole(parked?.most)} parked.`;
    },
  },
  {
    id: "restarts", title: "Restarts", form: whole, floor: 2, steps: WHOLE_STEPS,
    series: [{ name: "restarts", title: "Restarts of all services", color: "mark", look: "bars" }],
    sentence: (series) => {
      const found = figures(series.restarts);
      return found ? (found.sum ? `${count(found.sum, "restart")} in this time.` : "No restart in this time.") : "";
    },
  },
  {
    id: "cache", title: "Prompt cache hits", form: percent, highest: 1,
    series: [{ name: "cache_hit_fraction", title: "Share of the prompts found in it", color: 3 }],
    sentence: (series) => {
      const found = figures(series.cache_hit_fraction);
      return found ? `${percent(found.last)} last, ${percent(found.mean)} on average.` : "";
    },
  },
];
