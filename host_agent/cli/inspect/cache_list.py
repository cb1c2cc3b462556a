"""`vestal cache ls`: list the prompt cache on disk by model, and show how a running engine uses the cache."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from host_agent.cli.table import Column, print_table
from host_agent.doctor.evidence import http_get
from host_agent.doctor.models import corrupt_cache
from mlx_server.engine.prompt_cache.blob import Corrupt, read_facts
from vestal.config.units import format_size

HEALTH_TIMEOUT_S = 2.0
COLUMNS = (
    Column("model", wraps=True),
    Column("blocks", align="right"),
    Column("tokens", align="right"),
    Column("size", align="right"),
    Column("last used"),
)


@dataclass
class ModelShare:
    """How much of the prompt cache on disk belongs to one model: the numbers of blocks, tokens and bytes.
    `used_s` is when any of these blocks was last used, in seconds since 1970.
    """

    model: str
    blocks: int = 0
    tokens: int = 0
    bytes: int = 0
    used_s: float = 0.0


def print_as_json(folder: Path, gateway_port: int) -> None:
    shares, unreadable = read_shares(folder)
    answer = {
        "folder": str(folder),
        "models": [asdict(share) for share in shares],
        "unreadable": unreadable,
        "engine": engine_use(gateway_port),
    }
    print(json.dumps(answer))


def print_for_people(folder: Path, gateway_port: int) -> None:
    shares, unreadable = read_shares(folder)
    if shares:
        print_table(COLUMNS, [_row(share) for share in shares])
    if unreadable:
        print(f"{unreadable} files cannot be read; `vestal cache verify` deletes them.")
    if (use := engine_use(gateway_port)) is not None:
        print(_use_sentence(use))


def read_shares(folder: Path) -> tuple[list[ModelShare], int]:
    """Return each model's share of the prompt cache in `folder`, the most recently used model first, and the
    number of unreadable files.
    """
    shares: dict[str, ModelShare] = {}
    unreadable = 0
    for path in corrupt_cache.block_files(folder):
        try:
            with path.open("rb") as file:
                facts = read_facts(file)
            status = path.stat()
        except FileNotFoundError:
            continue  # a running engine has deleted it meanwhile
        except (OSError, Corrupt):
            unreadable += 1
            continue
        model = facts.get("model", "unknown")
        share = shares.setdefault(model, ModelShare(model))
        share.blocks += 1
        share.tokens += facts.get("tokens", "").count(",") + 1
        share.bytes += status.st_size
        share.used_s = max(share.used_s, status.st_mtime)
    return sorted(shares.values(), key=lambda share: -share.used_s), unreadable


def engine_use(gateway_port: int) -> dict[str, int] | None:
    """Return how the running engine uses its prompt cache: counts of hits and misses, and sizes in bytes.

    The numbers are `prompt_cache` of the gateway's /health. Return None if no gateway answers, or its engine
    has no prompt cache.
    """
    use = http_get.gateway_health(gateway_port, HEALTH_TIMEOUT_S).get("prompt_cache")
    try:
        return {str(name): int(value) for name, value in use.items()} if isinstance(use, dict) else None
    except (ValueError, TypeError):
        return None


def _row(share: ModelShare) -> tuple[str, ...]:
    last_used = datetime.fromtimestamp(share.used_s).isoformat(" ", "minutes")
    return share.model, str(share.blocks), str(share.tokens), format_size(share.bytes), last_used


def _use_sentence(use: dict[str, int]) -> str:
    ram = format_size(use.get("ram_bytes", 0) + use.get("ready_bytes", 0))
    written = format_size(use.get("written_bytes", 0))
    found = f"{use.get('hits_ram', 0)} blocks found in memory, {use.get('hits_disk', 0)} on disk"
    return (
        f"The running engine: {ram} in memory; {found}, {use.get('misses', 0)} computed; {written} written."
    )
