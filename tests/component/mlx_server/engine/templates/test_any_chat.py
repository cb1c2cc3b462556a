"""Any chat, with any tools and variables, has a prompt or is refused: no exception but an EngineError."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mlx_lm.utils import load_tokenizer

from mlx_server.engine.errors import EngineError
from mlx_server.engine.generation.output_parser import OutputMarkers
from mlx_server.engine.generation.prompts.prompt_maker import PromptMaker
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess
from mlx_server.engine.models.tokenizers import decoder_of
from mlx_server.engine.scheduling.runners.prompt_preparation import PromptPreparation
from mlx_server.protocol import MAX_NESTING, Generate

pytestmark = pytest.mark.model

STYLES = sorted(Path(__file__).with_name("styles").glob("*.jinja"))
CONTEXT_TOKENS = 4096


def nested(levels: int, inner: Any = 1) -> Any:
    for _ in range(levels):
        inner = [{"a": inner}]
    return inner


SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(
        ["\ud83d", "user", "assistant", "system", "tool", "{", '{"x": NaN}', "<think>", 10**400]
    )
)
KEYS = st.sampled_from(
    ["role", "content", "function", "name", "arguments", "tool_calls", "type", "text", "x"]
)
ANYTHING: Any = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


def mostly(usual: Any) -> Any:
    return usual | usual | ANYTHING


FUNCTION = st.fixed_dictionaries({}, optional={"name": mostly(st.text(max_size=5)), "arguments": ANYTHING})
CALL = st.fixed_dictionaries({}, optional={"function": mostly(FUNCTION), "id": ANYTHING})
MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": mostly(st.sampled_from(["user", "assistant", "system", "tool"])),
        "content": mostly(st.text(max_size=10)),
        "tool_calls": mostly(st.lists(mostly(CALL), max_size=2)),
        "reasoning_content": ANYTHING,
        "thinking": ANYTHING,
    },
)
TOOL = st.fixed_dictionaries({}, optional={"type": ANYTHING, "function": mostly(FUNCTION), "name": ANYTHING})
CHAT = st.builds(
    lambda messages, tools, **more: Generate(
        "r", "m", "chat", messages=tuple(messages), tools=tuple(tools), **more
    ),
    st.lists(MESSAGE, max_size=3),
    st.lists(TOOL, max_size=2),
    template=st.none()
    | st.dictionaries(st.sampled_from(["enable_thinking", "x", "tools", "self"]), ANYTHING),
    think=st.sampled_from((None, True, False)),
    tool_choice=st.sampled_from(("none", "auto", "required")),
    emitted=st.lists(st.integers(-1, 60_000), max_size=3).map(tuple),
    max_tokens=st.integers(-1, 4) | st.none(),
    context_tokens=st.none() | st.integers(1, 5000),
    count_only=st.booleans(),
)
CALLS: Any = [{"function": {"name": "f", "arguments": {"x": float("nan")}}}, {"function": "f"}]
DEEP: Any = {"role": "user", "content": [nested(MAX_NESTING // 2 - 4)]}


@pytest.fixture(scope="module")
def preparations(models_dir: Path) -> Iterator[dict[str, PromptPreparation]]:
    process = TemplateProcess()
    made = {}
    for path in STYLES:
        tokenizer = load_tokenizer(models_dir / "smollm2__135m")
        tokenizer._tokenizer.chat_template = path.read_text()
        prompts = PromptMaker(tokenizer, process, CONTEXT_TOKENS, len(tokenizer))
        model: Any = SimpleNamespace(
            prompts=prompts,
            decode=decoder_of(tokenizer),
            markers=OutputMarkers(("<think>", "</think>")),
            end_tokens=frozenset({2}),
        )
        made[path.stem] = PromptPreparation(model, finds_shared_prefix=True)
    yield made
    process.close()


@pytest.mark.parametrize("style", [path.stem for path in STYLES])
@given(op=CHAT)
@example(op=Generate("r", "m", "chat", messages=({"role": "assistant", "content": "", "tool_calls": CALLS},)))
@example(
    op=Generate("r", "m", "chat", messages=({"role": "assistant", "content": "", "tool_calls": CALLS[:1]},))
)
@example(op=Generate("r", "m", "chat", messages=(DEEP,)))
@settings(max_examples=60)
def test_any_chat_is_rendered_to_a_prompt_or_refused_with_a_known_code(preparations, style, op):
    refusal = None
    try:
        prompt = preparations[style].prepare(op, 0.0, 0.0)
    except EngineError as error:
        refusal = error.code
    assert refusal in (None, "invalid_request", "context_exceeded", "empty_prompt")
    assert refusal or len(prompt.generation.prompt) > 0
