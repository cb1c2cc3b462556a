// Requests to the agent, which also passes some of them on to the gateway and the orchestrator.
// A 401 means that this browser has no session; the page then shows how to log in.

const ANSWER_WITHIN_S = 70; // the slowest answer that is not streamed is that of GET /doctor, which has 60 s
const JSON_HEADERS = { "Content-Type": "application/json" };

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// These functions are called each time the agent refuses this browser's session.
export const sessionRefused = new Set();

// Each returns the JSON of the answer, and throws ApiError for a refusal, or if no answer comes within `within_s` seconds.
// With null there is no limit.
export const get = (path) => request(path, { method: "GET" });
export const post = (path, body = {}, { within_s } = {}) => request(path, withBody("POST", body), within_s);
export const del = (path, body = {}) => request(path, withBody("DELETE", body));

// Sends a request whose response has one JSON object on each line, and calls `onObject` with each as it arrives.
// `onReply` is called with the response first, for its headers. Returns when the response is complete. Throws ApiError, or AbortError after `signal`.
export async function lines(path, body, onObject, { method = "POST", signal, headers, onReply } = {}) {
  const options = method === "GET" ? { method } : withBody(method, body);
  const reply = await send(path, { ...options, signal, headers: { ...options.headers, ...headers } });
  onReply?.(reply);
  if (!reply.ok) throw await errorOf(reply);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const line of parts) if (line.trim()) onObject(JSON.parse(line));
  }
  if (rest.trim()) onObject(JSON.parse(rest));
}

function withBody(method, body) {
  return { method, headers: JSON_HEADERS, body: JSON.stringify(body) };
}

async function request(path, options, within_s = ANSWER_WITHIN_S) {
  const signal = within_s === null ? undefined : AbortSignal.timeout(1000 * within_s);
  try {
    const reply = await send(path, { ...options, signal });
    if (!reply.ok) throw await errorOf(reply);
    const text = await reply.text();
    return text ? JSON.parse(text) : null;
  } catch (error) {
    if (error.name !== "TimeoutError") throw error;
    throw new ApiError(0, "timeout", `No answer came within ${within_s} s. Try again; if this page is open in many tabs, close some of them.`);
  }
}

async function send(path, options) {
  let reply;
  try {
    reply = await fetch(path.startsWith("/") ? path : "/" + path, options);
  } catch (error) {
    if (["AbortError", "TimeoutError"].includes(error.name)) throw error;
    throw new ApiError(0, "unreachable", "The agent does not answer.");
  }
  if (reply.status === 401) for (const listener of sessionRefused) listener();
  return reply;
}

// The services have three forms of errors: {"error": {"code", "message"}}, {"error": "…"} (Ollama's), or plain text.
async function errorOf(reply) {
  const text = await reply.text();
  let error = text;
  try { error = JSON.parse(text).error ?? text; } catch { /* not JSON: the text is the message */ }
  if (typeof error === "string") error = { message: error };
  return new ApiError(reply.status, error.code || "", error.message || `The agent answered with HTTP ${reply.status}.`);
}
