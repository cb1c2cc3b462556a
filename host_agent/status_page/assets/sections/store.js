// Values that are kept outside the components, so that work continues while another section is shown.

import { useEffect, useReducer } from "/assets/vendor/preact-htm.js";

// Returns a store around an object: `set` merges changes into it, and `use` returns it in a component, which
// renders again after each change.
export function makeStore(value) {
  const listeners = new Set();
  return {
    get: () => value,
    set(changes) {
      value = { ...value, ...changes };
      for (const listener of [...listeners]) listener();
    },
    use() {
      const [, renderAgain] = useReducer((version) => version + 1, 0);
      useEffect(() => {
        listeners.add(renderAgain);
        renderAgain(); // the value may have changed between the first rendering and now
        return () => listeners.delete(renderAgain);
      }, []);
      return value;
    },
  };
}
