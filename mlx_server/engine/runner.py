"""One loaded model at work: its requests, started, stepped, cancelled. Lives in the MLX thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mlx_server.engine.answer_reader import AnswerReader, Marks
from mlx_server.engine.batching import Batch, Prefilled, Sampled
from mlx_server.engine.chances import chances
from mlx_server.engine.embedding_job import EmbeddingJob
from mlx_server.engine.embeddings.encoder import Encoder
from mlx_server.engine.errors import RequestError
from mlx_server.engine.generation import Generation
from mlx_server.engine.loading import LanguageModel
from mlx_server.engine.prompts import prompt_tokens
from mlx_server.engine.sampling import Processor, make_processors, make_sampler
from mlx_server.engine.text_stream import TextStream
from mlx_server.protocol import Chances, Done, Embed, Event, Generate, Prefill, Usage

Clock = Callable[[], float]
Admit = Callable[[Generate, int, int], None]
"""Promises memory to a request of so many prompt tokens and so many of answer, or raises."""

PROMPT_END_TOKENS = 16
"""Where a thought begun by the template must stand."""


@dataclass(frozen=True)
class BatchLimits:
    """How many requests run together, and how much prompt is processed in one step (it delays the others)."""

    max_running: int
    prefill_step_tokens: int


class GenerateRunner:
    """The requests of one language model, in one batch."""

    def __init__(self, language_model: LanguageModel, limits: BatchLimits, admit: Admit) -> None:
        self._admit = admit
        self._lm = language_model
        self._batch = Batch(language_model.model, limits.max_running, limits.prefill_step_tokens)
        self._running: dict[int, Generation] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, op: Generate | Embed, now: float, load_s: float) -> list[Event]:
        """Take up a request; the events it causes at once. Raises RequestError."""
        if isinstance(op, Embed):
            raise RequestError("not_an_embedding_model", f"Model {op.model} generates text; it cannot embed.")
        prompt = prompt_tokens(op, self._lm.tokenizer)
        limit = answer_limit(op, len(prompt), self._lm.context_tokens)
        context = prompt if op.kind == "text" else ()
        text = TextStream(self._lm.decode, op.stop, context)
        reader, wake_after = self._reader(op, prompt)
        generation = Generation(
            op.id, prompt, limit, self._lm.end_tokens, text, now, load_s, reader, op.top_logprobs
        )
        if done := generation.replay(op.emitted, now):
            return [done]
        self._admit(op, len(prompt), limit)
        sampler = make_sampler(op.sampling, len(op.emitted))
        uid = self._batch.add([*prompt, *op.emitted], sampler, self._processors(op, wake_after))
        self._running[uid] = generation
        return []

    def _reader(self, op: Generate, prompt: Sequence[int]) -> tuple[AnswerReader, tuple[int, ...]]:
        """Takes the answer apart; and the tokens that a thought begun in the prompt ends with."""
        marks = self._lm.marks
        if op.kind == "text":
            return AnswerReader(Marks()), ()
        if op.think and not marks.think:
            raise RequestError("invalid_request", f"Model {op.model} does not support thinking.")
        end_of_prompt = self._lm.decode(prompt[-PROMPT_END_TOKENS:]).rstrip()
        thinking = marks.think is not None and end_of_prompt.endswith(marks.think[0])
        reader = AnswerReader(marks, op.calls, op.tools or (), thinking)
        if not thinking or marks.think is None:
            return reader, ()
        return reader, tuple(self._lm.tokenizer.encode(marks.think[1], add_special_tokens=False))

    def _processors(self, op: Generate, wake_after: tuple[int, ...]) -> list[Processor]:
        processors = make_processors(op.sampling)
        if op.json_schema is not None:
            processors.append(self._lm.grammars.processor(op.json_schema, op.emitted, wake_after))
        return processors

    def step(self, clock: Clock) -> Iterator[Event]:
        """One step of the batch."""
        outcomes = list(self._batch.step())
        now = clock()
        for outcome in outcomes:
            generation = self._running[outcome.uid]
            if isinstance(outcome, Prefilled):
                yield Prefill(generation.id, outcome.done, outcome.total)
                continue
            yield from generation.accept(outcome.token, now, self._chances(generation, outcome))
            if generation.done:
                self._drop(outcome.uid)

    def _chances(self, generation: Generation, drawn: Sampled) -> Chances | None:
        if generation.top_logprobs is None:
            return None
        token_bytes = self._lm.grammars.token_bytes
        return chances(drawn.token, drawn.logprobs, generation.top_logprobs, token_bytes)

    def cancel(self, request: str, now: float) -> Done | None:
        """End a request; its place and KV are free at once. None where it is not ours."""
        for uid, generation in self._running.items():
            if generation.id == request:
                self._drop(uid)
                return generation.cancel(now)
        return None

    def generations(self) -> list[Generation]:
        return list(self._running.values())

    def requests(self) -> list[str]:
        """Ids of what is in flight."""
        return [generation.id for generation in self._running.values()]

    def close(self) -> None:
        """Drop everything in flight."""
        self._running.clear()
        self._batch.close()

    def _drop(self, uid: int) -> None:
        del self._running[uid]
        self._batch.remove(uid)


class EmbedRunner:
    """The requests of one embedding model, one batch of one of them a step."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._jobs: deque[EmbeddingJob] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def start(self, op: Generate | Embed, now: float, load_s: float) -> list[Event]:
        """Take up a request. Raises RequestError."""
        if isinstance(op, Generate):
            raise RequestError("not_a_chat_model", f"Model {op.model} embeds text; it cannot generate.")
        self._jobs.append(EmbeddingJob(op, self._encoder, now, load_s))
        return []

    def step(self, clock: Clock) -> Iterator[Event]:
        """One batch of the first job, which then goes to the back: a big one does not hold up small ones."""
        job = self._jobs.popleft()
        if job.step():
            yield job.answer(clock())
        else:
            self._jobs.append(job)

    def cancel(self, request: str, now: float) -> Done | None:
        """Drop a job. None where it is not ours."""
        for job in self._jobs:
            if job.id == request:
                self._jobs.remove(job)
                return Done(request, "cancelled", Usage(0, 0))
        return None

    def requests(self) -> list[str]:
        """Ids of what is in flight."""
        return [job.id for job in self._jobs]

    def close(self) -> None:
        """Drop everything in flight."""
        self._jobs.clear()


Runner = GenerateRunner | EmbedRunner


def answer_limit(op: Generate, prompt_tokens: int, model_context_tokens: int) -> int:
    """How many tokens the answer may have: as asked for, within the context. Raises RequestError."""
    context = min(op.context_tokens or model_context_tokens, model_context_tokens)
    if prompt_tokens >= context:
        raise RequestError(
            "context_exceeded",
            f"The prompt has {prompt_tokens} tokens, and the context of {op.model} is {context}: shorten it.",
            prompt_tokens=prompt_tokens,
            context_tokens=context,
        )
    room = context - prompt_tokens
    return room if op.max_tokens is None or op.max_tokens < 0 else min(op.max_tokens, room)
