// The requests in flight: client, model, phase and progress of each, and a button that cancels it.

import { html } from "/assets/vendor/preact-htm.js";
import { del } from "/assets/api.js";
import { age, count, number, rate } from "/assets/format.js";
import { since, useLive, useNow } from "/assets/live.js";
import { Button, Panel, State, Table } from "/assets/widgets.js";
import { listIn, textOf } from "/assets/sections/loaded.js";

const WHY = {
  queued: "It waits for a free place or for memory.",
  loading: "It waits until its model is in memory.",
  parked: "It waits for a new engine, and then goes on with its next token.",
};
const READS_PROMPT = "The engine reads its prompt.";

// Returns why a request shows no new tokens, or "".
export function whyItWaits(request) {
  if (request.phase === "running" && request.tokens === 0) return READS_PROMPT;
  return WHY[request.phase] ?? "";
}

// Shows a figure, or nothing if it is unknown.
const shown = (figure, format) => (typeof figure === "number" ? format(figure) : null);

const nameOf = (client) => textOf(client) || "unknown program";

function Client({ request }) {
  return html`<div class="wrap"><strong>${nameOf(request.client)}</strong>
    <div class="faint small">${textOf(request.remote)}</div></div>`;
}

function Phase({ request }) {
  const why = whyItWaits(request), crashes = request.crashes;
  return html`<div><${State} name=${textOf(request.phase) || "unknown"} />
    ${why && html`<div class="faint small">${why}</div>`}
    ${crashes > 0 && html`<div class="good small">It survived ${crashes === 1 ? "a crash" : `${number(crashes)} crashes`} of the engine.</div>`}</div>`;
}

function Cancel({ request }) {
  if (request.cancelable === false) return null;
  const label = `Cancel the request of ${nameOf(request.client)} to ${textOf(request.model)}`;
  return html`<${Button} label=${label} confirm="Cancel it?"
    onClick=${() => del(`/gateway/requests/${encodeURIComponent(request.id)}`)}>Cancel<//>`;
}

// Returns the text for an empty list. A frame without totals means that the gateway does not answer.
function whyEmpty(frame) {
  if (!frame) return "The gateway has not reported its requests yet.";
  return frame.totals === null ? "The gateway does not answer, so its requests are not known." : "No request is in flight.";
}

export function Requests() {
  const frame = useLive("requests");
  useNow(); // renders each second, so that ages grow between two frames
  const elapsed_s = since("requests");
  const requests = listIn(frame, "requests");
  const columns = [
    { name: "client", title: "Client", cell: (row) => html`<${Client} request=${row} />` },
    { name: "model", title: "Model", cell: (row) => html`<div class="wrap">${textOf(row.model)}</div>` },
    { name: "phase", title: "Phase", cell: (row) => html`<${Phase} request=${row} />` },
    { name: "prompt", title: "Prompt tokens", number: true, cell: (row) => shown(row.prompt_tokens, number) },
    { name: "tokens", title: "Tokens", number: true, cell: (row) => shown(row.tokens, number) },
    { name: "rate", title: "Tokens/s", number: true, cell: (row) => shown(row.tokens_per_s, rate) },
    { name: "age", title: "Age", number: true, cell: (row) => shown(row.age_s, (age_s) => age(age_s + elapsed_s)) },
    { name: "cancel", title: "Cancel", hidden: true, className: "acts", cell: (row) => html`<${Cancel} request=${row} />` },
  ];
  return html`<${Panel} title="Requests in flight" id="requests-in-flight" className="requests"
      actions=${requests.length > 0 && html`<span class="faint">${count(requests.length, "request")}</span>`}>
    <${Table} columns=${columns} rows=${requests} label="Requests in flight" empty=${whyEmpty(frame)} />
    ${frame?.omitted > 0 && html`<p class="faint">${count(frame.omitted, "further request")} ${frame.omitted === 1 ? "is" : "are"} not listed.</p>`}
  <//>`;
}
