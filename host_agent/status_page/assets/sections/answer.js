// An answer of the chat while it is streamed, with marks where it paused. Pure: times are arguments, in milliseconds.

const SHORTEST_PAUSE_MS = 120;
const PAUSE_FACTOR = 3; // a pause is at least this many times as long as the usual time between two lines
const SMOOTHING = 0.1;

// thinking, text: the text so far. marks: {field, at, kind, pause_s}: `kind` ("engine" or "connection") was
// interrupted at character `at` of `field`, for `pause_s` seconds (null: the pause was too short to be seen).
// waiting: the kinds of interruption after which no line has arrived yet. error: a sentence, or "".
export const EMPTY = {
  thinking: "", text: "", toolCalls: [], marks: [], waiting: [], error: "", ended: false, stopped: false, stats: null,
  lastAt: null, usualGap_ms: null, brokenAt: null,
};

// Returns the answer after one more line of the stream.
export function withLine(answer, line, now) {
  if (line.error) return ended({ ...answer, error: sentence(line.error) });
  const { content = "", thinking = "", tool_calls: calls } = line.message ?? {};
  let next = answer;
  if (content || thinking || calls?.length) {
    next = { ...withMarks(answer, now, content ? "text" : "thinking"), lastAt: now };
    next.usualGap_ms = usualGap(answer, now);
    next.text += textIn(content);
    next.thinking += textIn(thinking);
    if (calls?.length) next.toolCalls = [...answer.toolCalls, ...calls];
  }
  return line.done ? ended({ ...next, stats: statsOf(line) }) : next;
}

// Returns the answer after an interruption: "engine" (it was killed) or "connection" (it broke).
export function interrupted(answer, kind, now) {
  if (answer.ended || answer.waiting.includes(kind)) return answer;
  return { ...answer, waiting: [...answer.waiting, kind], brokenAt: answer.brokenAt ?? now };
}

// Returns the answer without the mark of an interruption that did not happen, such as a refused kill.
export function withoutInterruption(answer, kind) {
  return { ...answer, waiting: answer.waiting.filter((each) => each !== kind) };
}

// Returns the finished answer. `error` says why it ended early, or is "".
export function ended(answer, { error = answer.error, stopped = false } = {}) {
  const field = answer.text ? "text" : "thinking";
  const marks = answer.waiting.map((kind) => ({ field, at: answer[field].length, kind, pause_s: null }));
  return { ...answer, marks: [...answer.marks, ...marks], waiting: [], ended: true, error, stopped };
}

// Returns the pieces of one field, in order: texts and marks.
export function pieces(answer, field) {
  const found = [];
  let from = 0;
  for (const mark of answer.marks) {
    if (mark.field !== field) continue;
    if (mark.at > from) found.push(answer[field].slice(from, mark.at));
    found.push(mark);
    from = mark.at;
  }
  if (from < answer[field].length) found.push(answer[field].slice(from));
  return found;
}

// Lines that were sent before the kill may arrive after it, so the mark is placed at the first long pause.
function withMarks(answer, now, field) {
  if (!answer.waiting.length) return { ...answer };
  const since = answer.lastAt ?? answer.brokenAt;
  const isPause = now - since >= Math.max(SHORTEST_PAUSE_MS, PAUSE_FACTOR * (answer.usualGap_ms ?? 0));
  if (!isPause && !answer.waiting.includes("connection")) return { ...answer };
  const pause_s = (now - since) / 1000;
  const marks = answer.waiting.map((kind) => ({ field, at: answer[field].length, kind, pause_s }));
  return { ...answer, marks: [...answer.marks, ...marks], waiting: [], brokenAt: null };
}

function usualGap(answer, now) {
  if (answer.lastAt === null || answer.waiting.length) return answer.usualGap_ms;
  const gap_ms = now - answer.lastAt;
  return answer.usualGap_ms === null ? gap_ms : answer.usualGap_ms + SMOOTHING * (gap_ms - answer.usualGap_ms);
}

function statsOf({ done_reason: reason, eval_count: tokens, eval_duration: duration_ns, prompt_eval_count: promptTokens }) {
  const tokensPerS = tokens > 0 && duration_ns > 0 ? (tokens * 1e9) / duration_ns : null;
  return { reason, tokens, promptTokens, tokensPerS };
}

const textIn = (value) => (typeof value === "string" ? value : "");
const sentence = (error) => (typeof error === "string" ? error : error.message ?? JSON.stringify(error));
