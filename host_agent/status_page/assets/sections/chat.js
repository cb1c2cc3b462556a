// A small chat to try a model, and to see an answer survive the death of its engine.

import { html, useEffect, useRef, useState } from "/assets/vendor/preact-htm.js";
import { get } from "/assets/api.js";
import { count, duration, rate } from "/assets/format.js";
import { Button, Empty, Panel } from "/assets/widgets.js";
import { pieces } from "/assets/sections/answer.js";
import { conversation, isRefused, killEngine, send, sentTurns, startOver, stop } from "/assets/sections/conversation.js";
import { imagesOf, TooLarge } from "/assets/sections/pictures.js";
import { Failure, listIn, textOf, useLoaded } from "/assets/sections/loaded.js";

const NEAR_THE_END_PX = 60;
const WHAT_BROKE = { engine: "the engine was killed here", connection: "the connection broke here" };
const IMAGES_LEFT_OUT = "The next messages are sent without these images: there is room for the newest ones only.";
const WAITS = { engine: "The engine was killed. The answer waits for a new one…", connection: "The connection broke. The page asks for the rest of the answer…" };

// Returns the names of the models that can chat, those in memory first.
async function loadNames() {
  const [tags, running] = await Promise.all([get("/gateway/api/tags"), get("/gateway/api/ps")]);
  const inMemory = new Set(listIn(running, "models").map((model) => model.name));
  return listIn(tags, "models")
    .filter((model) => (model.capabilities ?? ["completion"]).includes("completion"))
    .map((model) => ({ name: textOf(model.name), isLoaded: inMemory.has(model.name), seesImages: Boolean(model.capabilities?.includes("vision")) }))
    .sort((a, b) => b.isLoaded - a.isLoaded);
}

function Mark({ mark }) {
  const wentOn = mark.pause_s === null ? "" : `; the answer went on after ${duration(mark.pause_s)}`;
  return html`<span class="mark">${WHAT_BROKE[mark.kind]}${wentOn}</span>`;
}

const Written = ({ answer, field }) =>
  pieces(answer, field).map((piece) => (typeof piece === "string" ? piece : html`<${Mark} mark=${piece} />`));

function Stats({ answer }) {
  const { stats, stopped } = answer;
  const parts = [];
  if (stopped) parts.push("stopped");
  if (stats?.reason === "length") parts.push("ended at its limit");
  if (stats?.tokens > 0) parts.push(count(stats.tokens, "token"));
  if (stats?.tokensPerS) parts.push(rate(stats.tokensPerS));
  return parts.length > 0 && html`<p class="faint">${parts.join(" · ")}</p>`;
}

function Answer({ answer, model, refused }) {
  const isThinking = !answer.ended && !answer.text, wasBrokenThere = answer.marks.some((mark) => mark.field === "thinking");
  return html`<article class="turn assistant" aria-label=${`Answer of ${model}`} aria-busy=${!answer.ended}>
    ${answer.thinking && html`<details class="thinking" open=${wasBrokenThere}><summary>${isThinking ? "Thinking…" : "Thinking"}</summary>
      <div class="written"><${Written} answer=${answer} field="thinking" /></div></details>`}
    <div class="written"><${Written} answer=${answer} field="text" />${!answer.ended && html`<span class="cursor" aria-hidden="true"></span>`}</div>
    ${answer.toolCalls.map((call) => html`<pre class="wrap">${textOf(call?.function?.name)} ${textOf(call?.function?.arguments)}</pre>`)}
    ${answer.waiting.map((kind) => html`<p class="work" key=${kind}>${WAITS[kind]}</p>`)}
    ${answer.error && html`<${Failure} error=${{ message: answer.error }} />`}
    ${refused && html`<p class="faint">The next messages are sent without this one.</p>`}
    ${answer.ended && html`<${Stats} answer=${answer} />`}
  </article>`;
}

const Pictures = ({ pictures, onRemove }) => pictures.length > 0 && html`<div class="pictures">
  ${pictures.map((each) => html`<figure key=${each.url}><img src=${each.url} alt=${each.name} />
    ${onRemove && html`<button type="button" aria-label=${`Remove ${each.name}`} onClick=${() => onRemove(each)}>×</button>`}</figure>`)}
</div>`;

function Question({ turn, isSent }) {
  return html`<article class="turn user" aria-label="Your message"><${Pictures} pictures=${turn.images} />
    ${!isSent && html`<p class="faint">${IMAGES_LEFT_OUT}</p>`}<div class="written">${turn.text}</div></article>`;
}

