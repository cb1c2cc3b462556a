// The components that all sections share.

import { Component, html, useEffect, useRef, useState } from "/assets/vendor/preact-htm.js";

const ASKS_FOR_S = 5;
const DOUBLE_CLICK_S = 0.35; // the second click of a double click does not confirm
const COLORS = {
  ready: "good", busy: "good", running: "good", done: "good", ok: "good",
  starting: "work", stopping: "work", backoff: "work", degraded: "work", queued: "work", loading: "work", parked: "work", note: "work",
  stopped: "bad", open: "bad", failed: "bad", fault: "bad", unhealthy: "bad",
};

// A part of the page with a title; `actions` are shown at the right of the title.
export function Panel({ title, id, children, actions, className = "" }) {
  const heading = id ? `${id}-title` : undefined;
  return html`<section class=${`panel ${className}`} id=${id} aria-labelledby=${heading}>
    ${title && html`<div class="panel-head"><h2 id=${heading}>${title}</h2><div class="actions">${actions}</div></div>`}
    ${children}
  </section>`;
}

// A button that runs `onClick`, does nothing while the promise that it returns is pending, and shows the sentence of
// an error beside it. With `confirm`, a text, the first click shows the text as the label and the second one runs it.
// While it runs it is not `disabled`, since a disabled button loses the focus.
export function Button({ onClick, confirm, children, className = "", label, disabled = false, type = "button" }) {
  const [state, setState] = useState({ asking: false, running: false, error: "" });
  const askedAt = useRef(0), timer = useRef(null), shown = useRef(true);
  useEffect(() => () => { shown.current = false; clearTimeout(timer.current); }, []);
  const calm = () => { clearTimeout(timer.current); if (shown.current) setState((was) => ({ ...was, asking: false })); };
  const click = async (event) => {
    if (state.running) return;
    const now = performance.now() / 1000;
    if (confirm && !state.asking) {
      askedAt.current = now;
      timer.current = setTimeout(calm, ASKS_FOR_S * 1000);
      setState({ asking: true, running: false, error: "" });
      return;
    }
    if (confirm && now - askedAt.current < DOUBLE_CLICK_S) return;
    clearTimeout(timer.current);
    setState({ asking: false, running: true, error: "" });
    let error = "";
    try { await onClick?.(event); } catch (problem) { error = problem.message; }
    if (shown.current) setState({ asking: false, running: false, error });
  };
  const look = `${className} ${state.asking ? "asking" : ""}`;
  return html`<span class="button">
    <button type=${type} class=${look} disabled=${disabled} aria-disabled=${state.running || undefined} aria-busy=${state.running}
      aria-label=${state.asking || !label ? undefined : label} onClick=${click} onBlur=${calm}>${state.asking ? confirm : children}</button>
    ${state.error && html`<span class="error" role="alert">${state.error}</span>`}
  </span>`;
}

// A state as a colored dot and a word: not everybody can distinguish the colors.
export function State({ name, muted = false, text }) {
  const color = muted ? "off" : COLORS[name] || "off";
  return html`<span class=${`state ${color}`}><span class="dot" aria-hidden="true"></span>${text || name}</span>`;
}

export const Empty = ({ text }) => html`<p class="empty">${text}</p>`;

// Rows under titles. `columns` are {title, name, cell(row), number?, className?}. On a narrow screen each row becomes a
// block whose lines carry the titles, so the ARIA roles of a table are written out: CSS `display` would remove the implicit ones.
export function Table({ columns, rows, keyOf = (row) => row.id ?? row.name, label, empty = "Nothing.", className = "", rowClass = () => "" }) {
  if (!rows.length) return html`<${Empty} text=${empty} />`;
  const look = (column) => `${column.number ? "number" : ""} ${column.className || ""}`;
  return html`<table class=${className} role="table" aria-label=${label}>
    <thead role="rowgroup"><tr role="row">
      ${columns.map((column) => html`<th role="columnheader" scope="col" key=${column.name} class=${look(column)}>
        ${column.hidden ? html`<span class="unseen">${column.title}</span>` : column.title}</th>`)}
    </tr></thead>
    <tbody role="rowgroup">
      ${rows.map((row) => html`<tr role="row" key=${keyOf(row)} class=${rowClass(row)}>
        ${columns.map((column) => html`<td role="cell" key=${column.name} class=${look(column)} data-title=${column.hidden ? "" : column.title}>
          ${column.cell(row)}</td>`)}
      </tr>`)}
    </tbody>
  </table>`;
}

// Shows a sentence in place of a section that threw an error, so that the other sections stay.
export class Fence extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }

  render() {
    if (!this.state.error) return this.props.children;
    return html`<${Panel}><p class="error">This part of the page failed: ${String(this.state.error.message)}. The rest goes on; reload to try it again.</p><//>`;
  }
}
