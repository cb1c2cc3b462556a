// The programs that are known to work with Vestal, each with the two shell lines that connect it.

import { html, useRef, useState } from "/assets/vendor/preact-htm.js";
import { get } from "/assets/api.js";
import { Button, Empty, Panel, State } from "/assets/widgets.js";
import { Failure, listIn, textOf, useLoaded } from "/assets/sections/loaded.js";

const SAYS_COPIED_MS = 2000;

// Copies the text of an element. The clipboard API exists only on https and local addresses.
async function copy(element) {
  const text = element.textContent;
  try {
    await navigator.clipboard.writeText(text);
    return;
  } catch { /* no permission: copied by selection below */ }
  getSelection().selectAllChildren(element);
  if (!document.execCommand("copy")) throw new Error("This browser does not let the page copy; the lines are selected.");
}

function Client({ client, model }) {
  const lines = useRef(null), [copied, setCopied] = useState(false);
  const title = textOf(client.title) || textOf(client.name);
  const onCopy = async () => {
    await copy(lines.current);
    setCopied(true);
    setTimeout(() => setCopied(false), SAYS_COPIED_MS);
  };
  const shown = (Array.isArray(client.lines) ? client.lines : []).map(textOf);
  return html`<li class="client">
    <div class="client-head"><h3 class="wrap">${title}</h3>
      ${client.fits === false
        ? html`<${State} name="note" text="does not fit" />`
        : html`<${State} name="ok" text=${model ? `fits ${model}` : "fits"} />`}
      ${shown.length > 0 && html`<${Button} label=${`Copy the lines for ${title}`} onClick=${onCopy}>${copied ? "Copied" : "Copy"}<//>`}
    </div>
    ${shown.length > 0 && html`<pre class="lines" ref=${lines} tabindex="0" aria-label=${`Lines for ${title}`}>${shown.join("\n")}</pre>`}
    ${client.note && html`<p class="faint wrap">${textOf(client.note)}</p>`}
  </li>`;
}

export function Clients() {
  const { value, error, reload } = useLoaded(() => get("/clients"));
  const clients = listIn(value, "clients"), model = textOf(value?.model);
  return html`<${Panel} title="Clients" id="clients-panel" className="clients" actions=${error && html`<${Button} onClick=${reload}>Try again<//>`}>
    <${Failure} error=${error} />
    ${!value && !error && html`<${Empty} text="Asking the agent…" />`}
    ${value && html`<p class="faint">Lines for a shell that start a program which asks this server${model && html`, with the model <strong class="wrap">${model}</strong>`}.</p>`}
    ${value && !clients.length && html`<${Empty} text="No program is known." />`}
    <ul class="plain">${clients.map((client) => html`<${Client} key=${client.name} client=${client} model=${model} />`)}</ul>
  <//>`;
}
