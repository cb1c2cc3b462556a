// Numbers and times as people read them. What is unknown (null, undefined, NaN) is a dash.

export const UNKNOWN = "–";
const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

// 1610612736 -> "1.5 GiB"
export function bytes(n) {
  if (!isKnown(n)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (Math.abs(n) >= 1000 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit === 0 || Math.abs(n) >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

// 79.3 -> "1 min 19 s", with the two largest units
export function duration(s) {
  if (!isKnown(s)) return UNKNOWN;
  if (s > 0 && s < 0.95) return `${Math.max(1, Math.round(s * 1000))} ms`;
  if (s < 9.95 && !Number.isInteger(s)) return `${s.toFixed(1)} s`;
  s = Math.max(0, Math.round(s));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => s >= size);
  if (first < 0) return "0 s";
  const shown = [];
  for (const [size, unit] of parts.slice(first, first + 2)) {
    const count = Math.floor(s / size);
    s -= count * size;
    if (count) shown.push(`${count} ${unit}`);
  }
  return shown.join(" ");
}

// An age for a text that is updated each second: in whole seconds, so that its width stays the same.
export const age = (s) => (isKnown(s) ? duration(Math.floor(Math.max(0, s))) : UNKNOWN);

// Unix seconds -> "05:23:46", with the date if it is not today
export function clock(ts) {
  if (!isKnown(ts)) return UNKNOWN;
  const when = new Date(ts * 1000);
  const two = (value) => String(value).padStart(2, "0");
  const time = `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
  if (when.toDateString() === new Date().toDateString()) return time;
  return `${when.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${time}`;
}

// 12345 -> "12,345"
export const number = (n) => (isKnown(n) ? Math.round(n).toLocaleString("en-US") : UNKNOWN);

// 12.34 -> "12.3/s"
export const rate = (n) => (isKnown(n) ? `${n >= 100 ? number(n) : n.toFixed(1)}/s` : UNKNOWN);

// 0.873 -> "87 %"
export const percent = (n) => (isKnown(n) ? `${Math.round(100 * n)} %` : UNKNOWN);

// (1, "request") -> "1 request", (2, "request") -> "2 requests"
export const count = (n, noun, plural = `${noun}s`) => `${number(n)} ${n === 1 ? noun : plural}`;

// "switched off" -> "Switched off."
export const sentence = (text) => text && text[0].toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");

// "mlx_engine" -> "Engine": the services by the names that the page shows
const TITLES = {
  agent: "Agent", mlx_server: "Gateway", mlx_engine: "Engine", ollama: "Ollama", docker: "Docker",
  orchestrator: "Orchestrator", nightly: "Nightly",
};
export const title = (service) => TITLES[service] || service;
