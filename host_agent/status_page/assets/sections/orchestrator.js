// The orchestrator: tasks with their steps, a search, knowledge per agent, and cycles with what was skipped and why.

import { html } from "/assets/vendor/preact-htm.js";
import { get } from "/assets/api.js";
import { Button, Empty, Panel } from "/assets/widgets.js";
import { Cycles } from "/assets/sections/cycles.js";
import { Knowledge, Search } from "/assets/sections/knowledge.js";
import { Failure, listIn, useLoaded } from "/assets/sections/loaded.js";
import { Tasks } from "/assets/sections/tasks.js";

const SHOWN_CYCLES = 20;
const SHOWN_TASKS = 50;

async function loadAll() {
  const [tasks, cycles, notes, agents] = await Promise.all([
    get(`/orchestrator/tasks?limit=${SHOWN_TASKS}`),
    get(`/orchestrator/cycles?limit=${SHOWN_CYCLES}`),
    get("/orchestrator/knowledge/notes"),
    get("/orchestrator/agents").catch(() => null), // an older orchestrator has no such route
  ]);
  return {
    tasks: listIn(tasks, "tasks"), cycles: listIn(cycles, "cycles"), notes: notes?.notes ?? {},
    agents: listIn(agents, "agents"), folders: agents?.folders ?? {},
  };
}

export function Orchestrator() {
  const { value, error, reload } = useLoaded(loadAll);
  const refresh = html`<${Button} onClick=${reload}>Refresh<//>`;
  if (!value) {
    return html`<${Panel} title="Orchestrator" id="orchestrator-panel" actions=${error && refresh}>
      ${error ? html`<${Failure} error=${error} />` : html`<${Empty} text="Asking the orchestrator…" />`}
    <//>`;
  }
  return html`
    <${Tasks} tasks=${value.tasks} agents=${value.agents} reload=${reload} error=${error} refresh=${refresh} />
    <${Search} agents=${value.agents} folders=${value.folders} />
    <${Knowledge} notes=${value.notes} folders=${value.folders} />
    <${Cycles} cycles=${value.cycles} />`;
}
