"""Two diagnoses from the logs of the last hour: Ollama and MLX compete for Metal, and Metal ran out of
memory.
"""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial

from host_agent.doctor.evidence import log_files
from host_agent.doctor.evidence.log_patterns import LoggedCause, LogMatch
from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config

SENTENCE_AND_REMEDY: dict[LoggedCause, tuple[str, str]] = {
    LoggedCause.CONTENTION: (
        "Ollama and MLX compete for Metal's compiler.",
        "Lower the concurrency (SMART_WORKER_MAX_CONCURRENT=1), or pause one of the two "
        "(`ollama stop MODEL`, or VESTAL_OLLAMA__MANAGE=off).",
    ),
    LoggedCause.OUT_OF_MEMORY: (
        "Metal ran out of memory.",
        "Restart the server after 2-3 s; allow fewer requests at once (mlx.max_running, "
        "OLLAMA_NUM_PARALLEL=1), or use a smaller model.",
    ),
    LoggedCause.TOO_MANY_BUFFERS: (
        "Metal held more buffers than its limit of 499,000.",
        "Only a new engine process helps: `vestal recover --once`. Shorter or fewer prompts avoid it.",
    ),
    LoggedCause.LIBRARY: (
        "Ollama's Metal library does not compile on this macOS; memory is not the cause.",
        "Update Ollama, or run the model with the MLX server.",
    ),
}
CONTENTION_CAUSES = (LoggedCause.CONTENTION,)
OUT_OF_MEMORY_CAUSES = (LoggedCause.OUT_OF_MEMORY, LoggedCause.TOO_MANY_BUFFERS, LoggedCause.LIBRARY)


def diagnose(config: Config, name: str, causes: Sequence[LoggedCause], ok_sentence: str) -> Iterator[Finding]:
    """Search the last hour of Vestal's and Ollama's logs for `causes`. For each log, yield a fault for each
    cause found in it.

    If no cause is found in any log, yield one finding `ok` with `ok_sentence`. `name` is the diagnosis's
    name.
    """
    found = [
        finding
        for log, matches in log_files.recent_matches(config, time.time())
        for finding in assess_log(name, causes, log.name, matches)
    ]
    yield from found or [Finding(name, "ok", ok_sentence)]


def assess_log(
    name: str, causes: Sequence[LoggedCause], log: str, matches: Sequence[LogMatch]
) -> Iterator[Finding]:
    """Yield a fault for each of `causes` that at least one line in `matches` names.

    `name` is the diagnosis's name, and `log` the name of the log that has these lines.
    """
    for cause in causes:
        of_cause = [match for match in matches if match.cause is cause]
        if not of_cause:
            continue
        sentence, remedy = SENTENCE_AND_REMEDY[cause]
        last = of_cause[-1]
        count = f"{len(of_cause)} lines" if len(of_cause) > 1 else "one line"
        at = datetime.fromtimestamp(last.at).strftime("%H:%M")
        evidence = f"{count} of the last hour in {log}, the last at {at}: {last.excerpt}"
        yield Finding(name, "fault", sentence, remedy, evidence)


def _diagnosis(name: str, causes: Sequence[LoggedCause], ok_sentence: str) -> Diagnosis:
    return Diagnosis(name, partial(diagnose, name=name, causes=causes, ok_sentence=ok_sentence))


CONTENTION = _diagnosis(
    "metal_contention",
    CONTENTION_CAUSES,
    "No log of the last hour shows Ollama and MLX competing for Metal.",
)
OUT_OF_MEMORY = _diagnosis(
    "metal_out_of_memory",
    OUT_OF_MEMORY_CAUSES,
    "No log of the last hour shows Metal running out of memory.",
)
