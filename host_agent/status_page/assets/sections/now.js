// The tree of services, the machine's memory, and the last recovery pass.

import { html } from "/assets/vendor/preact-htm.js";
import { useLive } from "/assets/live.js";
import { Empty, Panel, State, Table } from "/assets/widgets.js";

export function Now() {
  const status = useLive("status");
  const rows = status ? Object.entries(status.services).map(([name, row]) => ({ name, ...row })) : [];
  const columns = [
    { name: "service", title: "Service", cell: (row) => row.name },
    { name: "state", title: "State", cell: (row) => html`<${State} name=${row.state} muted=${row.expected === false} />` },
    { name: "detail", title: "Detail", cell: (row) => row.detail },
  ];
  return html`<${Panel} title="Services" id="services">
    ${status ? html`<${Table} columns=${columns} rows=${rows} label="Services" />` : html`<${Empty} text="Asking the agent…" />`}
  <//>`;
}
