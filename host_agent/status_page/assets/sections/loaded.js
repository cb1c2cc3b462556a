// Data that a section requests when it is opened, and again after an action.

import { html, useCallback, useEffect, useRef, useState } from "/assets/vendor/preact-htm.js";

// Calls `load` when the component appears and at each `reload`. Returns {value, error, reload}: the newest value, or
// null before the first one, and the error of the last call, or null. A value that arrives after that of a newer call is dropped.
export function useLoaded(load) {
  const [state, setState] = useState({ value: null, error: null });
  const newestCall = useRef(0), newestLoad = useRef(load);
  newestLoad.current = load;
  const reload = useCallback(async () => {
    const call = ++newestCall.current;
    try {
      const value = await newestLoad.current();
      if (call === newestCall.current) setState({ value, error: null });
    } catch (error) {
      if (call === newestCall.current) setState((was) => ({ ...was, error }));
    }
  }, []);
  useEffect(() => {
    reload();
    return () => { newestCall.current += 1; };
  }, []);
  return { ...state, reload };
}

// Shows the sentence of an error; nothing without an error.
export const Failure = ({ error }) => (error ? html`<p class="error" role="alert">${error.message}</p>` : null);

// Returns the objects of the list `value[name]`; an empty list if there is none.
export function listIn(value, name) {
  const found = value?.[name];
  return Array.isArray(found) ? found.filter((each) => each && typeof each === "object") : [];
}

// Returns a value of unknown type as text; "" for null and undefined.
export function textOf(value) {
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
