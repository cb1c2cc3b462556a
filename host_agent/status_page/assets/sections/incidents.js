// The incidents, one card each, with causes and end: open ones first, then the newest.

import { html, useState } from "/assets/vendor/preact-htm.js";
import { get } from "/assets/api.js";
import { age, clock, count, duration, title as titleOf } from "/assets/format.js";
import { useIncidents, useNow } from "/assets/live.js";
import { Button, Empty, Panel, Table } from "/assets/widgets.js";

const FIRST = 3, MORE = 20;

export function Incidents() {
  const incidents = useIncidents();
  const [shown, setShown] = useState(FIRST);
  const open = (incidents || []).filter((each) => each.open).length;
  const title = open ? `Incidents: ${open} open` : "Incidents";
  if (!incidents) return html`<${Panel} title=${title} id="incidents"><${Empty} text="Asking the agent…" /><//>`;
  if (!incidents.length) return html`<${Panel} title=${title} id="incidents"><${Empty} text="Nothing has gone wrong, as far back as the journal goes." /><//>`;
  const visible = incidents.slice(0, Math.max(shown, open));
  return html`<${Panel} title=${title} id="incidents">
    <div class="cards">${visible.map((each) => html`<${Card} key=${each.id} incident=${each} />`)}</div>
    ${visible.length < incidents.length && html`<p class="more"><${Button} onClick=${() => setShown(shown + MORE)}>
      Show ${Math.min(MORE, incidents.length - visible.length)} more of ${count(incidents.length, "incident")}<//></p>`}
  <//>`;
}

function Card({ incident }) {
  const color = incident.open ? "open" : incident.severity;
  const id = `incident-${incident.id}`;
  return html`<article class=${`incident ${color}`} id=${id} aria-labelledby=${`${id}-title`}>
    <header>
      <h3 id=${`${id}-title`}>${incident.title}</h3>
      <${Time} incident=${incident} />
    </header>
    ${incident.sentence && incident.sentence !== incident.title && html`<p>${incident.sentence}</p>`}
    <${Chips} incident=${incident} />
    <${List} title="Why" items=${incident.causes} />
    <${List} title="What was done" items=${incident.done} />
    <${RawLines} incident=${incident} />
  </article>`;
}

function Time({ incident }) {
  if (incident.open) return html`<${Running} incident=${incident} />`;
  const end = incident.ended_at, same = new Date(end * 1000).toDateString() === new Date(incident.began_at * 1000).toDateString();
  const until = same ? clock(end).slice(-8) : clock(end);
  const instant = incident.duration_s < 1;
  return html`<span class="when">${clock(incident.began_at)}${instant ? "" : `–${until}`} <span class="faint">${instant ? "" : duration(incident.duration_s)}</span></span>`;
}

function Running({ incident }) {
  const now = useNow();
  return html`<span class="when"><span class="chip bad">open</span> for ${age(now - incident.began_at)}, since ${clock(incident.began_at)}</span>`;
}

function Chips({ incident }) {
  const { waited = 0, continued = 0, lost = 0 } = incident.requests || {};
  const chips = [];
  if (incident.restarts) chips.push(["", count(incident.restarts, "restart")]);
  if (waited) chips.push(["work", `${count(waited, "request")} waited`]);
  if (continued) chips.push(["good", `${continued} continued`]);
  if (lost) chips.push(["bad", `${lost} lost`]);
  else if (waited || continued) chips.push(["good", "none lost"]);
  for (const name of incident.services || []) chips.push(["", titleOf(name)]);
  return html`<ul class="chips" aria-label="Figures">${chips.map(([color, text]) => html`<li key=${text} class=${`chip ${color}`}>${text}</li>`)}</ul>`;
}

function List({ title, items }) {
  if (!items?.length) return null;
  if (items.length === 1) return html`<p class="point"><span class="faint">${title}:</span> ${items[0]}</p>`;
  return html`<div class="point"><span class="faint">${title}:</span><ul>${items.map((text) => html`<li key=${text}>${text}</li>`)}</ul></div>`;
}

function RawLines({ incident }) {
  const [entries, setEntries] = useState(null);
  const load = async () => setEntries((await get(`/incidents/${incident.id}`)).entries);
  const columns = [
    { name: "time", title: "Time", className: "when", cell: (row) => clock(row.ts) },
    { name: "component", title: "Component", cell: (row) => row.component },
    { name: "event", title: "Event", cell: (row) => row.event },
    { name: "cause", title: "Cause", className: "words", cell: (row) => row.cause },
    { name: "fields", title: "Fields", className: "words mono", cell: (row) => Object.entries(row.fields || {}).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(" ") },
  ];
  if (!entries) return html`<p class="raw"><${Button} className="quiet" label=${`Show the journal's lines of: ${incident.title}`} onClick=${load}>Show the journal's lines<//></p>`;
  return html`<div class="raw">
    <${Button} className="quiet" onClick=${() => setEntries(null)}>Hide the journal's lines<//>
    <${Table} className="lines" label="The journal's lines" columns=${columns} rows=${entries} keyOf=${(row) => row.seq} empty="The journal no longer has these lines." />
  </div>`;
}
