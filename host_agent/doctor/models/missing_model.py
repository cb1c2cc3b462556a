"""A model that the configuration wants is not there: unknown, not fetched, elsewhere, or broken."""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Literal

from host_agent.doctor.finding import Finding
from mlx_server.model_store import BrokenModel, ModelStoreError, survey
from mlx_server.model_store.catalog import source_path
from mlx_server.model_store.sources.source import PathSource, parse_source
from vestal.config import Config, canonical

NAME = "missing_model"


@dataclass(frozen=True)
class Wanted:
    """A model and the settings that name it."""

    name: str
    by: str


def look(config: Config) -> Iterator[Finding]:
    """What is preloaded, what the orchestrator asks for, and every folder that is no whole model."""
    entries, broken = survey(config)
    there = {entry.name for entry in entries}
    is_broken = {each.name for each in broken}
    missing = [each for each in wanted(config) if canonical(each.name) not in there | is_broken]
    found = [_broken(config, each) for each in broken] + [judge(config, each, there) for each in missing]
    yield from found or [
        Finding(NAME, "ok", f"every model that is asked for is installed ({len(there)} in all)")
    ]


def wanted(config: Config) -> list[Wanted]:
    """Each name once, with whoever asks for it."""
    asked: dict[str, list[str]] = {}
    for name in config.mlx.preload:
        asked.setdefault(name, []).append("mlx.preload")
    if config.orchestrator.mode != "off" and not config.orchestrator.mac_llm_url:
        asked.setdefault(config.orchestrator.chat_model, []).append("orchestrator.chat_model")
        asked.setdefault(config.orchestrator.embed_model, []).append("orchestrator.embed_model")
    return [Wanted(name, " and ".join(by)) for name, by in asked.items()]


def judge(config: Config, each: Wanted, there: Set[str]) -> Finding:
    """Why it is not there, and how it would come."""
    settings = config.model_source(each.name)
    if settings is None:
        names = ", ".join(sorted(there | {canonical(name) for name in config.models})) or "none"
        sentence = f"{each.by} asks for {each.name}, which is not in `models`"
        remedy = "give it a source under `models`, or name one of those that there are"
        return Finding(NAME, "fault", sentence, remedy, f"there are: {names}")
    try:
        source = parse_source(each.name, settings.source)
    except ModelStoreError as error:
        return Finding(NAME, "fault", error.message, error.remedy, f"asked for by {each.by}")
    if isinstance(source, PathSource):
        path = source_path(config, source)
        sentence = f"{each.name} should be at {path}, and no model is there"
        return Finding(
            NAME, "fault", sentence, "correct its source, or put it there", f"asked for by {each.by}"
        )
    return _not_fetched(config, each, settings.source)


def _not_fetched(config: Config, each: Wanted, source: str) -> Finding:
    """No fault before the first `make up`, which fetches them."""
    level: Literal["note", "fault"]
    level, when = ("fault", "") if config.home.journal_db.exists() else ("note", " yet")
    sentence = f"{each.name} is not fetched{when}"
    return Finding(
        NAME, level, sentence, f"`vestal models ensure {each.name}`", f"{each.by}; source {source}"
    )


def _broken(config: Config, each: BrokenModel) -> Finding:
    remedy = f"`vestal models remove {each.name}`, then `vestal models ensure {each.name}`"
    if config.model_source(each.name) is None:
        remedy = f"replace or remove its folder in {config.mlx.models_folder}"
    return Finding(NAME, "fault", f"{each.name} is broken: {each.reason}", remedy)