// The turns of the conversation; it scrolls with the answer while the reader is at the end.
function Turns({ turns }) {
  const box = useRef(null), isAtEnd = useRef(true);
  useEffect(() => { if (isAtEnd.current) box.current.scrollTop = box.current.scrollHeight; }, [turns]);
  const scrolled = ({ target }) => {
    isAtEnd.current = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_THE_END_PX;
  };
  const sent = sentTurns(turns);
  return html`<div class="turns" ref=${box} onScroll=${scrolled} tabindex="0" role="group" aria-label="Conversation">
    ${!turns.length && html`<${Empty} text="Ask something. Then kill the engine while it answers, and see the answer go on." />`}
    ${turns.map((turn) => (turn.role === "user"
      ? html`<${Question} key=${turn.id} turn=${turn} isSent=${!turn.images.length || sent.get(turn)?.length !== 0} />`
      : html`<${Answer} key=${turn.id} answer=${turn.answer} model=${turn.model} refused=${isRefused(turn)} />`))}
  </div>`;
}

function Composer({ isRunning, model, seesImages }) {
  const [text, setText] = useState(""), [pictures, setPictures] = useState([]), [refusal, setRefusal] = useState(""), field = useRef(null);
  const shown = seesImages ? pictures : [];
  const add = async (files) => {
    try {
      setPictures(await imagesOf(files, pictures));
      setRefusal("");
    } catch (error) {
      if (!(error instanceof TooLarge)) throw error;
      setRefusal(error.message);
    }
  };
  const onChosen = async ({ target }) => {
    await add([...target.files]);
    target.value = ""; // the same file may be chosen again
  };
  const onPaste = (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (!seesImages || !files.length) return;
    event.preventDefault();
    add(files);
  };
  const submit = (event) => {
    event.preventDefault();
    if (isRunning || !model || !text.trim()) return;
    send(text.trim(), shown);
    setText("");
    setPictures([]);
    field.current.focus();
  };
  const onStop = () => {
    stop();
    field.current.focus();
  };
  const onKeyDown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event); };
  return html`<form class="composer" onSubmit=${submit}>
    <label for="chat-message">Message</label>
    <textarea id="chat-message" ref=${field} rows="3" value=${text} onInput=${(event) => setText(event.target.value)} onKeyDown=${onKeyDown} onPaste=${onPaste}
      placeholder="Enter sends it; Shift and Enter begin a new line."></textarea>
    <${Pictures} pictures=${shown} onRemove=${(gone) => setPictures(pictures.filter((each) => each !== gone))} />
    ${seesImages && html`<div class="line-form"><label for="chat-images">Images</label>
      <input type="file" id="chat-images" accept="image/*" multiple onChange=${onChosen} /></div>`}
    ${refusal && html`<${Failure} error=${{ message: refusal }} />`}
    <div class="composer-acts">
      <button class="strong" disabled=${isRunning || !model || !text.trim()}>Send</button>
      <button type="button" disabled=${!isRunning} onClick=${onStop}>Stop</button>
      <${Button} className="danger" confirm="Kill it with SIGKILL?" onClick=${killEngine}>Kill the engine now<//>
    </div>
  </form>`;
}

export function Chat() {
  const { model, turns, isRunning } = conversation.use();
  const { value: models, error } = useLoaded(loadNames);
  useEffect(() => {
    if (models?.length && !models.some((each) => each.name === model)) conversation.set({ model: models[0].name });
  }, [models]);
  return html`<${Panel} title="Chat" id="chat-panel" className="chat"
      actions=${turns.length > 0 && html`<${Button} onClick=${startOver}>New chat<//>`}>
    <${Failure} error=${error} />
    ${models && !models.length && html`<${Empty} text="No model that can chat is installed. Pull one under Models." />`}
    ${models?.length > 0 && html`<div class="line-form"><label for="chat-model">Model</label>
      <select id="chat-model" value=${model} disabled=${isRunning} onChange=${(event) => conversation.set({ model: event.target.value })}>
        ${models.map((each) => html`<option key=${each.name} value=${each.name}>${each.name}${each.isLoaded ? " (loaded)" : ""}</option>`)}
      </select></div>`}
    <${Turns} turns=${turns} />
    <${Composer} isRunning=${isRunning} model=${model} seesImages=${Boolean(models?.find((each) => each.name === model)?.seesImages)} />
  <//>`;
}
