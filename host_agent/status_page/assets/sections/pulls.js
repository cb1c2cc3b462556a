// The downloads of models, which continue while another section is shown.

import { useEffect } from "/assets/vendor/preact-htm.js";
import { ApiError, lines } from "/assets/api.js";
import { textOf } from "/assets/sections/loaded.js";
import { makeStore } from "/assets/sections/store.js";

const BROKE_OFF = "The connection broke off. Pull the model again: what has been fetched is kept.";

// running: a list of {name, status, completed, total, bytesPerS, remainingS, error, ended}, the newest first.
export const pulls = makeStore({ running: [] });
const controllers = new Map(); // name -> AbortController of the download that runs
const listeners = new Set();

// Calls `listener` after each completed download while the component is shown.
export function useOnPulled(listener) {
  useEffect(() => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, [listener]);
}

// Downloads a model, unless its download runs already.
export async function pull(name) {
  if (controllers.has(name)) return;
  const controller = new AbortController();
  controllers.set(name, controller);
  const others = pulls.get().running.filter((each) => each.name !== name);
  pulls.set({ running: [{ name, status: "asking the gateway…", error: "", ended: false }, ...others] });
  let last = {};
  const show = (step) => {
    last = step;
    change(name, { status: textOf(step.status), completed: step.completed, total: step.total,
      bytesPerS: step.vestal?.bytes_per_s, remainingS: step.vestal?.remaining_s });
  };
  let error = "";
  try {
    await lines("/gateway/api/pull", { model: name }, show, { signal: controller.signal });
    error = last.error ? textOf(last.error) : last.status === "success" ? "" : BROKE_OFF;
  } catch (problem) {
    if (controller.signal.aborted) return;
    error = problem instanceof ApiError ? problem.message : BROKE_OFF;
  }
  controllers.delete(name);
  change(name, { ended: true, error, status: error ? "" : "It is installed.", total: 0 });
  for (const listener of listeners) listener();
}

// Cancels a download if it runs, and removes it from the list.
export function dismiss(name) {
  controllers.get(name)?.abort();
  controllers.delete(name);
  pulls.set({ running: pulls.get().running.filter((each) => each.name !== name) });
}

function change(name, changes) {
  pulls.set({ running: pulls.get().running.map((each) => (each.name === name ? { ...each, ...changes } : each)) });
}
