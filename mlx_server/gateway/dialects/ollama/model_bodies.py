"""The bodies of Ollama's routes that pull, make, copy and show models. Pure."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from pydantic import Field, field_validator

from mlx_server.gateway.dialects.bodies import Body, ListOf, ModelName, validated
from mlx_server.gateway.dialects.ollama.messages import Message, chat_messages
from mlx_server.gateway.dialects.ollama.options import Options
from mlx_server.gateway.dialects.ollama.schema import ModelBody
from mlx_server.gateway.errors import BadRequest
from mlx_server.gateway.images.reader import ImageReader
from mlx_server.model_store import Preset
from mlx_server.model_store.ollama_store.go_syntax import MAX_CHARS, UntranslatableTemplate
from mlx_server.model_store.ollama_store.go_to_jinja import is_go_template, to_jinja

_NOT_QUANTIZED = "weights are not quantized here: pull a model that is (mlx-community/NAME-4bit)"
_NOT_MADE = {
    "modelfile": "a Modelfile is read by the client since Ollama 0.5.5: send `from`, `system`, `parameters`, "
    "`messages` and `template`",
    "quantize": _NOT_QUANTIZED,
    "quantization": _NOT_QUANTIZED,
    "remote_host": "this server has no models of other servers",
    "draft_files": "draft models are not used here",
}


_TRAINING_TAG = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""A tag that marks a model's answers for training. transformers understands it; Jinja would refuse it."""


class PullBody(ModelBody):
    """The body of /api/pull. `force`, which Ollama does not have, allows a model that does not fit into
    memory.
    """

    force: bool = False


class ShowBody(ModelBody):
    """The body of /api/show. `verbose` asks for the list of the tensors."""

    verbose: bool | None = None


class CopyBody(Body):
    source: ModelName
    destination: ModelName


class CreateBody(ModelBody):
    """The body of /api/create. The model is made `from` another model, or of uploaded `files` (name →
    digest). `adapters` names the uploaded files of one adapter in the same form.

    Of the fields that ask for something unsupported, `quantize`, its older name `quantization`, `remote_host`
    and `draft_files` (the files of a draft model) are refused. `modelfile` is ignored if `from` or `files` is
    given, and refused otherwise.
    """

    from_: str | None = Field(default=None, alias="from", max_length=255)
    files: dict[str, str] | None = None
    system: str | None = None
    template: str | None = None
    license: str | ListOf[str] | None = None
    parameters: dict[str, Any] | None = None
    messages: ListOf[Message] | None = None
    modelfile: str | None = None
    adapters: dict[str, str] | None = None
    quantize: str | None = None
    quantization: str | None = None
    remote_host: str | None = None
    draft_files: dict[str, str] | None = None

    @field_validator("parameters")
    @classmethod
    def _must_be_options(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        validated(value or {}, Options)
        return value

    def check(self) -> None:
        """Raise BadRequest if the body names neither a model nor files, or has fields that ask for something
        unsupported.
        """
        if not self.from_ and not self.files:
            if self.modelfile:
                _refuse("modelfile")
            raise BadRequest("invalid_request", "neither 'from' or 'files' was specified")
        for name in _NOT_MADE:
            if name != "modelfile" and getattr(self, name):
                _refuse(name)

    def preset(self, parent: str, template_of_parent: str) -> Preset:
        """Return the preset that the body adds to the model `parent`. Raises BadRequest if the template or a
        message cannot be used.

        A template that equals `template_of_parent` is not added: `ollama show --modelfile` writes the
        parent's template out, and clients send it back.
        """
        licenses = [self.license] if isinstance(self.license, str) else self.license or []
        template = self.template or ""
        if template.strip() == template_of_parent.strip():
            template = ""
        return Preset(
            parent=parent,
            system=self.system or "",
            template=_in_jinja(template),
            template_source=template if is_go_template(template) else "",
            parameters=_as_read(self.parameters or {}),
            messages=chat_messages(self.messages, ImageReader(self.model)) if self.messages else (),
            licenses=tuple(text for text in licenses if text),
        )


def _in_jinja(template: str) -> str:
    """Return a chat template in Jinja. A template in Go's language is translated. Raises BadRequest if the
    template cannot be translated, is too long, or is not valid Jinja.
    """
    if is_go_template(template):
        try:
            return to_jinja(template)
        except UntranslatableTemplate as error:
            remedy = "send a chat template in Jinja, or leave it out to use that of the model"
            raise BadRequest("not_supported", f"template: {error}; {remedy}", field="template") from error
    if len(template) > MAX_CHARS:
        raise BadRequest("invalid_request", f"template: it is longer than {MAX_CHARS} characters")
    import jinja2  # at the first use: it takes 1.5 MB of memory, and few clients send templates

    try:
        environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"])
        environment.parse(_TRAINING_TAG.sub("", template))
    except (jinja2.TemplateError, RecursionError) as error:
        raise BadRequest("invalid_request", f"template: it is no template in Jinja: {error}") from error
    return template


def _as_read(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the `parameters` of a /api/create body without those whose value is None. A parameter that is
    also one of the `options` of generation requests is checked and converted like such an option. Raises
    BadRequest if this check fails.
    """
    read = validated(parameters, Options).model_dump(include=set(parameters))
    return {name: value for name, value in (parameters | read).items() if value is not None}


def _refuse(field: str) -> NoReturn:
    raise BadRequest("not_supported", f"{field}: {_NOT_MADE[field]}.", field=field)
