"""Measure the orchestrator's container.

    python -m benchmarks.orchestrator [start] [chunks] [tasks] [steady] [--chunks 50000] [--runs 5]

`start` measures its start, `chunks` the indexing and search of 50,000 chunks of text, `tasks` 50 tasks of one
model call each, and `steady` its memory over thousands of cycles of its main loop. Without a name, all are
measured. `--runs` is how often `start` and `tasks` are repeated.

A Docker engine is needed. A stand-in for the models answers at once, so that only the orchestrator's own code
is measured.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from typing import Any

from benchmarks.knowledge.corpus import CHUNKS_A_FILE, Corpus
from benchmarks.knowledge.speed import FILES_A_S
from benchmarks.orchestrator.container import Container, StandInControl, build, docker, stand_in
from benchmarks.orchestrator.steady import steady
from orchestrator.knowledge.folders.chunks import chunks_of

MB = 2**20
FIRST_CYCLE_S, START_MB, REST_MB, SEARCHES, RECHECKS = 5.0, 140, 140, 50, 5
TASKS, CHAT_S, SIDE_BY_SIDE, MOST_IDLE = 50, 0.3, 2, 0.05
INDEX_TIMEOUT_S = 1800.0
ROW = "{:<66} {:>12} {:>10}"


def start(models: StandInControl, given: argparse.Namespace) -> bool:
    """Measure the container's start: the time from its first process to the end of the first cycle of the
    orchestrator's main loop, the peak memory until then, and the memory at rest after ten cycles. Return
    whether the medians of `given.runs` starts are within their limits. `models` stands in for the model
    servers.
    """
    took, peaks, rests = [], [], []
    for _ in range(given.runs):
        with Container(models, "512m", ORCHESTRATOR_CYCLE_INTERVAL="1") as one:
            one.start()
            first, held = one.first_cycle(), one.probe()
            took.append(first["finished_at"] - held["began_at"])
            peaks.append(held["peak_rss_bytes"] / MB)
            one.until(lambda: one.ask("/health")["cycles"] >= 10, "ten cycles", 60)
            rests.append(one.probe()["rss_bytes"] / MB)
    good = _row("start to first cycle, s (median)", took, FIRST_CYCLE_S)
    good &= _row("peak RSS by then, MB (median)", peaks, START_MB)
    return _row("RSS at rest, after ten cycles, MB (median)", rests, REST_MB) and good


def chunks(models: StandInControl, given: argparse.Namespace) -> bool:
    """Index a corpus of `given.chunks` chunks in the first cycle of the orchestrator's main loop, once for
    each memory limit of the container in `given.limits`. `models` stands in for the model servers.

    Return True if all of this is so under each limit: All chunks were stored. The kernel killed no process
    for lack of memory. Each search for a chunk that was drawn at random had that chunk as its first result.
    The later cycles, in which no file had changed, checked at least FILES_A_S files per second for changes.
    """
    results = [_indexed(models, limit, given.chunks) for limit in given.limits]
    return all(results)


def _indexed(models: StandInControl, limit: str, count: int) -> bool:
    with Container(models, limit, ORCHESTRATOR_CYCLE_INTERVAL="0.5") as one:
        files = Corpus(1).write(one.knowledge / "docs", count)
        one.start()
        cycle = one.first_cycle(INDEX_TIMEOUT_S)
        said = next(phase for phase in cycle["phases"] if phase["phase"] == "knowledge")
        title = f"{count} chunks, limit {limit}"
        if f"{count} chunks embedded" not in said["why"]:
            print(f"{title}: not indexed in one go: {said['why']}")
        _say(f"{title}: indexed, s", cycle["duration_s"])
        good = _held(one, title, count)
        good &= _found(one, title)
        return _rechecked(one, title, files) and good


def _held(one: Container, title: str, count: int) -> bool:
    """Print the container's peak memory, labeled with `title`. Return whether all `count` chunks and their
    vectors are stored and the kernel killed no process for lack of memory.
    """
    held = one.probe()
    rows = held["databases"]["orchestrator.db"]["rows"]
    _say(f"{title}: peak RSS, MB", held["peak_rss_bytes"] / MB)
    _say(f"{title}: peak of the cgroup (v{held['cgroup']}, page cache included), MB", held["peak_bytes"] / MB)
    good = (held["oom_kills"], rows["chunks"], rows["vectors"]) == (0, count, count)
    print(f"{title}: {rows['chunks']} chunks, {rows['vectors']} vectors, {held['oom_kills']} OOM kills")
    return good


def _found(one: Container, title: str) -> bool:
    """Draw SEARCHES passages of the indexed corpus at random, and search for each in the container `one`.
    Print, labeled with `title`, how many searches had their passage as the first result, and how much memory
    the orchestrator's process then uses. Return whether all searches had their passage as the first result.
    """
    draw, found = random.Random(2), 0
    paths = sorted((one.knowledge / "docs").iterdir())
    for _ in range(SEARCHES):
        path = draw.choice(paths)
        chunk = draw.choice(chunks_of(path.read_text(), markdown=True))
        best = one.ask("/knowledge/search", {"query": chunk.embedded_text, "k": 1})["results"][0]
        found += (best["file"], best["text"]) == (path.name, chunk.text)
    _say(f"{title}: passages drawn at random found first, of {SEARCHES}", found, f">= {SEARCHES}")
    _say(f"{title}: RSS with the vectors loaded, MB", one.probe()["rss_bytes"] / MB)
    return found == SEARCHES


def _rechecked(one: Container, title: str, files: int) -> bool:
    one.until(lambda: len(one.ask(f"/cycles?limit={RECHECKS + 1}")["cycles"]) > RECHECKS, "re-checks", 120)
    cycles = one.ask(f"/cycles?limit={RECHECKS}")["cycles"]
    speed = files / statistics.median(cycle["duration_s"] for cycle in cycles)
    _say(f"{title}: unchanged corpus re-checked, whole cycles, files/s", speed, f">= {FILES_A_S}")
    return speed >= FILES_A_S


def tasks(models: StandInControl, given: argparse.Namespace) -> bool:
    """Queue tasks of one call each, and measure for how long no call was in flight while tasks waited. Return
    whether that is within its limit.
    """
    idle, whole = [], []
    for _ in range(given.runs):
        with Container(models, "512m", SMART_WORKER_MAX_CONCURRENT=str(SIDE_BY_SIDE)) as one:
            one.start()
            one.first_cycle()
            models.control(chat_s=CHAT_S)
            for number in range(TASKS):
                one.ask("/tasks", {"goal": f"goal {number}"})
            done = lambda: {t["state"] for t in one.ask("/tasks?limit=500")["tasks"]} == {"done"}  # noqa: E731
            one.until(done, "all tasks are done", 300)
            work = models.work()
            assert work["calls"] == TASKS
            idle.append(work["idle_s"] / work["whole_s"])
            whole.append(work["whole_s"])
            held = one.probe()
    ideal = TASKS * CHAT_S / SIDE_BY_SIDE
    _say(
        f"{TASKS} tasks of {CHAT_S} s, {SIDE_BY_SIDE} at once: s (ideal {ideal:.1f})",
        statistics.median(whole),
    )
    _say("RSS after them, MB", held["rss_bytes"] / MB)
    return _row("share of that time in which no call was in flight (median)", idle, MOST_IDLE)


def _row(name: str, values: list[float], most: float) -> bool:
    value = statistics.median(values)
    _say(name, value, f"<= {most:g}")
    return value <= most


def _say(name: str, value: float, allowed: str = "") -> None:
    print(ROW.format(name, f"{value:,.3g}" if value < 100 else f"{value:,.0f}", allowed), flush=True)


PARTS: dict[str, Any] = {"start": start, "chunks": chunks, "tasks": tasks, "steady": steady}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestrator")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--chunks", type=int, default=50_000 // CHUNKS_A_FILE * CHUNKS_A_FILE)
    parser.add_argument("--limits", nargs="+", default=["2g", "512m"])
    parser.add_argument("--cycles", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    build()
    began = time.monotonic()
    print(f"Docker {docker('version', '--format', '{{.Server.Version}}')}; load {os.getloadavg()[0]:.1f}")
    with stand_in() as models:
        results = [PARTS[name](models, given) for name in given.parts or PARTS]
    print(f"{time.monotonic() - began:.0f} s; load {os.getloadavg()[0]:.1f}")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
