"""From log lines to findings: how often, where, when last, and what helps. Pure but for the clock's zone."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from host_agent.doctor.evidence.log_signs import Cause, Seen
from host_agent.doctor.finding import Finding

TEXT: dict[Cause, tuple[str, str]] = {
    Cause.CONTENTION: (
        "Ollama and MLX compete for Metal's compiler",
        "lower the concurrency (SMART_WORKER_MAX_CONCURRENT=1), or pause one of the two "
        "(`ollama stop MODEL`, or VESTAL_OLLAMA__MANAGE=off)",
    ),
    Cause.OUT_OF_MEMORY: (
        "Metal ran out of memory",
        "restart it after 2-3 s; fewer requests at once (mlx.max_running, OLLAMA_NUM_PARALLEL=1), "
        "or a smaller model",
    ),
    Cause.TOO_MANY_BUFFERS: (
        "Metal held more buffers than it may (499,000)",
        "only a new engine process helps: `vestal recover --once`; shorter prompts or fewer at once avoid it",
    ),
    Cause.LIBRARY: (
        "Ollama's Metal library does not compile on this macOS (it is no lack of memory)",
        "update Ollama, or run the model with the MLX server",
    ),
}


def findings(name: str, causes: Sequence[Cause], log: str, seen: Sequence[Seen]) -> Iterator[Finding]:
    """One for each of these causes that this log has."""
    for cause in causes:
        of_it = [sign for sign in seen if sign.cause is cause]
        if not of_it:
            continue
        sentence, remedy = TEXT[cause]
        last = of_it[-1]
        often = f"{len(of_it)} lines" if len(of_it) > 1 else "one line"
        at = datetime.fromtimestamp(last.at).strftime("%H:%M")
        evidence = f"{often} of the last hour in {log}, the last at {at}: {last.words}"
        yield Finding(name, "fault", sentence, remedy, evidence)
