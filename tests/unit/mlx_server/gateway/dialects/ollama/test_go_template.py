"""The Go templates of /api/generate: what they render, and what is refused by name."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_server.gateway.dialects.ollama.go_template import render_go_template
from mlx_server.gateway.dialects.ollama.model_bodies import CreateBody
from mlx_server.gateway.errors import BadRequest

VALUES = {
    "System": "Be brief.",
    "Prompt": "Who?",
    "Suffix": "",
    "Messages": [{"Role": "system", "Content": "Be brief."}, {"Role": "user", "Content": "Who?"}],
    "Think": False,
    "Response": "",
}
CHATML = """{{- if .System }}<|im_start|>system
{{ .System }}<|im_end|>
{{ end }}{{ if .Prompt }}<|im_start|>user
{{ .Prompt }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ .Response }}<|im_end|>"""
MESSAGES = """{{ range .Messages }}{{ if eq .Role "user" }}[INST] {{ .Content }} [/INST]
{{- else if or (eq .Role "system") (eq .Role "tool") }}<{{ .Role }}>{{ .Content }}
{{- end }}{{ end }}"""


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("Q: {{ .Prompt }} A:", "Q: Who? A:"),
        ("{{.Prompt}}", "Who?"),
        ("no action", "no action"),
        (
            CHATML,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (MESSAGES, "<system>Be brief.[INST] Who? [/INST]"),
        ("a  {{- /* a comment */ -}}  b", "ab"),
        ("a {{ .Prompt -}} \n b", "a Who?b"),
        ("{{ if .Suffix }}x{{ else }}y{{ end }}", "y"),
        ("{{ if not .Suffix }}x{{ end }}{{ if and .System .Suffix }}y{{ end }}", "x"),
        ('{{ if ne .Prompt `Why?` }}{{ "a\\n" }}{{ end }}{{ $.Prompt }}', "a\nWho?"),
        ("{{ range .Messages }}{{ $.Prompt }}{{ end }}", "Who?Who?"),
    ],
)
def test_go_template_rendered_for_a_generate_request_ends_before_the_response(template, prompt):
    assert render_go_template(template, VALUES) == prompt


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ .Nope }}", "'.Nope'"),
        ("{{ range $i, $m := .Messages }}x{{ end }}", "$i, $m := .Messages"),
        ("{{ range .Messages }}{{ range $.Messages }}x{{ end }}{{ end }}", "`range` within `range`"),
        ("{{ range .Prompt }}x{{ end }}", "`.Messages` only"),
        ("{{ messages }}", "{{ messages }}"),
        ('{{ printf "%s" .Prompt }}', "printf"),
        ("{{ .Prompt | upper }}", "upper"),
        ("{{ if .System }}", "`if` has no `end`"),
        ("{{ end }}", "outside of a block"),
        ("{{ .Prompt", "not closed"),
        ("{{ .Messages }}", "a list"),
        ("{{ if eq .Role }}{{ end }}", "eq .Role"),
        ("{{ ((.Prompt) }}", "((.Prompt)"),
        ("{{if .System}}" * 100 + "{{end}}" * 100, "deeper than 32"),
        ("{{" * 40_000, "longer than"),
        ("{{ " + "(" * 100 + ".Prompt" + ")" * 100 + " }}", "not read here"),
    ],
)
def test_generate_request_whose_go_template_has_unsupported_syntax_is_refused_with_the_remedy(
    template, named
):
    with pytest.raises(BadRequest) as caught:
        render_go_template(template, VALUES)
    assert caught.value.message.startswith("template: ") and named in caught.value.message
    assert "`raw`" in caught.value.message


pieces = st.sampled_from(
    ["{{", "}}", "{{ if .System }}", "{{ end }}", "{{ else }}", "{{ range .Messages }}", "{{ .Prompt }}"]
    + ["-", '"', "`", "(", ")", " ", "a", ".Role", "eq", "$", "else if .Suffix", "{{ .Response }}", "\\"]
)


@given(st.lists(pieces, max_size=15).map("".join))
def test_go_template_of_any_text_is_rendered_or_refused(template):
    with contextlib.suppress(BadRequest):
        assert isinstance(render_go_template(template, VALUES), str)


def test_ollama_create_with_an_untranslatable_go_template_is_refused_naming_the_field():
    body = CreateBody.model_validate({"model": "m", "from": "base", "template": "{{ end }}"})
    with pytest.raises(
        BadRequest, match="^template: .* stands outside of a block; send a chat template in Jinja"
    ):
        body.preset("base", "")
