// Reads one streamed answer to its end, across broken connections.
//
// The gateway keeps each answer. While its id (the header x-request-id) is unknown, the same request with the same
// Idempotency-Key joins it; after that, `GET /v1/streams/{id}?from=N` gives it from its line N on.

import { ApiError, lines } from "/assets/api.js";

const TRY_FOR_S = 120; // retry for this long once the answer has begun
const TRY_TO_BEGIN_FOR_S = 8; // before the answer has begun; a killed gateway restarts within this time
const FIRST_PAUSE_S = 0.1;
const LONGEST_PAUSE_S = 2;
const MAY_PASS = [0, 502, 503, 504]; // no answer, or a temporary error
const NOBODY_ANSWERED = [0, 502];

// Calls `onLine` once with each line of the answer to `body`, and `onBreak` whenever the connection has broken.
// Returns after the last line. Throws ApiError for a refusal, or if there is no answer for too long, and AbortError after
// `signal`.
export async function readAnswer(body, { signal, onLine, onBreak }) {
  const key = randomKey();
  let id = null, received = 0, isComplete = false, brokenAt = null, pause_s = FIRST_PAUSE_S;
  const onReply = (reply) => { if (reply.ok) id = reply.headers.get("x-request-id") ?? id; };
  const take = (line) => {
    received += 1;
    brokenAt = null;
    pause_s = FIRST_PAUSE_S;
    isComplete = Boolean(line.done || line.error);
    onLine(line);
  };
  while (!isComplete) {
    let failure = null;
    try {
      if (id === null) {
        await lines("/gateway/api/chat", body, take, { signal, onReply, headers: { "Idempotency-Key": key } });
      } else {
        await lines(`/gateway/v1/streams/${encodeURIComponent(id)}?from=${received}`, null, take, { signal, onReply, method: "GET" });
      }
    } catch (error) {
      if (signal.aborted) throw error;
      failure = error instanceof ApiError ? error : null; // otherwise the connection broke in mid-answer
    }
    if (isComplete) return;
    const hasBegun = id !== null;
    if (failure && !(hasBegun ? MAY_PASS : NOBODY_ANSWERED).includes(failure.status)) throw failure;
    const now = performance.now();
    brokenAt ??= now;
    if (now - brokenAt > 1000 * (hasBegun ? TRY_FOR_S : TRY_TO_BEGIN_FOR_S)) {
      throw failure ?? new ApiError(0, "broken_off", "The connection breaks again and again; the answer could not be read on.");
    }
    onBreak();
    await sleep(pause_s, signal);
    pause_s = Math.min(LONGEST_PAUSE_S, 2 * pause_s);
  }
}

// crypto.randomUUID exists only on https and local addresses.
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}
