// The conversation of the chat, which continues while another section is shown.

import { post } from "/assets/api.js";
import { EMPTY, ended, interrupted, withLine, withoutInterruption } from "/assets/sections/answer.js";
import { readAnswer } from "/assets/sections/answer_stream.js";
import { base64Of, turnsWithRoom } from "/assets/sections/pictures.js";
import { makeStore } from "/assets/sections/store.js";

const SHOW_EACH_MS = 50;

// turns: {id, role: "user", text, images: [{name, url}]} or {id, role: "assistant", model, answer}. isRunning: the last answer is being streamed.
export const conversation = makeStore({ model: "", turns: [], isRunning: false });
let controller = null, answer = null, timer = null, turnCount = 0;

// Sends a message with images, and reads the answer to its end. Errors become part of the answer.
export async function send(text, images = []) {
  const { model, turns, isRunning } = conversation.get();
  if (isRunning || !model || !text) return;
  const asked = [...turns, { id: ++turnCount, role: "user", text, images }];
  controller = new AbortController();
  answer = EMPTY;
  conversation.set({ turns: [...asked, { id: ++turnCount, role: "assistant", model, answer }], isRunning: true });
  const { signal } = controller;
  try {
    await readAnswer({ model, messages: messagesOf(asked), stream: true }, {
      signal,
      onLine: (line) => { if (!signal.aborted) change(withLine(answer, line, performance.now())); },
      onBreak: () => change(interrupted(answer, "connection", performance.now())),
    });
  } catch (error) {
    if (signal.aborted) return; // `stop` has ended the answer already
    change(ended(answer, { error: error.message }));
  }
  finish();
}

// Stops the answer that is being streamed, and keeps the part that has arrived.
export function stop() {
  if (!conversation.get().isRunning) return;
  controller.abort();
  change(ended(answer, { stopped: true }));
  finish();
}

// Kills the engine's process. The current answer pauses and continues; its mark counts from the sending of the request,
// because the pause may be over before the agent's response arrives.
export async function killEngine() {
  if (conversation.get().isRunning) change(interrupted(answer, "engine", performance.now()));
  try {
    await post("/services/mlx_engine/kill");
  } catch (error) {
    if (conversation.get().isRunning) change(withoutInterruption(answer, "engine"));
    throw error;
  }
}

// Begins a new conversation with the same model.
export function startOver() {
  stop();
  conversation.set({ turns: [] });
}

// Returns true for an answer of which nothing came but an error. It is left out of later requests together with its
// question, because what was refused once, such as too large a message, would be refused with each later one.
export function isRefused({ role, answer }) {
  return role === "assistant" && Boolean(answer.error) && !answer.text && !answer.thinking && !answer.toolCalls?.length;
}

// Returns the turns that a request sends, as a map from each to its images.
export function sentTurns(turns) {
  const kept = turns.filter((turn, at) => !isRefused(turn) && !(turns[at + 1] && isRefused(turns[at + 1])));
  const withImages = turnsWithRoom(kept);
  return new Map(kept.map((turn) => [turn, withImages.has(turn) ? turn.images : []]));
}

function messagesOf(turns) {
  const messages = [...sentTurns(turns)].map(([turn, images]) => (turn.role === "user"
    ? { role: "user", content: turn.text, ...(images.length && { images: images.map((each) => base64Of(each.url)) }) }
    : { role: "assistant", content: turn.answer.text }));
  return messages.filter((message) => message.role === "user" || message.content);
}

function change(next) {
  answer = next;
  timer ??= setTimeout(show, SHOW_EACH_MS);
}

function show() {
  clearTimeout(timer);
  timer = null;
  const { turns } = conversation.get();
  if (turns.length) conversation.set({ turns: [...turns.slice(0, -1), { ...turns.at(-1), answer }] });
}

function finish() {
  show();
  conversation.set({ isRunning: false });
}
