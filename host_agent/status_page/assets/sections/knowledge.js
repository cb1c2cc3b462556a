// The agents' knowledge: the contents of each folder, the notes that agents wrote in nightly runs, and a search.

import { html, useState } from "/assets/vendor/preact-htm.js";
import { post } from "/assets/api.js";
import { clock, count } from "/assets/format.js";
import { Empty, Panel } from "/assets/widgets.js";
import { Failure, listIn, textOf } from "/assets/sections/loaded.js";

const RESULTS = 8;
const SHOWN_CHARS = 300;
const WORDS = { meaning: "by meaning", words: "by words" };

export function Knowledge({ notes, folders }) {
  const names = [...new Set([...Object.keys(folders), ...Object.keys(notes)])].sort();
  return html`<${Panel} title="Knowledge" id="knowledge-panel" className="orchestrator">
    ${!names.length && html`<${Empty} text="No agent has a knowledge folder." />`}
    <ul class="plain">${names.map((name) => html`<li key=${name}>
      <h3 class="wrap">${name}</h3>
      ${folders[name] && html`<div class="faint">${count(folders[name].files, "file")}, ${count(folders[name].passages, "passage")}</div>`}
      ${notes[name]
        ? html`<p class="written">${textOf(notes[name].text)}</p>
            <div class="faint small">written by ${textOf(notes[name].model)}, ${clock(notes[name].made_at)}</div>`
        : html`<div class="faint small">No note yet; the nightly run writes one.</div>`}
    </li>`)}</ul>
  <//>`;
}

// A passage of a document; of a long one, only the beginning is shown at first.
function Passage({ text }) {
  const [isWhole, setWhole] = useState(false);
  const isLong = text.length > SHOWN_CHARS;
  return html`<div class="written faint">${isLong && !isWhole ? `${text.slice(0, SHOWN_CHARS)}…` : text}</div>
    ${isLong && html`<button class="quiet" aria-expanded=${isWhole} onClick=${() => setWhole(!isWhole)}>${isWhole ? "Less" : "More"}</button>`}`;
}

function Result({ result }) {
  const place = [result.agent, result.file, result.heading].map(textOf).filter(Boolean).join(" › ");
  const score = typeof result.score === "number" ? `score ${result.score.toFixed(2)}` : "";
  const similarity = typeof result.similarity === "number" ? `similarity ${result.similarity.toFixed(2)}` : "";
  return html`<li><div class="result-head"><strong class="wrap">${place}</strong>
      <span class="faint nowrap">${[score, similarity].filter(Boolean).join(" · ")}</span></div>
    <${Passage} text=${textOf(result.text)} /></li>`;
}

export function Search({ agents, folders }) {
  const [query, setQuery] = useState(""), [agent, setAgent] = useState("");
  const [state, setState] = useState({ found: null, error: null, isRunning: false });
  const names = [...new Set([...agents.map((each) => textOf(each.name)), ...Object.keys(folders)])].sort();
  const submit = async (event) => {
    event.preventDefault();
    if (!query.trim() || state.isRunning) return;
    setState({ ...state, error: null, isRunning: true });
    try {
      const found = await post("/orchestrator/knowledge/search", { query: query.trim(), k: RESULTS, ...(agent ? { agent } : {}) });
      setState({ found, error: null, isRunning: false });
    } catch (error) { setState({ found: null, error, isRunning: false }); }
  };
  const results = listIn(state.found, "results");
  const by = (Array.isArray(state.found?.by) ? state.found.by : []).map((each) => WORDS[each] ?? textOf(each)).join(" and ");
  return html`<${Panel} title="Search" id="search-panel" className="orchestrator">
    <form class="line-form" onSubmit=${submit} role="search">
      <label for="search-query" class="unseen">Search the agents' knowledge</label>
      <input id="search-query" type="search" value=${query} onInput=${(event) => setQuery(event.target.value)} placeholder="Search the agents' knowledge" />
      <label for="search-agent" class="unseen">Agent</label>
      <select id="search-agent" value=${agent} onChange=${(event) => setAgent(event.target.value)}>
        <option value="">all agents</option>${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select>
      <button class="strong" disabled=${!query.trim()} aria-busy=${state.isRunning}>Search</button>
    </form>
    <${Failure} error=${state.error} />
    ${state.found && html`<p class="faint">${count(results.length, "passage")}${by && `, found ${by}`}. ${textOf(state.found.note)}</p>
      <ol class="plain results">${results.map((result, index) => html`<${Result} key=${index} result=${result} />`)}</ol>`}
  <//>`;
}
