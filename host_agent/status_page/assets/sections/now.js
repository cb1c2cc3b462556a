// The tree of services, the machine's memory, and the last recovery pass.

import { html } from "/assets/vendor/preact-htm.js";
import { post } from "/assets/api.js";
import { age, bytes, clock, count, duration, number, percent, sentence, title } from "/assets/format.js";
import { since, useLive, useNow } from "/assets/live.js";
import { Button, Empty, Panel, State, Table } from "/assets/widgets.js";

const PURPOSES = {
  agent: "watches and restarts the others",
  mlx_server: "holds the clients' connections",
  mlx_engine: "computes the answers",
  ollama: "a second server of models",
  docker: "runs the containers",
  orchestrator: "gives tasks to the models",
  nightly: "reads all knowledge each night",
};
const WORDS = { open: "breaker open", backoff: "waiting to start" };
const ACTIONS = {
  mlx_server: ["restart", "stop", "start"], mlx_engine: ["restart"], ollama: ["restart", "stop", "start"],
  orchestrator: ["restart", "stop", "start"], nightly: ["restart", "stop", "start"],
};
const UP = ["ready", "busy", "degraded"];
const DOWN = ["stopped", "failed", "open"], GIVEN_UP = ["failed", "open"];
const HIGH = 0.85, FULL = 0.95; // fractions of memory in use at which the bar changes color

export function Now() {
  const status = useLive("status");
  const now = useNow();
  if (!status) return html`<${Panel} title="Services" id="services"><${Empty} text="Asking the agent…" /><//>`;
  return html`
    <${Services} services=${status.services} ago=${since("status")} />
    <div class="pair">
      <${Machine} host=${status.host} />
      <${Recovery} recovery=${status.recovery} ago=${since("status")} now=${now} />
    </div>`;
}

// Returns the services in the order of the tree, each with its depth. A service whose parent is missing is a root.
export function inTree(services) {
  const rows = [];
  const add = (parent, depth) => {
    for (const [name, row] of Object.entries(services)) {
      const above = row.parent in services ? row.parent : null;
      if (above !== parent || rows.some((each) => each.name === name)) continue;
      rows.push({ name, depth, ...row });
      add(name, depth + 1);
    }
  };
  add(null, 0);
  return rows;
}

function Services({ services, ago }) {
  const columns = [
    { name: "service", title: "Service", className: "name", cell: (row) => html`<${Name} row=${row} />` },
    { name: "state", title: "State", className: "status", cell: (row) => html`<${State} name=${row.state} text=${WORDS[row.state]} muted=${row.expected === false} />` },
    { name: "up", title: "Up for", number: true, className: "up", cell: (row) => (UP.includes(row.state) && row.uptime_s > 0 ? age(row.uptime_s + ago) : "") },
    { name: "restarts", title: "Restarts", number: true, className: "restarts", cell: (row) => html`<${Restarts} row=${row} />` },
    { name: "pid", title: "PID", number: true, className: "pid", cell: (row) => row.process_pid ?? "" },
    { name: "words", title: "What is known", className: "words", cell: (row) => html`<${Words} row=${row} ago=${ago} />` },
    { name: "acts", title: "Actions", hidden: true, className: "acts", cell: (row) => html`<${Acts} row=${row} />` },
  ];
  return html`<${Panel} title="Services" id="services">
    <${Table} className="tree" label="Services" columns=${columns} rows=${inTree(services)} keyOf=${(row) => row.name}
      rowClass=${(row) => `depth-${Math.min(row.depth, 3)}`} />
  <//>`;
}

function Name({ row }) {
  return html`<span class="branch">
    <span>${title(row.name)}${row.parent && html`<span class="unseen">, below ${title(row.parent)}</span>`}</span>
    <span class="purpose">${PURPOSES[row.name] || row.runs || ""}</span>
  </span>`;
}

function Restarts({ row }) {
  if (row.state === "absent") return null;
  return row.restart_count ? html`<strong>${number(row.restart_count)}</strong>` : html`<span class="faint">0</span>`;
}

