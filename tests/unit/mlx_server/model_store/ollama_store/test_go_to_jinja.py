"""Chat templates in Go's language, translated to Jinja and rendered as the engine does."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_server.engine.generation.prompts.templates.renderer import make_environment
from mlx_server.model_store.ollama_store.go_syntax import UntranslatableTemplate
from mlx_server.model_store.ollama_store.go_to_jinja import is_go_template, to_jinja

SYSTEM, ASK, ANSWER, MORE = (
    {"role": role, "content": content}
    for role, content in (("system", "Sys"), ("user", "One?"), ("assistant", "1."), ("user", "Two?"))
)
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}],
}
RESULT = {"role": "tool", "content": "7", "name": "f"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

ONE_TURN = """{{- if .System }}<s>{{ .System }}</s>
{{ end }}<u>{{ .Prompt }}</u>
<a>{{ .Response }}</a>
"""
CONVERSATION = """{{- if .Messages }}
{{- if or .System .Tools }}<s>{{ .System }}
{{- if .Tools }} Tools:{{ range .Tools }} {{ . }}{{ end }}{{ end }}</s>
{{ end }}
{{- range $i, $_ := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 -}}
{{- if eq .Role "user" }}<u>{{ .Content }}</u>
{{ else if eq .Role "assistant" }}<a>
{{- if .Content }}{{ .Content }}
{{- else if .ToolCalls }}
{{- range .ToolCalls }}<call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</call>
{{- end }}{{ end }}
{{- if not $last }}</a>
{{ end }}
{{- else if eq .Role "tool" }}<r>{{ .Content }}</r>
{{ end }}
{{- if and (ne .Role "assistant") $last }}<a>{{ end }}
{{- end }}
{{- else }}{{ .Prompt }}{{ end }}"""


def rendered(template: str, *messages: Any, **variables: Any) -> str:
    """Return the text with `variables`, and with `tools`, which transformers always gives."""
    jinja = make_environment().from_string(to_jinja(template))
    return jinja.render(messages=list(messages), **({"tools": None} | variables))


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ((ASK,), "<u>One?</u>\n<a>"),
        ((SYSTEM, ASK), "<s>Sys</s>\n<u>One?</u>\n<a>"),
        ((SYSTEM, ASK, ANSWER, MORE), "<s>Sys</s>\n<u>One?</u>\n<a>1.</a>\n<u>Two?</u>\n<a>"),
        ((ASK, ANSWER, SYSTEM, MORE), "<u>One?</u>\n<a>1.</a>\n<s>Sys</s>\n<u>Two?</u>\n<a>"),
        ((ASK, MORE), "<u>One?\n\nTwo?</u>\n<a>"),
        ((ASK, ANSWER), "<u>One?</u>\n<a>1."),
    ],
)
def test_single_turn_go_template_is_rendered_once_per_turn_and_the_last_answer_is_left_open(messages, text):
    assert rendered(ONE_TURN, *messages) == text


def test_go_template_of_one_turn_without_a_response_field_gets_one():
    assert rendered("{{ .Prompt }}>", ASK, ANSWER, MORE) == "One?>1.Two?>"


def test_go_template_of_a_conversation_renders_messages_tool_calls_and_tools():
    text = rendered(CONVERSATION, SYSTEM, ASK, CALL, RESULT, tools=[TOOL])
    assert text == (
        '<s>Sys Tools: {"type": "function", "function": {"name": "f", "parameters": {}}}</s>\n<u>One?</u>\n'
        '<a><call>{"name": "f", "arguments": {"x": 1}}</call></a>\n<r>7</r>\n<a>'
    )
    assert rendered(CONVERSATION, ASK, ANSWER) == "<u>One?</u>\n<a>1."


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{{ range .Messages }}{{ printf "%s=%v;" .Role .Content }}{{ end }}', "user=One?;"),
        ("{{ len .Messages }}{{ (index .Messages 0).Role }}", None),
        ("{{ with index .Messages 0 }}{{ .Role }}{{ end }}", "user"),
        ('{{ $x := "a\\n{{ b }}" }}{{ $x }}', None),
        ("{{ $x := 1 }}{{ range .Messages }}{{ $x = 2 }}{{ end }}{{ $x }}", "2"),
        ("{{ range .Messages }}{{ .Content | json }}{{ break }}{{ end }}", '"One?"'),
        ("{{/* a remark */}}{{ range .Tools }}x{{ else }}none{{ end }}{{ .Messages | len }}", "none1"),
        ("  {{- 'x' }}", None),
        ("{% raw %}ä😀 \"'\\ {{ range .Messages }}{{ end }}", "{% raw %}ä😀 \"'\\ "),
        (
            "{{ if and $.IsThinkSet (eq .ThinkLevel `high`) }}T{{ end }}{{ .Messages | len }}",
            "1",
        ),
    ],
)
def test_go_template_expression_gives_the_expected_text_or_is_refused_as_untranslatable(template, text):
    if text is None:
        with pytest.raises(UntranslatableTemplate, match="."):
            to_jinja(template)
    else:
        assert rendered(template, ASK) == text


def test_go_template_receives_the_thinking_switch_and_its_level():
    template = "{{ .Messages | len }}{{ if .IsThinkSet }}{{ .Think }} {{ .ThinkLevel }}{{ end }}"
    assert rendered(template, ASK) == "1"
    assert rendered(template, ASK, enable_thinking=True, reasoning_effort="high") == "1true high"


@pytest.mark.parametrize(
    "template",
    [
        "{{ if .System }}",
        "{{ end }}",
        "{{ .Prompt",
        "{{ template `x` }}",
        "{{ call .System }}",
        "{{ if }}x{{ end }}",
        "{{ ((((.Prompt }}",
        "{{ range $i, $j.x := .Messages }}{{ end }}",
        "{{ if .System }}" * 40,
        "{{ .Prompt }}" * 10_000,
    ],
)
def test_go_template_that_cannot_be_translated_to_jinja_raises_an_error_with_a_message(template):
    with pytest.raises(UntranslatableTemplate, match="."):
        to_jinja(template)


@pytest.mark.parametrize("template", ["{{ $x.__class__ }}", "{{ .Prompt.__class__.__mro__ }}"])
def test_go_template_field_is_read_as_a_dictionary_item_not_as_an_attribute(template):
    translated = to_jinja(template)
    make_environment().from_string(translated)
    assert ".__" not in translated


def test_jinja_and_plain_text_are_not_mistaken_for_go_templates():
    assert not is_go_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert not is_go_template("{{- bos_token }}{{ messages[0]['content'] }}")
    assert not is_go_template("Q: A:")
    assert is_go_template(ONE_TURN)
