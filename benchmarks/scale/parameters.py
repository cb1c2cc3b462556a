"""Read the simulation's assumptions about machines, load, failures and workers from parameters.yaml."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

FILE = Path(__file__).with_name("parameters.yaml")
Section = TypeVar("Section")


@dataclass(frozen=True)
class EngineParameters:
    """The speed and the limits of one machine's engine.

    `slots` is how many requests run at the same time. A step generates one token of each running answer, and
    computes `prompt_step_tokens` tokens of each prompt that is not complete. `step_s` maps the number of
    answers in a step to the seconds that they take; the prompts' time is added. `restored_token_cost` is the
    time of a token from the prompt cache, as a share of the time of a computed token. `kv_bytes_per_token` is
    the size of a token in that cache, and `cache_bytes` the size of the whole cache.

    `restart_s` is the time from an engine's death until the next one serves. The next engine computes at most
    the last `recomputed_tokens` tokens of an unfinished answer again, if the prompt is still cached.
    """

    slots: int
    step_s: Mapping[int, float]
    prompt_tokens_per_s: float
    prompt_step_tokens: float
    restored_token_cost: float
    kv_bytes_per_token: int
    cache_bytes: int
    recomputed_tokens: int
    restart_s: float

    @property
    def cache_tokens(self) -> int:
        """Return how many tokens the prompt cache can hold."""
        return self.cache_bytes // self.kv_bytes_per_token

    def step_for(self, answers: int) -> float:
        """Return the seconds of a step that advances this number of answers. Numbers that were not measured
        are interpolated or extrapolated linearly.
        """
        if answers == 0:
            return 0.0
        known = sorted(self.step_s)
        if len(known) == 1:
            return self.step_s[known[0]]
        right = next((n for n in known[1:] if answers <= n), known[-1])
        left = known[known.index(right) - 1]
        slope = (self.step_s[right] - self.step_s[left]) / (right - left)
        return self.step_s[left] + slope * (answers - left)


@dataclass(frozen=True)
class LoadParameters:
    """The conversations of the simulated load. Each begins with one of `beginnings` system prompts, which
    have `beginning_tokens` tokens. Each turn adds `turn_tokens` tokens to the prompt.

    `turns` is the mean number of turns, `answer_tokens` the mean length of an answer, `think_s` the mean
    pause before the next turn. `bytes_per_token` is the length of a token's text, because gateways measure
    prompts in bytes. `unevenness` says how unevenly the clients' conversations are spread over the machines:
    on average, the n-th machine has n^-unevenness times as many as the first, so 0 spreads them evenly.
    """

    beginnings: int
    beginning_tokens: int
    turn_tokens: int
    answer_tokens: float
    turns: float
    think_s: float
    bytes_per_token: int
    unevenness: float


@dataclass(frozen=True)
class FailureParameters:
    """How often engines and machines die, and when they return.

    `engine_every_s` and `machine_every_s` are mean seconds between the deaths of one engine or machine.
    `machine_back_s` is how long a machine is away, and `client_back_s` how long a client waits before it
    sends a request again that was cut off.
    """

    engine_every_s: float
    machine_every_s: float
    machine_back_s: float
    client_back_s: float


@dataclass(frozen=True)
class WorkerParameters:
    """Workers of durable tasks, and the Postgres that they share.

    A task makes `calls_per_task` calls of a model, one after the other; `call_s` is the mean time of a call.
    Each worker makes up to `calls_at_once` calls at the same time, and returns `back_s` seconds after its
    death.

    A task needs `transactions_per_task` transactions, and `transactions_per_call` more for each call. In
    addition, each worker makes `transactions_at_rest_per_s` transactions a second, with tasks or without. A
    transaction takes `transaction_s` seconds. A worker has `connections` connections in all without tasks,
    and up to `connections_busy` in all with tasks; the server allows `server_connections`.
    """

    call_s: float
    calls_per_task: int
    calls_at_once: int
    back_s: float
    transactions_per_call: float
    transactions_per_task: float
    transactions_at_rest_per_s: float
    transaction_s: float
    connections: int
    connections_busy: int
    server_connections: int


@dataclass(frozen=True)
class GatewayParameters:
    """How many CPU seconds of a gateway one action takes: to answer or send a /health request, to stream a
    token, and to place a request, by the number of machines.
    """

    answer_health_s: float
    ask_health_s: float
    token_s: float
    placement_s: Mapping[int, float]


@dataclass(frozen=True)
class Parameters:
    """All parameters of the simulation. `digest` is the beginning of the SHA-256 of their values."""

    engine: EngineParameters
    load: LoadParameters
    failures: FailureParameters
    workers: WorkerParameters
    gateway: GatewayParameters
    digest: str


def read_parameters(path: Path = FILE) -> Parameters:
    """Return the parameters in a YAML file. Each has a `value`, and a `source`: a text that says where the
    value comes from. Raises ValueError if a parameter is missing or unknown, or has no value or no source.
    """
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    sections = [
        _section(kind, raw, name)
        for name, kind in (
            ("engine", EngineParameters),
            ("load", LoadParameters),
            ("failures", FailureParameters),
            ("workers", WorkerParameters),
            ("gateway", GatewayParameters),
        )
    ]
    values = repr(
        [sorted((key, str(dataclasses.asdict(s)[key])) for key in dataclasses.asdict(s)) for s in sections]
    )
    engine, load, failures, workers, gateway = sections
    digest = hashlib.sha256(values.encode()).hexdigest()[:16]
    return Parameters(engine, load, failures, workers, gateway, digest)


def _section(kind: type[Any], raw: Mapping[str, Any], name: str) -> Any:
    given = raw.get(name) or {}
    wanted = {field.name for field in dataclasses.fields(kind)}
    if wanted != set(given):
        different = ", ".join(sorted(wanted ^ set(given)))
        raise ValueError(f"The section `{name}` lacks a parameter, or has one that is unknown: {different}.")
    for key, entry in given.items():
        if not (isinstance(entry, dict) and "value" in entry and entry.get("source")):
            raise ValueError(f"`{name}.{key}` needs a `value` and its `source`.")
    return kind(**{key: entry["value"] for key, entry in given.items()})
