// The doctor: runs the diagnoses, and shows findings with evidence and remedy; a safe remedy is a button.

import { html, useState } from "/assets/vendor/preact-htm.js";
import { ApiError, del, get, post } from "/assets/api.js";
import { clock, count, duration } from "/assets/format.js";
import { Button, Empty, Panel, State } from "/assets/widgets.js";
import { Failure, listIn, textOf } from "/assets/sections/loaded.js";
import { makeStore } from "/assets/sections/store.js";

const WORST_FIRST = ["fault", "note", "ok"];
const WORDS = { fault: "fault", note: "note", ok: "in order" };
const METHODS = { POST: post, DELETE: del, GET: get };
const rankOf = (finding) => (WORST_FIRST.indexOf(finding.level) + WORST_FIRST.length + 1) % (WORST_FIRST.length + 1);

// report: the newest one, or null; ranAt: Unix seconds; error: that of the last run, or null. They are kept, and a run
// continues, while another section is shown.
const doctor = makeStore({ report: null, ranAt: null, isRunning: false, error: null });

async function run() {
  if (doctor.get().isRunning) return;
  doctor.set({ isRunning: true, error: null });
  try {
    doctor.set({ report: await get("/doctor"), ranAt: Date.now() / 1000 });
  } catch (error) { doctor.set({ error }); }
  doctor.set({ isRunning: false });
}

async function act({ method, path }) {
  const call = METHODS[method];
  if (!call) throw new ApiError(0, "unknown_method", `This page knows no requests with the method ${textOf(method)}.`);
  await call(path);
}

function Finding({ finding }) {
  const { name, level, sentence, remedy, evidence, action } = finding, [isAsked, setAsked] = useState(false);
  const onAct = async () => {
    await act(action);
    setAsked(true);
  };
  return html`<li class="finding">
    <div class="finding-head"><${State} name=${textOf(level)} text=${WORDS[level] ?? textOf(level)} /> <strong class="wrap">${textOf(name).replaceAll("_", " ")}</strong></div>
    <p class="wrap">${textOf(sentence)}</p>
    ${remedy && html`<p class="wrap"><span class="faint">Remedy:</span> ${textOf(remedy)}</p>`}
    ${action?.path && html`<p><${Button} className="strong" label=${`${textOf(action.label)}: ${textOf(name)}`}
      onClick=${onAct}>${textOf(action.label)}<//>
      ${isAsked && html`<span class="good" role="status"> It has begun. Run the doctor again to see whether it helped.</span>`}</p>`}
    ${evidence && textOf(evidence) !== "[]" && html`<details><summary>Evidence</summary><pre class="wrap">${evidenceText(evidence)}</pre></details>`}
  </li>`;
}

const evidenceText = (evidence) => (Array.isArray(evidence) ? evidence.map(textOf).join("\n")
  : typeof evidence === "object" ? JSON.stringify(evidence, null, 2) : textOf(evidence));

export function Doctor() {
  const { report, ranAt, isRunning, error } = doctor.use();
  const findings = listIn(report, "findings").sort((a, b) => rankOf(a) - rankOf(b));
  const bad = findings.filter((each) => each.level !== "ok"), good = findings.filter((each) => each.level === "ok");
  const keyed = (each, index) => html`<${Finding} key=${`${ranAt} ${textOf(each.name)} ${index}`} finding=${each} />`;
  return html`<${Panel} title="Doctor" id="doctor-panel" className="doctor"
      actions=${html`<${Button} className="strong" onClick=${run}>${isRunning ? "Running…" : report ? "Run it again" : "Run the doctor"}<//>`}>
    <${Failure} error=${error} />
    ${!report && html`<${Empty} text="The doctor looks at everything that Vestal runs, and says what is wrong and what helps. It takes some seconds." />`}
    ${report && html`<p class="faint">Run at ${clock(ranAt)} in ${duration(report.took_s)}.</p>`}
    ${report && !bad.length && html`<p class="good">Nothing is wrong.</p>`}
    <ul class="plain">${bad.map(keyed)}</ul>
    ${good.length > 0 && html`<details class="in-order"><summary>${count(good.length, "check")} in order</summary><ul class="plain">${good.map(keyed)}</ul></details>`}
  <//>`;
}
