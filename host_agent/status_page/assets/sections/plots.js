// Memory, speed and waiting requests over an hour, a day or a week.

import { html } from "/assets/vendor/preact-htm.js";
import { useLive } from "/assets/live.js";
import { Empty, Panel } from "/assets/widgets.js";

export function Plots() {
  const sample = useLive("sample");
  return html`<${Panel} title="Plots" id="plots"><${Empty} text=${sample ? "A sample has come." : "No samples yet."} /><//>`;
}
