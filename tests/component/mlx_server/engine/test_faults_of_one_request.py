"""Errors in the work for one request: only that request fails, and the others of the batch go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from types import SimpleNamespace
from typing import Any

import pytest

mx = pytest.importorskip("mlx.core")

from mlx_server.engine.background_workers import BackgroundWorkers  # noqa: E402
from mlx_server.engine.errors import EngineError  # noqa: E402
from mlx_server.engine.generation.batch import BatchLimits  # noqa: E402
from mlx_server.engine.generation.output_parser import OutputMarkers  # noqa: E402
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker  # noqa: E402
from mlx_server.engine.grammar.grammars import GrammarProcessor  # noqa: E402
from mlx_server.engine.models.language_model import LanguageModel  # noqa: E402
from mlx_server.engine.prompt_cache.model_cache import ModelCache  # noqa: E402
from mlx_server.engine.prompt_cache.store import BlockStore  # noqa: E402
from mlx_server.engine.scheduling.request import Request, RequestStatus  # noqa: E402
from mlx_server.engine.scheduling.request_table import EngineRequests  # noqa: E402
from mlx_server.engine.scheduling.runners.text_runner import TextRunner  # noqa: E402
from mlx_server.protocol import Done, Event, Failed, Generate, Sampling  # noqa: E402
from tests.component.mlx_server.engine.generation.test_token_rows import ROWS, tiny_llama  # noqa: E402

BAD = 7
"""A text with this token, and another one behind it, cannot be decoded."""
END = ROWS - 1
GREEDY = Sampling(temperature=0.0)


class Panic(BaseException):
    """What a panic of a library in Rust is in Python."""


def decode(ids: Sequence[int]) -> str:
    if BAD in ids[:-1]:
        raise Panic("index out of bounds")
    return "".join(chr(0x4E00 + token) for token in ids)


class BrokenConstraint:
    """A grammar that fails at the third token."""

    must_end, masks = False, 0

    def advance(self, token: int) -> None: ...

    def allowed_mask(self) -> bytes | None:
        self.masks += 1
        if self.masks == 3:
            raise ValueError("the grammar is lost")
        return None


class FakeGrammars:
    has_vocabulary = True

    def make_processor(self, schema: dict, emitted: Any, after_thought: Any) -> GrammarProcessor:
        if schema == {"compiles": False}:
            raise Panic("the compiler")
        constraint: Any = BrokenConstraint()
        return GrammarProcessor(constraint, frozenset({END}))

    def token_bytes(self, token: int) -> bytes:
        if token >= 0:
            raise KeyError(token)
        return b""


class FakeTokenizer:
    bos_token = None

    def __len__(self) -> int:
        return ROWS


class Runs:
    """The runner of a tiny model, and the requests that it runs."""

    def __init__(self, cache: ModelCache | None = None) -> None:
        anything: Any = FakeGrammars()
        prompts = PromptMaker(FakeTokenizer(), None, 512, ROWS)
        model = LanguageModel(
            tiny_llama(), FakeTokenizer(), 512, frozenset({END}), anything, OutputMarkers(), "tiny", prompts,
            decode,
        )  # fmt: skip
        guard: Any = SimpleNamespace(admit=lambda *_: None, extend_reservation=lambda *_: True)
        self.requests = EngineRequests()
        self.runner = TextRunner(
            "m",
            self.requests,
            model,
            BatchLimits(4, 32),
            BackgroundWorkers(lambda: None),
            cache or ModelCache(BlockStore(None, 0, 0), "tiny", {}),
            guard,
        )

    def answers(self, *ops: Generate) -> dict[str, Done | Failed]:
        """Run requests together, as the scheduler does, and return how each has ended."""
        ended: dict[str, Done | Failed] = {}
        for op in ops:
            request = Request(op)
            self.requests.add(request)
            self.runner.tokenize(request, 0.0)
            wait([request.tokenization])
            self._attempt(request, ended, lambda r=request: self.runner.take_tokens(r))  # type: ignore[misc]
            if request.status is RequestStatus.WAITING_FOR_MEMORY:
                self._attempt(request, ended, lambda r=request: self.runner.start(r, 0.0))  # type: ignore[misc]
        while len(self.requests):
            for request in self.runner.prepared():
                self._attempt(request, ended, lambda r=request: self.runner.join(r))  # type: ignore[misc]
            self._note(self.runner.step(lambda: 1.0), ended)
            self.runner.cache_pending_kv()
        return ended

    def _attempt(self, request: Request, ended: dict[str, Done | Failed], work: Callable[[], Any]) -> None:
        try:
            self._note(work() or (), ended)
        except EngineError as error:
            self.requests.finish(request)
            ended[request.id] = error.failed(request.id)

    def _note(self, events: Any, ended: dict[str, Done | Failed]) -> None:
        event: Event
        for event in events:
            if isinstance(event, (Done, Failed)):
                assert event.id not in ended, "it ended twice"
                ended[event.id] = event


@pytest.fixture
def runs() -> Iterator[Runs]:
    made = Runs()
    yield made
    made.runner.close()


def text(id: str, *ids: int, **more: Any) -> Generate:
    return Generate(id, "m", "text", prompt_ids=ids, max_tokens=6, sampling=GREEDY, **more)


@pytest.mark.parametrize(
    ("op", "work"),
    [
        (text("bad", 5, BAD), "adding a token to its answer"),  # its text
        (text("bad", 5, 6, emitted=(BAD, 8)), "making its prompt"),  # the replay of what was sent
        (text("bad", BAD, 5), "making its prompt"),  # its context
        (text("bad", 5, 6, top_logprobs=2), "adding a token to its answer"),
        (
            text("bad", 5, 6, json_schema={}),
            "adding a token to its answer",
        ),  # its grammar, in the batch's step
        (text("bad", 5, 6, json_schema={"compiles": False}), "compiling its grammar"),
    ],
    ids=["text", "replay", "context", "logprobs", "grammar", "compiler"],
)
def test_internal_error_in_one_request_fails_that_request_alone_and_is_logged_once(runs, capsys, op, work):
    """Earlier, such an error ended the engine, and after the request was resumed, the next two engines."""
    ended = runs.answers(text("before", 3, 4), op, text("after", 9, 4))
    failed = ended["bad"]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("internal_error", False)
    assert work in failed.message
    for id in ("before", "after"):
        done = ended[id]
        assert isinstance(done, Done) and done.reason == "length"
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (entry,) = [line for line in logged if line["event"] == "request_failed"]
    assert (entry["id"], entry["work"]) == ("bad", work)
    assert "Traceback" in entry["traceback"]


def test_request_that_fails_during_generation_is_removed_from_the_batch(runs):
    runs.answers(text("bad", 5, BAD))
    assert len(runs.runner._batch) == 0
    assert runs.answers(text("next", 3, 4))["next"].reason == "length"
