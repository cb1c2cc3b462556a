// What went wrong and how it ended, one card for each incident.

import { html } from "/assets/vendor/preact-htm.js";
import { clock } from "/assets/format.js";
import { useIncidents } from "/assets/live.js";
import { Empty, Panel } from "/assets/widgets.js";

export function Incidents() {
  const incidents = useIncidents();
  return html`<${Panel} title="Incidents" id="incidents">
    ${incidents?.length ? incidents.map((each) => html`<article key=${each.id}><h3>${each.title}</h3><p>${clock(each.began_at)}: ${each.sentence}</p></article>`)
    : html`<${Empty} text=${incidents ? "Nothing has gone wrong." : "Asking the agent…"} />`}
  <//>`;
}
