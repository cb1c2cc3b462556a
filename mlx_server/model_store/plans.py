"""Plan a pull: compute the download's size, and whether the model will fit, before the weights are
downloaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlx_server.memory_forecast.fit import fit, sentence
from mlx_server.memory_forecast.forecast import Forecast
from mlx_server.model_store.catalog import ModelEntry, entry_of
from mlx_server.model_store.errors import ModelStoreError
from mlx_server.model_store.files import loadable, model_folder
from mlx_server.model_store.files.weight_files import UnreadableModel
from mlx_server.model_store.forecasts import (
    PREFILL_STEP_TOKENS,
    THIS_MACHINE,
    files_of,
    forecast_of,
    kv_quantization_of,
    machine_limit_bytes,
)
from mlx_server.model_store.installation import ensure, is_installed
from mlx_server.model_store.progress import OnProgress, ignore_progress
from mlx_server.model_store.sources import hub, hub_repository
from mlx_server.model_store.sources.by_name import source_of
from mlx_server.model_store.sources.hub_repository import Repository
from mlx_server.model_store.sources.source import HubSource, parse_source
from vestal.config import Config, canonical
from vestal.config.units import format_size


@dataclass(frozen=True)
class HubModel:
    """A model of the hub that has not been downloaded: its repository, its facts (`entry`), and its memory
    forecast on this machine. `has_template` says whether it has a chat template.

    The facts were read from a temporary folder: `entry.path` no longer exists, and the downloaded model will
    have another digest than `entry.digest`.
    """

    name: str
    repository: Repository
    entry: ModelEntry
    forecast: Forecast
    has_template: bool


def pull(
    config: Config, names: Sequence[str], on_progress: OnProgress = ignore_progress, *, force: bool = False
) -> list[ModelEntry]:
    """Fetch those of the models `names` that are missing, and return all of them, in the order of `names`.

    For a model of the hub, the disk space and memory that it needs are first compared with what this machine
    has, and reported as progress. Raises ModelStoreError: `insufficient_memory` if the model could never be
    loaded here and `force` is False, other codes if it cannot be fetched.
    """
    found = []
    for name in names:
        planned = adapter.base if (adapter := config.adapter(name)) else name  # an adapter is small
        source = None if is_installed(config, planned) else hub_source(config, planned)
        if source is not None:
            _check(config, canonical(planned), source, on_progress, force)
        found += ensure(config, [name], on_progress)
    return found


def read_hub_model(config: Config, name: str, source: HubSource) -> HubModel:
    """Return the facts and the memory forecast of the model `name`, whose repository on the hub is `source`.
    Only the repository's small files and the headers of its weight files are read.

    Raises ModelStoreError: `not_a_model` if Vestal cannot serve the model, other codes if the hub cannot be
    read.
    """
    repository = hub.repository(name, source)
    with tempfile.TemporaryDirectory(prefix="vestal-outline-") as temporary:
        folder = Path(temporary).resolve()
        hub_repository.write_outline(name, repository, folder)
        settings = config.model_source(name)
        try:
            loadable.check_loadable(folder)
            entry = entry_of(name, folder, settings.context_tokens if settings else None)
            files = files_of(entry)
        except UnreadableModel as error:
            reason = error.within(folder).partition("; fetch the model again")[0]  # nothing is fetched yet
            raise ModelStoreError(
                "not_a_model",
                f"{source.repo}, the source of model {name}, cannot be served: {reason}.",
                "Find one that can with `vestal models search`.",
            ) from error
        has_template = bool(model_folder.chat_template(folder))
        kv = kv_quantization_of(config, name)
        forecast = forecast_of(entry, files, THIS_MACHINE, step_tokens=PREFILL_STEP_TOKENS, kv=kv)
    return HubModel(name, repository, entry, forecast, has_template)


def hub_source(config: Config, name: str) -> HubSource | None:
    """Return the source of the model `name` if it is a repository of safetensors on the hub; else None."""
    settings = source_of(config, name)
    source = parse_source(canonical(name), settings.source) if settings else None
    return source if isinstance(source, HubSource) and source.quantization is None else None


def _check(config: Config, name: str, source: HubSource, on_progress: OnProgress, force: bool) -> None:
    """Report the memory and the download that the model needs. Raises ModelStoreError if the disk or, without
    `force`, the memory is too small, or the hub cannot be read.
    """
    on_progress(name, 0.0, f"Asking the hub what {source.repo} needs.", 0)
    found = read_hub_model(config, name, source)
    hub.require_space(name, found.repository)
    limit_bytes = machine_limit_bytes(config)
    said = sentence(found.forecast, limit_bytes)
    if not fit(found.forecast, limit_bytes).fits and not force:
        raise ModelStoreError(
            "insufficient_memory",
            f"Model {name} {said}.",
            "Find a smaller one with `vestal models suggest`, or fetch it all the same with "
            f"`vestal models pull --force {name}`.",
        )
    download = format_size(hub.missing_bytes(found.repository))
    on_progress(name, 0.0, f"{source.repo} {said}. {download} to download.", 0)
