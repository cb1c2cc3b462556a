// The models: shows which are installed, are loaded and fit into memory; loads, unloads, pulls and deletes them.

import { html, useRef, useState } from "/assets/vendor/preact-htm.js";
import { del, get, post } from "/assets/api.js";
import { bytes, duration, number } from "/assets/format.js";
import { Button, Empty, Panel, State, Table } from "/assets/widgets.js";
import { Failure, listIn, textOf, useLoaded } from "/assets/sections/loaded.js";
import { dismiss, pull, pulls, useOnPulled } from "/assets/sections/pulls.js";

const FIGURES_AFTER_MS = 1000; // the engine reports a loaded model's figures within this time

// Returns the installed models, each with `loaded`: its entry among the models in memory, or null. A model that was
// loaded just now has no figures yet.
async function loadModels() {
  const [tags, running, health] = await Promise.all([
    get("/gateway/api/tags"), get("/gateway/api/ps"), get("/gateway/health").catch(() => null),
  ]);
  const names = Array.isArray(health?.models?.loaded) ? health.models.loaded : [];
  const inMemory = new Map([...names.map((name) => [name, {}]), ...listIn(running, "models").map((model) => [model.name, model])]);
  const models = listIn(tags, "models").map((model) => ({ ...model, loaded: inMemory.get(model.name) ?? null }));
  return { models, memory: health?.memory ?? null };
}

function Memory({ memory }) {
  if (!memory || typeof memory.limit_bytes !== "number") return null;
  const parts = [["weights", memory.weights_bytes], ["keys and values", memory.kv_bytes], ["prompt cache", memory.prompt_cache_bytes]];
  const shown = parts.filter(([, size]) => size > 0).map(([name, size]) => `${name} ${bytes(size)}`).join(", ");
  return html`<p class="faint">${bytes(memory.in_use_bytes)} of ${bytes(memory.limit_bytes)} in use${shown && `: ${shown}`}.</p>`;
}

function Fits({ fit }) {
  if (!fit) return html`<span class="faint">not known</span>`;
  const figures = `needs ${bytes(fit.needed_bytes)} of ${bytes(fit.limit_bytes)}`;
  return html`<div><${State} name=${fit.fits ? "ok" : "failed"} text=${fit.fits ? "fits" : "too large"} />
    <div class="faint small nowrap">${figures}</div></div>`;
}

// Loading and unloading share one button, so that it keeps the keyboard focus.
function Actions({ model, reload }) {
  const name = model.name, verb = model.loaded ? "Unload" : "Load";
  const body = model.loaded ? { model: name, keep_alive: 0 } : { model: name };
  const then = async (done) => {
    await done;
    await reload();
    setTimeout(reload, FIGURES_AFTER_MS);
  };
  return html`<${Button} label=${`${verb} ${name}`} onClick=${() => then(post("/gateway/api/generate", body, { within_s: null }))}>${verb}<//>
    <${Button} label=${`Delete ${name}`} confirm=${`Delete ${bytes(model.size)}?`}
      onClick=${() => then(del("/gateway/api/delete", { model: name }))}>Delete<//>`;
}

function Installed({ models, reload }) {
  const columns = [
    { name: "name", title: "Model", cell: (row) => html`<div class="wrap"><strong>${textOf(row.name)}</strong>
      <div class="faint small">${[row.details?.parameter_size, row.details?.quantization_level].filter(Boolean).map(textOf).join(" · ")}</div></div>` },
    { name: "state", title: "In memory", cell: (row) => (row.loaded
      ? html`<div><${State} name="ok" text="loaded" /><div class="faint small">${row.loaded.size ? bytes(row.loaded.size) : ""}</div></div>`
      : html`<span class="faint">no</span>`) },
    { name: "size", title: "Size", number: true, cell: (row) => bytes(row.size) },
    { name: "context", title: "Context", number: true, cell: (row) => number(row.loaded?.context_length ?? row.details?.context_length) },
    { name: "fits", title: "Fits", cell: (row) => html`<${Fits} fit=${row.vestal} />` },
    { name: "actions", title: "Actions", hidden: true, className: "acts", cell: (row) => html`<${Actions} model=${row} reload=${reload} />` },
  ];
  return html`<${Table} columns=${columns} rows=${models} keyOf=${(row) => row.name} label="Models"
    empty="No model is installed. Pull one above." />`;
}

function Pull({ running }) {
  const { name, status, completed, total, bytesPerS, remainingS, error, ended } = running;
  const isKnown = total > 0;
  const speed = bytesPerS > 0 && !ended ? ` · ${bytes(bytesPerS)}/s · ${duration(remainingS)} left` : "";
  const figures = isKnown ? `${bytes(completed)} of ${bytes(total)}${speed}` : "";
  return html`<li>
    <div class="pull-head"><strong class="wrap">${name}</strong>
      ${ended
        ? html`<${Button} label=${`Dismiss the report on ${name}`} onClick=${() => dismiss(name)}>Dismiss<//>`
        : html`<${Button} label=${`Cancel the download of ${name}`} onClick=${() => dismiss(name)}>Cancel<//>`}</div>
    ${!ended && html`<progress aria-label=${`Download of ${name}`} max=${isKnown ? total : undefined} value=${isKnown ? completed : undefined}></progress>`}
    ${error && html`<${Failure} error=${{ message: error }} />`}
    ${!error && html`<div class="faint">${status} ${figures}</div>`}
  </li>`;
}

function Pulls() {
  const { running } = pulls.use();
  const [name, setName] = useState(""), field = useRef(null);
  const submit = (event) => {
    event.preventDefault();
    if (!name.trim()) return;
    pull(name.trim());
    setName("");
    field.current.focus();
  };
  return html`<form class="line-form" onSubmit=${submit}>
      <label for="pull-name">Pull a model</label>
      <input id="pull-name" ref=${field} value=${name} onInput=${(event) => setName(event.target.value)} autocomplete="off" spellcheck=${false}
        placeholder="qwen3.5:9b or mlx-community/Qwen3-4B-4bit" />
      <button class="strong" disabled=${!name.trim()}>Pull</button>
    </form>
    ${running.length > 0 && html`<ul class="pulls">${running.map((each) => html`<${Pull} key=${each.name} running=${each} />`)}</ul>`}`;
}

export function Models() {
  const { value, error, reload } = useLoaded(loadModels);
  useOnPulled(reload);
  return html`<${Panel} title="Models" id="models-list" className="models" actions=${html`<${Button} onClick=${reload}>Refresh<//>`}>
    <${Pulls} />
    <${Failure} error=${error} />
    <${Memory} memory=${value?.memory} />
    ${value ? html`<${Installed} models=${value.models} reload=${reload} />` : !error && html`<${Empty} text="Asking the gateway…" />`}
  <//>`;
}
