"""Give the models of the catalog their configured draft models, which draft tokens for them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import replace

from mlx_server.model_store.catalog.entry import BrokenModel, ModelEntry
from mlx_server.model_store.files.vocabulary import vocabulary_difference
from mlx_server.model_store.files.weight_files import UnreadableModel
from vestal.config import Config, canonical, find_named

log = logging.getLogger(__name__)
REMEDY = "name a smaller model of the same family, or take `draft` out of the configuration"


def with_drafts(config: Config, entries: Sequence[ModelEntry]) -> tuple[list[ModelEntry], list[BrokenModel]]:
    """Return the entries with their draft models, and separately the models whose draft model does not suit
    them.

    A model whose draft model is not installed is served without it, which is logged.
    """
    drafts = {canonical(name): config.draft_of(name) for name in config.models}
    found, refused = list[ModelEntry](), list[BrokenModel]()
    for entry in entries:
        name = drafts.get(entry.name)
        draft = find_named(name, entries, lambda each: each.name) if name else None
        if name and draft is None:
            _warn_once(f"model {entry.name} is served without its draft {name}, which is not installed")
        if draft is None:
            found.append(entry)
        elif obstacle := _obstacle(entry, draft):
            reason = f"{draft.name} cannot draft for it: {obstacle}; {REMEDY}"
            _warn_once(f"model {entry.name} is left out: {reason}")
            refused.append(BrokenModel(entry.name, reason, has_wrong_draft=True))
        else:
            found.append(replace(entry, draft=replace(draft, draft=None)))
    return found, refused


def _obstacle(entry: ModelEntry, draft: ModelEntry) -> str:
    """Return why `draft` cannot draft tokens for `entry`; "" if it can."""
    if wrong := next((each.name for each in (entry, draft) if each.kind != "generate"), None):
        return f"{wrong} does not generate text"
    try:
        difference = vocabulary_difference(entry.path, draft.path)
    except UnreadableModel as error:
        return str(error)
    return f"it has another vocabulary ({difference})" if difference else ""


@functools.lru_cache(maxsize=256)
def _warn_once(text: str) -> None:
    """Log a warning, but only the first time it is given, because the folders are read again and again."""
    log.warning("%s", text)
