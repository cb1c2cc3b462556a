"""Run the named measurements, or all: `python -m benchmarks [NAME …]`; `--list` lists them."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = {
    "supervision": "crashing children, compared with supervisord and circus",
    "recovery": "the agent at rest, a pass, a thousand callers at once",
    "throughput": "tokens a second at 1, 4, 8 streams, compared with mlx_lm.server",
    "warm_restart": "first token of a long prompt, cold and after a kill, compared with mlx_lm.server",
    "steady_memory": "what engine and gateway hold after thousands of short requests",
    "retrieval": "recall@5 of the knowledge search on docs/, compared with full-text search alone",
    "knowledge": "speed and size of the knowledge search and its re-check",
    "orchestrator": "its container: start, memory, 50,000 chunks, 50 tasks, thousands of cycles",
    "wire": "encoding and decoding of a message between gateway and engine",
    "answer_log": "what it costs to write answers down, with a fast engine and with the real one",
    "page": "first paint and size of the page, and what an open page costs the agent",
    "stream_pause": "pause of a stream across kill -9 of its engine",
}
CHAOS = "chaos (make chaos): requests in flight while engine, gateway and agent are killed and upgraded"


def main(names: list[str]) -> int:
    """Run the benchmarks and return the highest exit code."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print("\n".join(f"{name:<22} {about}" for name, about in BENCHMARKS.items()))
        print(CHAOS)
        return 0 if unknown == ["--list"] else 2
    worst = 0
    for name in names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name]}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
