// The frame of the page: the header with the verdict, the navigation, and the section that is shown.

import { html, render, useEffect, useRef, useState } from "/assets/vendor/preact-htm.js";
import { post } from "/assets/api.js";
import { age, clock } from "/assets/format.js";
import { connect, useConnection, useLive, useNow } from "/assets/live.js";
import { Button, Fence, Panel } from "/assets/widgets.js";
import { Now } from "/assets/sections/now.js";
import { Incidents } from "/assets/sections/incidents.js";
import { Plots } from "/assets/sections/plots.js";

const HEALTHY = ["ready", "busy", "absent"];
const TABS = [
  ["now", "Now"], ["requests", "Requests"], ["models", "Models"], ["chat", "Chat"],
  ["orchestrator", "Orchestrator"], ["doctor", "Doctor"], ["clients", "Clients"],
];
const shownTab = () => {
  const name = location.hash.slice(1).split("/")[0];
  return TABS.some(([tab]) => tab === name) ? name : "now";
};

function verdictOf(status, connection) {
  if (connection.state === "closed") return ["This page is closed in this browser.", "off"];
  if (connection.state === "lost") return [`The agent does not answer since ${clock(connection.lostAt)}. This page tries again by itself.`, "bad"];
  if (connection.state === "paused") return ["This tab was hidden, so the page does not ask the agent.", "faint"];
  if (connection.state === "connecting" || !status) return ["Asking the agent…", "faint"];
  if (status.verdict) return [status.verdict, status.healthy ? "good" : "bad"];
  const unhealthy = Object.values(status.services).filter((row) => row.expected !== false && !HEALTHY.includes(row.state)).length;
  if (status.healthy) return ["All services are healthy.", "good"];
  return [unhealthy === 1 ? "One service needs attention." : `${unhealthy} services need attention.`, "bad"];
}

function Header({ status, connection }) {
  const [text, color] = verdictOf(status, connection);
  const recovering = Boolean(status?.recovery?.running);
  const windowTitle = connection.state === "paused" ? "Vestal (paused)" : color === "bad" ? "⚠ Vestal" : "Vestal";
  useEffect(() => { document.title = windowTitle; }, [windowTitle]);
  const live = { live: "live", connecting: "connecting", lost: "not connected", paused: "paused", closed: "closed" }[connection.state];
  return html`<header class="top">
    <h1>Vestal</h1>
    <p class=${`verdict ${color}`}><span class="dot" aria-hidden="true"></span><span class="verdict-text" role="status">${text}</span>
      ${connection.state === "lost" && html`<${LostFor} since=${connection.lostAt} />`}</p>
    <span class=${`connection ${connection.state}`} title="Whether this page hears from the agent">${live}</span>
    ${connection.outdated && html`<${Button} onClick=${() => location.reload()}>Reload: this page has a new version<//>`}
    ${connection.state === "live" && html`<${Button} className="strong" disabled=${recovering} onClick=${() => post("/recover")}>
      ${recovering ? "Recovering…" : "Recover now"}<//>`}
  </header>`;
}

// The elapsed time is outside of the verdict, so that a screen reader does not read each second aloud.
function LostFor({ since }) {
  return html`<span class="lost-for faint">${age(useNow() - since)}</span>`;
}

function Navigation({ shown }) {
  const bar = useRef(null);
  useEffect(() => { // on a narrow screen, scroll the bar to the current section
    const link = bar.current.querySelector("[aria-current]"), { offsetLeft, offsetWidth } = link;
    bar.current.scrollTo({ left: offsetLeft - (bar.current.clientWidth - offsetWidth) / 2 });
  }, [shown]);
  return html`<nav aria-label="Sections"><ul ref=${bar}>
    ${TABS.map(([name, title]) => html`<li key=${name}><a href=${`#${name}`} aria-current=${shown === name ? "page" : undefined}>${title}</a></li>`)}
  </ul></nav>`;
}

function Closed() {
  return html`<${Panel} title="This page is closed" id="closed">
    <p>It needs a login link. In a terminal on this machine, run</p>
    <p><code>vestal status --open</code></p>
    <p class="faint">The command opens this page with a link that works once. The page then stays open in this browser
      for twelve hours, also if the agent restarts meanwhile. This tab opens again by itself.</p>
  <//>`;
}

// Loads a section when it is first shown: the module `sections/NAME.js` exports one component, NAME in PascalCase.
const loaded = new Map();
function Lazy({ name, title }) {
  const { state } = useConnection();
  const [section, setSection] = useState(loaded.get(name) ?? null);
  useEffect(() => {
    if (loaded.has(name)) return undefined;
    let shown = true;
    import(`/assets/sections/${name}.js`).then(
      (module) => {
        const component = module[name[0].toUpperCase() + name.slice(1)];
        loaded.set(name, { component });
        if (shown) setSection({ component });
      },
      (error) => { if (shown) setSection({ error }); },
    );
    return () => { shown = false; };
  }, [name, state]); // a module that could not be loaded is requested again after reconnecting
  if (!section) return html`<${Panel} title=${title} id=${name}><p class="empty">Loading…</p><//>`;
  if (section.error) return html`<${Panel} title=${title} id=${name}><p class="empty">This section could not be loaded. It is tried again when the agent answers; if that does not help, reload the page.</p><//>`;
  return html`<${section.component} />`;
}

function Section({ name }) {
  if (name !== "now") return html`<${Lazy} name=${name} title=${TABS.find(([tab]) => tab === name)[1]} />`;
  return html`<${Now} /><${Fence}><${Incidents} /><//><${Fence}><${Plots} /><//>`;
}

function Page() {
  const connection = useConnection(), status = useLive("status");
  const [shown, setShown] = useState(shownTab());
  useEffect(() => {
    const change = () => { setShown(shownTab()); scrollTo(0, 0); };
    addEventListener("hashchange", change);
    return () => removeEventListener("hashchange", change);
  }, []);
  const closed = connection.state === "closed";
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>Skip to the content</a>
    <${Header} status=${status} connection=${connection} />
    ${!closed && html`<${Navigation} shown=${shown} />`}
    <main id="main" tabindex="-1" class=${!closed && status && connection.state !== "live" ? "stale" : ""}>
      ${closed ? html`<${Closed} />` : html`<${Fence} key=${shown}><${Section} name=${shown} /><//>`}
    </main>`;
}

connect();
const root = document.getElementById("page");
root.replaceChildren();
render(html`<${Page} />`, root);
