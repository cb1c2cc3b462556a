// The orchestrator's tasks: a form for a new one, the list of the newest, and one opened task with its steps.

import { html, useEffect, useRef, useState } from "/assets/vendor/preact-htm.js";
import { del, get, post } from "/assets/api.js";
import { clock, duration } from "/assets/format.js";
import { Button, Empty, Panel, State } from "/assets/widgets.js";
import { Failure, listIn, textOf } from "/assets/sections/loaded.js";

const POLL_EACH_MS = 2000;
const FINISHED = ["done", "failed", "cancelled"];
const isFinished = (task) => FINISHED.includes(task?.state);
const pathOf = (id) => `/orchestrator/tasks/${encodeURIComponent(id)}`;

function NewTask({ agents, onCreated }) {
  const [goal, setGoal] = useState(""), [chosen, setChosen] = useState([]), [error, setError] = useState(null);
  const [isSending, setSending] = useState(false), field = useRef(null);
  const toggle = (name) => setChosen(chosen.includes(name) ? chosen.filter((each) => each !== name) : [...chosen, name]);
  const submit = async (event) => {
    event.preventDefault();
    if (isSending || !goal.trim()) return;
    setSending(true);
    try {
      const { id } = await post("/orchestrator/tasks", { goal: goal.trim(), ...(chosen.length ? { agents: chosen } : {}) });
      setGoal("");
      setError(null);
      field.current.focus();
      onCreated(id);
    } catch (problem) { setError(problem); }
    setSending(false);
  };
  return html`<form class="composer" onSubmit=${submit}>
    <label for="task-goal">New task</label>
    <textarea id="task-goal" ref=${field} rows="2" value=${goal} onInput=${(event) => setGoal(event.target.value)}
      placeholder="What the agents should find out or write"></textarea>
    <div class="composer-acts">
      <button class="strong" disabled=${!goal.trim()} aria-busy=${isSending}>Start it</button>
      ${agents.length > 1 && html`<fieldset class="choices"><legend class="unseen">Agents; none chosen: the lead chooses</legend>
        ${agents.map((agent) => html`<label key=${agent.name} class="choice wrap"><input type="checkbox"
          checked=${chosen.includes(agent.name)} onChange=${() => toggle(agent.name)} />${textOf(agent.name)}</label>`)}
        <span class="faint small">${chosen.length ? "" : "The lead chooses."}</span></fieldset>`}
    </div>
    <${Failure} error=${error} />
  </form>`;
}

function Step({ step }) {
  const took_s = step.finished_at && step.started_at ? step.finished_at - step.started_at : null;
  return html`<li><${State} name=${textOf(step.state)} /> <strong class="wrap">${textOf(step.name)}</strong>
    ${took_s !== null && html` <span class="faint">${duration(took_s)}</span>`}
    ${step.detail && html` <span class="faint wrap">${textOf(step.detail)}</span>`}</li>`;
}

function Sources({ sources }) {
  return html`<h4>Sources</h4><ul>${sources.map((source, index) => html`<li key=${index} class="wrap">
    ${textOf(source.agent)}: ${textOf(source.file)}${source.heading ? ` › ${textOf(source.heading)}` : ""}
    ${typeof source.score === "number" && html` <span class="faint">score ${source.score.toFixed(2)}</span>`}</li>`)}</ul>`;
}

function AnswerOf({ answer }) {
  return html`<details><summary class="wrap">${textOf(answer.agent)}${answer.goal ? `: ${textOf(answer.goal)}` : ""}</summary>
    <div class=${`written ${answer.error ? "error" : ""}`}>${textOf(answer.error ?? answer.answer)}</div></details>`;
}