function Words({ row, ago }) {
  const trial_s = row.next_trial_in_s == null ? null : Math.ceil(row.next_trial_in_s - ago);
  const failure = row.last_failure;
  return html`
    ${row.detail && html`<p>${sentence(row.detail)}</p>`}
    ${row.circuit_breaker_state !== "closed" && html`<p class=${row.circuit_breaker_state === "open" ? "bad" : "work"}>${breaker(row.circuit_breaker_state, trial_s)}</p>`}
    ${failure && html`<p class="faint small">Last failure, ${clock(failure.ts)}: ${failure.sentence}</p>`}`;
}

function breaker(state, trial_s) {
  if (state === "half_open") return "The breaker lets one trial start; if it works, all goes on.";
  if (trial_s === null) return "The breaker is open: it is not started again for now.";
  return trial_s > 0 ? `The breaker is open: the next trial is in ${duration(trial_s)}.` : "The breaker is open: the next trial is due now.";
}

// The engine starts with its gateway, unless it was given up: then it can be tried. A service behind an open breaker
// has failed so often that a try before its trial is asked for twice.
function Acts({ row }) {
  if (row.state === "absent") return null;
  const isLostEngine = row.name === "mlx_engine" && GIVEN_UP.includes(row.state);
  const tries = row.state === "open" || isLostEngine;
  const possible = isLostEngine ? ["start"]
    : (ACTIONS[row.name] || []).filter((action) => (action === "start") === DOWN.includes(row.state));
  return possible.map((action) => {
    const words = tries && action === "start" ? "try now" : action;
    return html`<${Button} key=${action} label=${`${words} ${title(row.name)}`}
      confirm=${words === "start" ? undefined : `Really ${words.split(" ")[0]}?`} onClick=${() => post(`/services/${row.name}/${action}`)}>
      ${words}<//>`;
  });
}

function Machine({ host }) {
  const memory = host.memory;
  const used = memory.total_bytes ? 1 - memory.available_bytes / memory.total_bytes : 0;
  const facts = [];
  if (host.wired_fraction != null) facts.push(`${percent(host.wired_fraction)} wired`);
  facts.push(memory.swap_total_bytes ? `${bytes(memory.swap_used_bytes)} of ${bytes(memory.swap_total_bytes)} swap used` : "no swap");
  if (host.sleep?.slept_s > 0) facts.push(`slept ${duration(host.sleep.slept_s)} since the agent started`);
  const warnings = [host.warning, host.disk?.message, host.disk?.journal].filter(Boolean);
  const width = (bar) => { if (bar) bar.style.width = `${(100 * used).toFixed(1)}%`; };
  return html`<${Panel} title="This machine" id="machine">
    <p><strong>${bytes(memory.available_bytes)}</strong> of ${bytes(memory.total_bytes)} memory available</p>
    <div class="bar" role="img" aria-label=${`${percent(used)} of the memory is in use`}>
      <div class=${used > FULL ? "bad" : used > HIGH ? "work" : ""} ref=${width}></div></div>
    ${warnings.map((text) => html`<p class="bad">${text}</p>`)}
    <p class="faint small">${facts.join(" · ")}</p>
  <//>`;
}

function Recovery({ recovery, ago }) {
  const last = recovery.last;
  const next_s = recovery.next_in_s - ago;
  const next = recovery.running ? "A pass is running." : next_s > 0 ? `The next pass is in ${age(next_s)}.` : "";
  return html`<${Panel} title="Last recovery pass" id="recovery">
    ${last ? html`<${Pass} pass=${last} />` : html`<${Empty} text="There was none yet." />`}
    <p class="faint small">${[next, recovery.passes ? `${count(recovery.passes, "pass", "passes")} since the agent started.` : ""].join(" ")}</p>
  <//>`;
}

function Pass({ pass }) {
  const result = pass.healthy ? "all services are healthy" : "not all services are healthy";
  const alone = !pass.done.length && !pass.left.length ? pass.found.map((text) => `${text} (it came back by itself)`) : [];
  return html`<p>${clock(pass.finished_at)} <span class="faint">(${pass.reason})</span>: ${result}.</p>
    ${pass.found.length === 0 ? html`<p class="faint">There was nothing to do.</p>` : html`<ul class="deeds">
      ${pass.done.map((text) => html`<li class="good">✓ ${text}</li>`)}
      ${pass.left.map((text) => html`<li class="bad">✗ not mended: ${text}</li>`)}
      ${alone.map((text) => html`<li>${text}</li>`)}
    </ul>`}`;
}
