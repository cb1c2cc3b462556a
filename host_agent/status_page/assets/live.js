// The page's only event stream, `GET /live`, because a browser allows six connections to a host over all its tabs.
// When the connection is lost, the stream is opened again after growing pauses. While the tab is hidden, the stream is
// closed if other tabs may need its connection.

import { useEffect, useLayoutEffect, useReducer, useState } from "/assets/vendor/preact-htm.js";
import { get, sessionRefused } from "/assets/api.js";

const FIRST_PAUSE_S = 0.5;
const LONGEST_PAUSE_S = 4;
const SILENT_AFTER_S = 13; // the agent sends a status every 10 s
const HEALTH_WITHIN_S = 3;
const PAUSE_AFTER_S = 60;
const INCIDENTS_HELD = 200;
const NAMES = ["status", "requests", "sample"];
const NUMBER = Math.random(); // decides which of the tabs that would pause together stays connected

const newest = new Map(); // name of the event -> {value, at_s}
const incidents = new Map(); // id -> incident
const listeners = new Map([...NAMES, "incidents", "connection"].map((name) => [name, new Set()]));
// state: connecting, live, lost, paused (the tab is hidden) or closed (the browser has no session); lostAt: Unix seconds;
// outdated: the agent has other files of the page now
const connection = { state: "connecting", lostAt: null, outdated: false };
let version = null; // the ETag that the agent had for the page's files when this page was opened
let source = null;
let pause_s = FIRST_PAUSE_S;
let timer = null;
let heardAt_s = 0;
let incidentsKnown = false;
let isChecking = false;
let hiddenAt_s = document.hidden ? 0 : null; // null: the tab is visible

const now_s = () => performance.now() / 1000;

// Returns the newest value of "status", "requests" or "sample". The component renders again with each new one.
export function useLive(name) {
  useListener(name);
  return newest.get(name)?.value ?? null;
}

// Returns how many seconds ago the newest value of `name` arrived.
export const since = (name) => (newest.has(name) ? now_s() - newest.get(name).at_s : 0);

// Returns the incidents, open ones first, each group newest first; null until they are loaded.
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

function disconnect() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function reconnectIn(seconds) {
  clearTimeout(timer);
  timer = setTimeout(connect, 1000 * seconds);
}

export function connect() {
  disconnect();
  if (connection.state === "paused") setConnection("connecting");
  source = new EventSource("/live");
  heardAt_s = now_s();
  source.onopen = () => {
    pause_s = FIRST_PAUSE_S;
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

// The page reconnects by itself, because the browser's retry of an EventSource neither reports a 401 nor grows its pauses.
async function lose() {
  disconnect();
  try {
    await get("/status"); // shows the reason: a 401, or no answer
  } catch (error) {
    if (error.status === 401) return; // the page is closed now, by `sessionRefused`
  }
  if (source || connection.state === "paused") return; // the stream was opened again, or the tab paused, meanwhile
  setConnection("lost");
  reconnectIn(pause_s);
  pause_s = Math.min(LONGEST_PAUSE_S, pause_s * 2);
}

// Compares the version of the agent's files with that of this page: they differ after an upgrade.
async function compareVersion() {
  try {
    const tag = (await fetch("/", { method: "HEAD" })).headers.get("ETag");
    version ??= tag;
    connection.outdated = tag !== version;
    if (connection.outdated) publish("connection");
  } catch { /* the agent does not answer; this runs again after reconnecting */ }
}

async function loadIncidents() {
  try {
    const found = (await get(`/incidents?limit=50`)).incidents;
    for (const incident of found) keepIncident(incident);
  } catch { /* the stream sends the open incidents */ }
  incidentsKnown = true;
  publish("incidents");
}

function keepIncident(incident) {
  const known = incidents.get(incident.id);
  if (known && known.last_seq > incident.last_seq) return; // the stream has sent a newer state of this incident
  incidents.set(incident.id, incident);
  if (incidents.size > INCIDENTS_HELD) incidents.delete([...incidents.keys()].sort((a, b) => a - b)[0]);
}

const isConnected = () => connection.state === "live" || connection.state === "connecting";

// Sends a request if the stream has been silent for too long: a suspended agent does not close its connections.
async function checkSilence() {
  if (isChecking || !isConnected() || now_s() - heardAt_s < SILENT_AFTER_S) return;
  isChecking = true;
  try {
    await fetch("/health", { signal: AbortSignal.timeout(HEALTH_WITHIN_S * 1000) });
    heardAt_s = now_s();
  } catch {
    if (!isConnected()) return;
    disconnect();
    setConnection("lost");
    reconnectIn(LONGEST_PAUSE_S);
  } finally {
    isChecking = false;
  }
}

// Returns true if this tab has been hidden for a minute. It then closes its stream if another tab is connected, since a
// seventh tab could not even load the page while six hold their connections. The last connected tab stays connected, so
// that its title still warns.
function mayPause() {
  return hiddenAt_s !== null && now_s() - hiddenAt_s >= PAUSE_AFTER_S && !["closed", "paused"].includes(connection.state);
}

function askToPause() {
  if (mayPause()) tabs.postMessage({ asks: NUMBER });
}

// In the closed state the page sends no requests, because the agent records each refusal. It connects again when
// another tab of this browser logs in, or when the page gets the focus.
const tabs = new BroadcastChannel("vestal");
tabs.onmessage = ({ data }) => {
  if (data === "opened" && connection.state === "closed") connect();
  if (data.asks && connection.state === "live" && !(mayPause() && NUMBER < data.asks)) tabs.postMessage({ answers: data.asks });
  if (data.answers === NUMBER && mayPause()) {
    disconnect();
    setConnection("paused");
  }
};
sessionRefused.add(() => {
  if (connection.state === "closed") return; // a late refusal must not close a stream that was opened since
  disconnect();
  setConnection("closed");
});
document.addEventListener("visibilitychange", () => {
  hiddenAt_s = document.hidden ? now_s() : null;
  if (!document.hidden && connection.state === "paused") connect();
});
addEventListener("focus", () => { if (connection.state !== "live") connect(); });
addEventListener("online", () => { if (connection.state === "lost") connect(); });
addEventListener("pagehide", disconnect);
addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
setInterval(() => { askToPause(); checkSilence(); }, 1000);
