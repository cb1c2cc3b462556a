"""A template gives the same text, or the same objection, in the template process as in transformers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from mlx_server.engine.generation.prompts.templates.limits import TemplateLimits, TemplateRefusal
from mlx_server.engine.generation.prompts.templates.process import TemplateProcess
from mlx_server.engine.generation.prompts.templates.remote_render import RemoteTemplate, rendered_by

STYLES = Path(__file__).with_name("styles")
"""Chat templates in the styles of well-known models, as short as the features that they use allow."""

TEXT = st.text(max_size=20) | st.sampled_from(
    ["Hi <b>&'\"", " \n trimmed \t", "<think>why</think>so", "{{ 1 }}"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
CALL = st.fixed_dictionaries(
    {
        "function": st.fixed_dictionaries(
            {"name": TEXT, "arguments": TEXT | st.dictionaries(TEXT, JSON, max_size=2)}
        )
    }
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "user", "assistant", "system", "tool"]), "content": TEXT},
    optional={"tool_calls": st.lists(CALL, max_size=2), "reasoning_content": TEXT, "name": TEXT},
)
TURNS = st.lists(TEXT, min_size=1, max_size=5).map(  # in the order that Mistral and Gemma want
    lambda texts: [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
)
TOOL = st.builds(
    lambda name, properties: {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": properties}},
    },
    TEXT,
    st.dictionaries(TEXT, st.fixed_dictionaries({"type": TEXT | st.none()}), max_size=3),
)


@pytest.fixture(scope="module")
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess(TemplateLimits(seconds=60))  # a busy machine may take seconds
    process.start()
    yield process
    process.close()


def tokenizer(template: str) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>")),
        bos_token="<s>",
        eos_token="</s>",
        chat_template=template,
    )


TOKENIZERS = {path.stem: tokenizer(path.read_text()) for path in sorted(STYLES.glob("*.jinja"))}


def outcome(name: str, *arguments: Any, **options: Any) -> str:
    """Return the text, or the objection."""
    try:
        return TOKENIZERS[name].apply_chat_template(*arguments, tokenize=False, **options)
    except Exception as error:
        # Its kind is known to transformers alone; the text reaches clients.
        return f"refused: {' '.join(str(error).split()) or type(error).__name__}"


@pytest.mark.parametrize("name", TOKENIZERS)
@given(
    messages=TURNS | st.lists(MESSAGE, min_size=1, max_size=4),
    tools=st.none() | st.lists(TOOL, max_size=2),
    prompt=st.booleans(),
    variables=st.dictionaries(
        st.sampled_from(["enable_thinking", "date_string", "bos_token"]), JSON, max_size=2
    ),
)
@settings(max_examples=40)
def test_template_process_renders_the_same_text_as_transformers(
    process, name, messages, tools, prompt, variables
):
    options = {"tools": tools, "add_generation_prompt": prompt, **variables}
    with rendered_by(process):
        ours = outcome(name, messages, **options)
        continued = outcome(name, messages, tools=tools, continue_final_message=True)
    chat_template_utils._compile_jinja_template = chat_template_utils._cached_compile_jinja_template
    try:
        assert outcome(name, messages, **options) == ours
        assert outcome(name, messages, tools=tools, continue_final_message=True) == continued
    finally:
        chat_template_utils._compile_jinja_template = RemoteTemplate


def test_template_process_passes_on_the_templates_own_error(process):
    with rendered_by(process), pytest.raises(TemplateRefusal, match="roles must alternate"):
        TOKENIZERS["mistral"].apply_chat_template([{"role": "assistant", "content": ""}], tokenize=False)


def test_template_outside_a_template_process_raises_instead_of_rendering():
    """A template must never run on a thread of the engine, whichever function of transformers renders it."""
    with pytest.raises(RuntimeError, match="template process only"):
        TOKENIZERS["chatml"].apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)


@pytest.mark.parametrize(
    "attempt",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
        "{{ ''|attr('__class__') }}{{ messages.append(1) }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{% include '/etc/passwd' %}",
        "{{ namespace(_x=1) }}",
        "{% set n = namespace() %}{% set n._x = 1 %}",
    ],
)
def test_template_that_tries_to_leave_the_sandbox_is_refused(process, attempt):
    with pytest.raises(TemplateRefusal):
        process.render(attempt, {"messages": []})
