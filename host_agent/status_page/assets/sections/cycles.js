// The orchestrator's newest cycles: the phases that each one ran, and those that it skipped, with the reason.

import { html, useState } from "/assets/vendor/preact-htm.js";
import { clock, duration } from "/assets/format.js";
import { Button, Panel, State, Table } from "/assets/widgets.js";
import { listIn, textOf } from "/assets/sections/loaded.js";

const SHOWN = 5;

function Phases({ cycle }) {
  return html`<div><ul class="phases">${listIn(cycle, "phases").map((phase) => html`<li key=${phase.phase}>
      <${State} name=${textOf(phase.state)} text=${`${textOf(phase.phase)} ${textOf(phase.state)}`} />
      <span class="faint wrap">${textOf(phase.why)}</span></li>`)}</ul>
    ${(Array.isArray(cycle.notices) ? cycle.notices : []).map((notice, index) => html`<p key=${index} class="work">${textOf(notice)}</p>`)}</div>`;
}

function stateOf(backend) {
  if (!backend.used) return ["off", "not used"];
  if (backend.absent) return ["off", "absent"];
  return backend.healthy ? ["good", "healthy"] : ["bad", "down"];
}

// The model backends, with the state that the newest cycle recorded.
function Backends({ backends }) {
  const found = Object.entries(backends ?? {}).filter(([, backend]) => backend && typeof backend === "object");
  return found.length > 0 && html`<ul class="chips">${found.map(([name, backend]) => {
    const [color, word] = stateOf(backend);
    return html`<li key=${name} class=${`chip ${color}`} title=${textOf(backend.detail)}>${name}: ${word}</li>`;
  })}</ul>`;
}

export function Cycles({ cycles }) {
  const [showsAll, setShowsAll] = useState(false);
  const columns = [
    { name: "time", title: "Finished", cell: (row) => html`<span class="nowrap">${clock(row.finished_at)}</span>` },
    { name: "trigger", title: "Trigger", cell: (row) => textOf(row.trigger) },
    { name: "took", title: "Took", number: true, cell: (row) => duration(row.duration_s) },
    { name: "phases", title: "What it did", cell: (row) => html`<${Phases} cycle=${row} />` },
  ];
  return html`<${Panel} title="Cycles" id="cycles-panel" className="cycles">
    <${Backends} backends=${cycles[0]?.backends} />
    <${Table} columns=${columns} rows=${showsAll ? cycles : cycles.slice(0, SHOWN)} label="Cycles" empty="No cycle has finished yet." />
    ${cycles.length > SHOWN && html`<p><${Button} className="quiet" onClick=${() => setShowsAll(!showsAll)}>
      ${showsAll ? "Show fewer" : `Show all ${cycles.length}`}<//></p>`}
  <//>`;
}
