// Memory, speed, requests, restarts and cache hits over an hour, a day or a week. Each incident is marked on every plot.

import { html, useEffect, useRef, useState } from "/assets/vendor/preact-htm.js";
import { get } from "/assets/api.js";
import { clock, count, title } from "/assets/format.js";
import { onLive, useConnection, useIncidents } from "/assets/live.js";
import { append, marksOf, SPANS_S, trim, withGaps } from "/assets/plots/data.js";
import { PLOTS } from "/assets/plots/definitions.js";
import { loadLibrary, Plot } from "/assets/plots/plot.js";
import { Empty, Panel } from "/assets/widgets.js";

const RANGES = [["hour", "Hour", "the last hour"], ["day", "Day", "the last day"], ["week", "Week", "the last week"]];
const RELOAD_AFTER_S = { hour: 600, day: 300, week: 900 }; // points of a day or week are means, which only the agent computes
const dark = matchMedia("(prefers-color-scheme: dark)");

export function Plots() {
  const [wanted, setWanted] = useState("hour");
  const { history, marks, range, version, error } = useHistory(wanted);
  const theme = useTheme();
  const now = Date.now() / 1000;
  const found = marksOf(marks, useIncidents(), now - SPANS_S[range]);
  const words = RANGES.find(([name]) => name === range)[2];
  const actions = html`<div class="segments" role="group" aria-label="Time that the plots show">
    ${RANGES.map(([name, text]) => html`<button type="button" key=${name} aria-pressed=${String(wanted === name)} onClick=${() => setWanted(name)}>${text}</button>`)}
  </div>`;
  return html`<${Panel} title="Figures" id="plots" actions=${actions}>
    ${error && html`<p class="error">The figures could not be loaded: ${error}</p>`}
    ${!history ? !error && html`<${Empty} text="Loading…" />`
    : !history.times.length ? html`<${Empty} text="There are no figures yet: the first ones come within a minute." />`
    : html`<div class="plots">${PLOTS.map((kind) => html`<${Plot} key=${kind.id} kind=${kind} history=${history} marks=${found} theme=${theme}
        span_s=${SPANS_S[range]} end=${Math.max(now, history.times.at(-1))} version=${version} rangeWords=${words} />`)}</div>
      <${Marks} marks=${found} words=${words} />`}
  <//>`;
}

function Marks({ marks, words }) {
  if (!marks.length) return html`<p class="faint small">No incident in ${words}.</p>`;
  return html`<details class="marks"><summary>${count(marks.length, "incident")} in ${words}, marked on each plot</summary>
    <ul>${marks.toReversed().map((mark) => html`<li key=${mark.ts}>${clock(mark.ts)} <span class="faint">${title(mark.service)}:</span> ${mark.title}</li>`)}</ul>
  </details>`;
}

// Returns the figures of the `wanted` range. Until they are loaded, these are the last ones, and `range` says of which
// range. Each sample of the stream is added to the figures of an hour, and `version` changes.
function useHistory(wanted) {
  const [shown, setShown] = useState({ history: null, marks: [], range: wanted, version: 0, error: "" });
  const held = useRef({ history: null, range: wanted });
  const { state } = useConnection();
  useEffect(() => {
    if (state !== "live") return undefined;
    let isWanted = true;
    const load = async () => {
      try {
        const [body] = await Promise.all([get(`/history?range=${wanted}`), loadLibrary()]);
        if (!isWanted) return;
        held.current = { history: withGaps(body), range: wanted };
        setShown((was) => ({ ...held.current, marks: body.marks, version: was.version + 1, error: "" }));
      } catch (error) {
        if (isWanted) setShown((was) => ({ ...was, error: error.message || "the browser could not load the plots." }));
      }
    };
    load();
    const timer = setInterval(load, RELOAD_AFTER_S[wanted] * 1000);
    const unfollow = onLive("sample", ({ time, values }) => {
      const { history, range } = held.current;
      if (range !== "hour" || !history) return;
      append(history, time, values);
      trim(history, time - SPANS_S.hour);
      setShown((was) => ({ ...was, version: was.version + 1 }));
    });
    return () => { isWanted = false; clearInterval(timer); unfollow(); };
  }, [wanted, state]);
  return shown;
}

function useTheme() {
  const [theme, setTheme] = useState(dark.matches ? "dark" : "light");
  useEffect(() => {
    const change = () => setTheme(dark.matches ? "dark" : "light");
    dark.addEventListener("change", change);
    return () => dark.removeEventListener("change", change);
  }, []);
  return theme;
}
