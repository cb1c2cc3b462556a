// Requests to the agent, which also passes some of them on to the gateway and the orchestrator.
// A 401 means that this browser has no session; the page then shows how to log in.

const JSON_HEADERS = { "Content-Type": "application/json" };

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// `session.closed`: the agent refuses this browser's session. Listeners are called with each change.
export const session = {
  closed: false,
  listeners: new Set(),
  set(closed) {
    if (closed === this.closed) return;
    this.closed = closed;
    for (const listener of this.listeners) listener(closed);
  },
};

export const get = (path) => request(path, { method: "GET" });
export const post = (path, body = {}) => request(path, withBody("POST", body));
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

async function request(path, options) {
  const reply = await send(path, options);
  if (!reply.ok) throw await errorOf(reply);
  const text = await reply.text();
  return text ? JSON.parse(text) : null;
}

async function send(path, options) {
  let reply;
  try {
    reply = await fetch(path.startsWith("/") ? path : "/" + path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The agent does not answer.");
  }
  if (reply.status === 401) session.set(true);
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