// Returns {task, error}: the whole task with this id, requested every two seconds until it is finished. Without an
// id, `task` is null. `onFinished` is called when a running task has finished.
function useFollowed(id, onFinished) {
  const [state, setState] = useState({ task: null, error: null });
  useEffect(() => {
    if (!id) return undefined;
    let timer = null, isShown = true, wasRunning = false;
    const look = async () => {
      let found = null, error = null;
      try { found = await get(pathOf(id)); } catch (problem) { error = problem; }
      if (!isShown) return;
      setState((was) => ({ task: found ?? was.task, error }));
      if (isFinished(found)) return wasRunning && onFinished();
      wasRunning = true;
      timer = setTimeout(look, POLL_EACH_MS);
    };
    look();
    return () => {
      isShown = false;
      clearTimeout(timer);
      setState({ task: null, error: null });
    };
  }, [id]);
  return state;
}

function Details({ task, error }) {
  if (!task) return error ? html`<${Failure} error=${error} />` : html`<${Empty} text="Asking the orchestrator…" />`;
  const steps = listIn(task, "steps"), answers = listIn(task, "answers"), sources = listIn(task, "sources");
  const notes = Array.isArray(task.notes) ? task.notes : [];
  return html`<p class="written">${textOf(task.goal)}</p>
    ${steps.length > 0 && html`<h4>Steps</h4><ol class="steps">${steps.map((step, index) => html`<${Step} key=${index} step=${step} />`)}</ol>`}
    ${!steps.length && !isFinished(task) && html`<${Empty} text="It has begun no step yet." />`}
    ${task.answer && html`<h4>Answer</h4><div class="written">${textOf(task.answer)}</div>`}
    ${answers.length > 1 && html`<h4>Each agent's answer</h4>${answers.map((each, index) => html`<${AnswerOf} key=${index} answer=${each} />`)}`}
    ${sources.length > 0 && html`<${Sources} sources=${sources} />`}
    ${notes.map((note, index) => html`<p key=${index} class="faint">${textOf(note)}</p>`)}
    ${task.error && html`<p class="error">${textOf(task.error)}</p>`}
    <${Failure} error=${error} />`;
}

// `listed` is the task's entry in the list; while the task is opened, its newest state is shown instead.
function Task({ listed, isOpen, onToggle, reload }) {
  const followed = useFollowed(isOpen ? listed.id : null, reload);
  const task = followed.task ?? listed;
  const agents = Array.isArray(task.agents) ? task.agents.map(textOf).join(", ") : "";
  const goal = textOf(task.goal) || "(no goal)";
  const took_s = task.finished_at && task.started_at ? task.finished_at - task.started_at : null;
  return html`<li class="task">
    <div class="task-head">
      <button class="disclosure" aria-expanded=${isOpen} onClick=${onToggle}><span class="clipped">${goal}</span></button>
      <${State} name=${textOf(task.state) || "unknown"} />
      ${!isFinished(task) && html`<${Button} label=${`Cancel the task: ${goal.slice(0, 60)}`} confirm="Cancel it?"
        onClick=${async () => { await del(pathOf(task.id)); await reload(); }}>Cancel<//>`}
    </div>
    <div class="faint small">${[agents, clock(task.created_at), took_s === null ? "" : `took ${duration(took_s)}`].filter(Boolean).join(" · ")}</div>
    ${isOpen && html`<div class="task-details"><${Details} ...${followed} /></div>`}
  </li>`;
}

export function Tasks({ tasks, agents, reload, error, refresh }) {
  const [openId, setOpenId] = useState(null);
  const onCreated = (id) => { setOpenId(id); reload(); };
  return html`<${Panel} title="Tasks" id="tasks-panel" className="orchestrator" actions=${refresh}>
    <${Failure} error=${error} />
    <${NewTask} agents=${agents} onCreated=${onCreated} />
    ${tasks.length > 0
      ? html`<ul class="tasks">${tasks.map((task) => html`<${Task} key=${task.id} listed=${task} isOpen=${task.id === openId}
          onToggle=${() => setOpenId(task.id === openId ? null : task.id)} reload=${reload} />`)}</ul>`
      : html`<${Empty} text="No task yet." />`}
  <//>`;
}
