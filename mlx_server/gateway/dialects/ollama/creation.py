"""Serve /api/create: make a model from uploaded files or from another model. The other model is pulled first
if it is missing.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

from mlx_server.gateway.dialects.context import GatewayContext
from mlx_server.gateway.dialects.ollama.model_bodies import CreateBody
from mlx_server.gateway.dialects.ollama.pull import SUCCESS, Pulls
from mlx_server.gateway.errors import BadRequest, NotFound, from_model_store, quoted
from mlx_server.gateway.requests.ticket import ClientDisconnected
from mlx_server.model_store import ModelEntry, ModelStoreError, Preset, make, making
from mlx_server.model_store.files.model_folder import chat_template
from vestal.config import is_valid_name

_numbers = itertools.count(1)
CONVERSIONS = ThreadPoolExecutor(2, thread_name_prefix="make-model")
"""Runs the conversions of uploaded files, which take minutes. More of them wait. All other requests need the
threads of the event loop's own executor.
"""


class Creation:
    """Creates the model that `body`, the body of a POST /api/create, describes: with progress reports for the
    client (`steps`) or without them (`finished`). If the model is made from another model that is missing,
    `pulls` downloads that one first.
    """

    def __init__(self, context: GatewayContext, pulls: Pulls, body: CreateBody) -> None:
        self.id = f"create-{next(_numbers)}"
        self._context = context
        self._pulls = pulls
        self._body = body
        self._cancelled = False

    async def check(self) -> None:
        """Raise GatewayError if the body has a mistake that can be found before the creation of the model
        begins.
        """
        body = self._body
        check_name("model", body.model)
        body.check()
        try:
            await asyncio.to_thread(making.check_replaceable, self._context.config, body.model)
            uploads = (body.files or {}) | (body.adapters or {})
            await asyncio.to_thread(making.check_uploads, self._context.config, uploads)
        except ModelStoreError as error:
            raise from_model_store(error) from error
        base = await self._base()
        if body.from_ and base is None:
            await self._pulls.check(body.from_)
        body.preset("", _template_of(base) if base else "")

    def cancel(self) -> None:
        """Stop before the next step. This is called when the client leaves."""
        self._cancelled = True

    async def steps(self) -> AsyncIterator[dict[str, Any]]:
        """Create the model, and yield each step as Ollama reports it. Raises GatewayError if a step fails,
        and ClientDisconnected after `cancel`.
        """
        body, config = self._body, self._context.config
        base = await self._base()
        executor: Executor | None = None
        if body.from_ and base is None:
            follower = self._pulls.follow(body.from_)
            try:
                async for step in follower.steps():
                    self._check_client()
                    yield step
            finally:
                follower.cancel()
            base = await self._context.installed_models.get(body.from_)
        if base is None:
            added = body.preset("", "")
            yield {"status": "converting model"}
            files, adapter = body.files or {}, body.adapters
            change = partial(making.make_of_files, config, body.model, files, added, adapter)
            executor = CONVERSIONS
        else:
            added = body.preset(base.name, _template_of(base))
            yield {"status": f"using existing layer sha256:{base.digest}"}
            change = partial(make, config, body.model, base, added, body.adapters)
        for text in _layers(added):
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            yield {"status": f"creating new layer sha256:{digest}"}
        yield {"status": "writing manifest"}
        await change_store(self._context, partial(self._unless_cancelled, change), executor)
        yield SUCCESS

    async def finished(self) -> None:
        """Create the model without progress reports, and return when it is installed. Raises GatewayError if
        a step fails, and ClientDisconnected after `cancel`.
        """
        async for _ in self.steps():
            self._check_client()

    async def _base(self) -> ModelEntry | None:
        """Return the model that the new model is made from; None if the body names none or it is not
        installed.
        """
        if not self._body.from_:
            return None
        try:
            return await self._context.installed_models.get(self._body.from_)
        except NotFound:
            return None

    def _unless_cancelled(self, change: Callable[[], None]) -> None:
        """Make the change. Raise ClientDisconnected instead if the client left while the change waited for a
        thread.
        """
        self._check_client()
        change()

    def _check_client(self) -> None:
        if self._cancelled:
            raise ClientDisconnected


async def change_store(
    context: GatewayContext, change: Callable[[], None], executor: Executor | None = None
) -> None:
    """Run `change`, which changes the installed models, in a thread of `executor`, or of the event loop's own
    executor. Raises GatewayError if the change fails.
    """
    try:
        await asyncio.get_running_loop().run_in_executor(executor, change)
    except ModelStoreError as error:
        raise from_model_store(error) from error
    finally:
        context.installed_models.changed()


def check_name(field: str, name: str) -> None:
    """Raise BadRequest if `name` is not valid for a new model. `field` is the name's field in the body."""
    if not is_valid_name(name):
        message = f"{field}: {quoted(name)} is an invalid model name; write it as [namespace/]name[:tag]."
        raise BadRequest("invalid_request", message, field=field)


def _template_of(model: ModelEntry) -> str:
    return model.preset.shown_template or chat_template(model.path)


def _layers(added: Preset) -> list[str]:
    """Return those texts of the preset `added` that Ollama would store as one layer of the model each: the
    template, the system prompt, each license, the parameters and the messages, as far as they are set.
    """
    lists = [json.dumps(each) for each in (added.parameters, added.messages) if each]
    return [text for text in (added.template, added.system, *added.licenses, *lists) if text]
