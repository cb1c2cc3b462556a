"""Diagnose configured models that cannot be used, because they are unknown, not fetched, not in their folder,
or broken.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from urllib.parse import urlsplit

from host_agent.doctor.finding import Diagnosis, Finding, Level
from host_agent.services.child_environment import HOST_FROM_CONTAINER, LOOPBACK
from mlx_server.model_store import BrokenModel, ModelStoreError, survey
from mlx_server.model_store.catalog import source_path
from mlx_server.model_store.sources.by_name import source_of
from mlx_server.model_store.sources.source import PathSource, Source, parse_source
from vestal.config import Config, canonical, name_key

NAME = "missing_model"
OWN_HOSTS = (*LOOPBACK, HOST_FROM_CONTAINER)


@dataclass(frozen=True)
class RequestedModel:
    """The name of a model, and the names of the settings that request it, such as `mlx.preload`."""

    name: str
    settings: str


def diagnose(config: Config) -> Iterator[Finding]:
    """Yield a fault for each installed model that is broken, and a fault or note for each model that the
    settings request and that is not installed. It is a note if Vestal has never run and can fetch the model.

    If no model is broken or missing, yield one finding `ok`.
    """
    entries, broken = survey(config)
    installed = {entry.name for entry in entries}
    broken_names = {each.name for each in broken}
    requested = requested_models(config)
    present = set(map(name_key, installed | broken_names))
    missing = [each for each in requested if name_key(each.name) not in present]
    found = [_broken(config, each) for each in broken]
    found += [assess_missing(config, each, installed) for each in missing]
    ok_sentence = f"Every requested model is installed ({len(installed)} models in all)."
    yield from found or [Finding(NAME, "ok", ok_sentence)]


def requested_models(config: Config) -> list[RequestedModel]:
    """Return the models that the settings request, each once, with all settings that request it."""
    settings_by_name: dict[str, list[str]] = {}
    for name in config.mlx.preload:
        settings_by_name.setdefault(name, []).append("mlx.preload")
    if config.orchestrator.mode != "off" and _orchestrator_uses_own_server(config):
        orchestrator = config.orchestrator
        settings_by_name.setdefault(orchestrator.chat_model, []).append("orchestrator.chat_model")
        settings_by_name.setdefault(orchestrator.embed_model, []).append("orchestrator.embed_model")
        if orchestrator.rerank_model:
            settings_by_name.setdefault(orchestrator.rerank_model, []).append("orchestrator.rerank_model")
    return [RequestedModel(name, " and ".join(settings)) for name, settings in settings_by_name.items()]


def _orchestrator_uses_own_server(config: Config) -> bool:
    """Return whether the orchestrator sends its requests to this Vestal's MLX server. It does unless
    `orchestrator.mlx_api_url`, or `mac_llm_url`, the older name for it, names only other servers.
    """
    urls = config.orchestrator.mlx_api_url or config.orchestrator.mac_llm_url
    if not urls:
        return True
    parts = [urlsplit(url if "://" in url else f"http://{url}") for url in map(str.strip, urls.split(","))]
    return any(part.hostname in OWN_HOSTS and part.port == config.mlx.port for part in parts)


def unobtainable(config: Config) -> Iterator[Finding]:
    """Yield a fault for each model of `mlx.preload` that is neither installed nor can be fetched."""
    missing, installed = _missing_of_preload(config)
    for model in missing:
        if isinstance(found := _source_or_fault(config, model, installed), Finding):
            yield found


def to_fetch(config: Config) -> Iterator[tuple[str, Source]]:
    """Yield the models of `mlx.preload` that `vestal up` has to fetch: pairs of the name and the source."""
    missing, installed = _missing_of_preload(config)
    for model in missing:
        if not isinstance(found := _source_or_fault(config, model, installed), Finding):
            yield model.name, found


def _missing_of_preload(config: Config) -> tuple[list[RequestedModel], Set[str]]:
    """Return the models of `mlx.preload` that are not installed, and the names of all installed models."""
    installed = {entry.name for entry in survey(config)[0]}
    present = set(map(name_key, installed))
    wanted = [RequestedModel(name, "mlx.preload") for name in dict.fromkeys(config.mlx.preload)]
    return [model for model in wanted if name_key(model.name) not in present], installed


def assess_missing(config: Config, model: RequestedModel, installed: Set[str]) -> Finding:
    """Return a finding that says why a model is missing and how to get it.

    `installed` has the names of the installed models.
    """
    found = _source_or_fault(config, model, installed)
    return found if isinstance(found, Finding) else _not_fetched(config, model)


def _source_or_fault(config: Config, model: RequestedModel, installed: Set[str]) -> Source | Finding:
    """Return the source from which a model can be fetched, or a fault that says why it cannot be fetched.

    `installed` has the names of the installed models. If no source is known for the model, the fault lists
    the names that the settings could use instead: those of the installed models and of the models in the
    setting `models`.
    """
    evidence = f"asked for by {model.settings}"
    settings = source_of(config, model.name)
    if settings is None:
        known = ", ".join(sorted(installed | {canonical(name) for name in config.models})) or "none"
        sentence = f"{model.settings} asks for {model.name}, which is not in `models`."
        remedy = "Give it a source under `models`, or name one of the known models."
        return Finding(NAME, "fault", sentence, remedy, f"known models: {known}")
    try:
        source = parse_source(model.name, settings.source)
    except ModelStoreError as error:
        return Finding(NAME, "fault", error.message, error.remedy, evidence)
    if isinstance(source, PathSource):
        sentence = f"{model.name} should be at {source_path(config, source)}, but that folder holds no model."
        return Finding(NAME, "fault", sentence, "Correct its source, or put it there.", evidence)
    return source


def _not_fetched(config: Config, model: RequestedModel) -> Finding:
    """Return a finding for a model that can be fetched but is not.

    It is a fault or, if Vestal has never run, a note, because the first `make up` fetches the models.
    """
    level: Level = "note"
    sentence = f"{model.name} is not fetched yet."
    if config.home.journal_db.exists():
        level, sentence = "fault", f"{model.name} is not fetched."
    settings = source_of(config, model.name)
    evidence = f"{model.settings}; source {settings.source if settings else 'unknown'}"
    return Finding(NAME, level, sentence, f"`vestal models ensure {model.name}`", evidence)


def _broken(config: Config, model: BrokenModel) -> Finding:
    remedy = f"`vestal models remove {model.name}`, then `vestal models ensure {model.name}`."
    if config.model_source(model.name) is None:
        remedy = f"Replace or remove its folder in {config.mlx.models_folder}."
    sentence = f"{model.name} is broken: {model.reason.rstrip('.')}."
    return Finding(NAME, "fault", sentence, remedy)


DIAGNOSIS = Diagnosis(NAME, diagnose)
