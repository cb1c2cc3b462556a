// The page's one stream of events, `GET /live`: a browser allows six connections to a host over all its tabs.
// It is opened again, with growing pauses, when the agent has gone.

import { useEffect, useLayoutEffect, useReducer, useState } from "/assets/vendor/preact-htm.js";
import { get, session } from "/assets/api.js";

const FIRST_PAUSE_S = 0.5;
const LONGEST_PAUSE_S = 4;
const SILENT_AFTER_S = 13; // a status comes every 10 s
const HEALTH_WITHIN_S = 3;
const INCIDENTS_HELD = 200;
const NAMES = ["status", "requests", "sample"];

const newest = new Map(); // name of the event -> {value, at_s}
const incidents = new Map(); // id -> incident
const listeners = new Map([...NAMES, "incidents", "connection"].map((name) => [name, new Set()]));
// state: connecting, live, lost or closed; lostAt: Unix seconds; outdated: the agent has other files of the page now
const connection = { state: "connecting", lostAt: null, outdated: false };
let version = null; // the ETag that the agent had for the page's files when this page was opened
let source = null;
let pause_s = FIRST_PAUSE_S;
let timer = null;
let heardAt_s = 0;
let incidentsKnown = false;
let isChecking = false;

const now_s = () => performance.now() / 1000;

// Returns the newest value of "status", "requests" or "sample", and renders again with each new one.
export function useLive(name) {
  useListener(name);
  return newest.get(name)?.value ?? null;
}

// Returns how many seconds ago the newest value of `name` came.
export const since = (name) => (newest.has(name) ? now_s() - newest.get(name).at_s : 0);

// Returns the incidents, open ones first and then newest first; null until they are known.
export function useIncidents() {
  useListener("incidents");
  if (!incidentsKnown) return null;
  return [...incidents.values()].sort((a, b) => b.open - a.open || b.began_at - a.began_at || b.id - a.id);
}

// Returns {state, lostAt, outdated}: whether the page is connected to the agent, and of the same version.
export function useConnection() {
  useListener("connection");
  return connection;
}

// Calls `onValue` with each value of `name` that arrives while the component is shown.
export function onLive(name, onValue) {
  listeners.get(name).add(onValue);
  return () => listeners.get(name).delete(onValue);
}

// Returns the time in Unix seconds, and renders again each second.
export function useNow() {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const ticks = setInterval(() => setNow(Date.now() / 1000), 1000);
    return () => clearInterval(ticks);
  }, []);
  return now;
}

function useListener(name) {
  const [, renderAgain] = useReducer((version) => version + 1, 0);
  useLayoutEffect(() => onLive(name, renderAgain), [name]);
}

function publish(name, value) {
  for (const listener of [...listeners.get(name)]) listener(value);
}

function setConnection(state) {
  if (state === connection.state) return;
  connection.lostAt = state === "lost" ? Date.now() / 1000 : null;
  connection.state = state;
  publish("connection");
}

export function connect() {
  clearTimeout(timer);
  source?.close();
  source = new EventSource("/live");
  heardAt_s = now_s();
  source.onopen = () => {
    pause_s = FIRST_PAUSE_S;
    session.set(false);
    tabs.postMessage("opened");
    setConnection("live");
    loadIncidents();
    compareVersion();
  };
  source.onerror = lose;
  for (const name of NAMES) {
    source.addEventListener(name, (message) => {
      heardAt_s = now_s();
      newest.set(name, { value: JSON.parse(message.data), at_s: heardAt_s });
      publish(name, newest.get(name).value);
    });
  }
  source.addEventListener("incident", (message) => {
    heardAt_s = now_s();
    keepIncident(JSON.parse(message.data));
    publish("incidents");
  });
}

// The browser's own retry of an EventSource knows no 401 and no growing pause, so the page does it.
async function lose() {
  source?.close();
  source = null;
  clearTimeout(timer);
  try {
    await get("/status"); // says why: 401, or no answer at all
    setConnection("lost");
  } catch (error) {
    if (error.status === 401) return; // the listener of the session has noted it
    setConnection("lost");
  }
  timer = setTimeout(connect, pause_s * 1000);
  pause_s = Math.min(LONGEST_PAUSE_S, pause_s * 2);
}

// After an upgrade, the agent may have other files than those that this page runs.
async function compareVersion() {
  try {
    const tag = (await fetch("/", { method: "HEAD" })).headers.get("ETag");
    version ??= tag;
    connection.outdated = tag !== version;
    if (connection.outdated) publish("connection");
  } catch { /* the agent has gone again */ }
}

async function loadIncidents() {
  try {
    const found = (await get(`/incidents?limit=50`)).incidents;
    for (const incident of found) keepIncident(incident);
  } catch { /* the stream brings the open ones */ }
  incidentsKnown = true;
  publish("incidents");
}

function keepIncident(incident) {
  const known = incidents.get(incident.id);
  if (known && known.last_seq > incident.last_seq) return; // the stream was faster than the list
  incidents.set(incident.id, incident);
  if (incidents.size > INCIDENTS_HELD) incidents.delete([...incidents.keys()].sort((a, b) => a - b)[0]);
}

// A suspended agent closes no connection: if it has been silent for long, ask whether it lives.
async function checkSilence() {
  if (isChecking || connection.state !== "live" || now_s() - heardAt_s < SILENT_AFTER_S) return;
  isChecking = true;
  try {
    await fetch("/health", { signal: AbortSignal.timeout(HEALTH_WITHIN_S * 1000) });
    heardAt_s = now_s();
  } catch {
    setConnection("lost");
    source?.close();
    timer = setTimeout(connect, LONGEST_PAUSE_S * 1000);
  } finally {
    isChecking = false;
  }
}

// In the closed state the page asks for nothing, since each refusal is noted in the journal. It tries again when
// a tab of this browser has been opened by a login link, or when somebody looks at it.
const tabs = new BroadcastChannel("vestal");
tabs.onmessage = () => { if (connection.state === "closed") connect(); };
session.listeners.add((closed) => {
  if (closed) {
    source?.close();
    clearTimeout(timer);
    setConnection("closed");
  }
});
addEventListener("focus", () => { if (connection.state !== "live") connect(); });
addEventListener("online", () => { if (connection.state === "lost") connect(); });
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
setInterval(checkSilence, 1000);
