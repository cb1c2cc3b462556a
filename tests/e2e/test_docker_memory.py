"""The memory guard in a real cgroup: another process in the container takes the memory, and gives it back."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from benchmarks.orchestrator.container import IMAGE, Container, build
from orchestrator.memory_guard import PAUSE_AT, SHRINK_AT
from tests.e2e.conftest import Models

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

BATCH, TEXTS = 32, 200
# It stays full: the kernel may take memory back from others in the container meanwhile.
FILL = """
import select, sys
sys.path.insert(0, "/app")
from orchestrator import memory_guard
blocks = []
def fill():
    while memory_guard.read().fraction < float(sys.argv[1]):
        blocks.append(bytearray(b"x") * (1 << 20))
fill()
print("full", flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    fill()
"""


@pytest.fixture(scope="module")
def container(models: Models) -> Iterator[Container]:
    build()
    with Container(models, "256m", ORCHESTRATOR_CYCLE_INTERVAL="0.5", VESTAL_EMBED_BATCH=str(BATCH)) as one:
        (one.knowledge / "docs").mkdir()
        one.start()
        one.first_cycle()
        yield one
    subprocess.run(["docker", "image", "rm", IMAGE], capture_output=True, timeout=60)


@contextlib.contextmanager
def filled(container: Container, fraction: float) -> Iterator[None]:
    """Fill the container's memory to this fraction during the block."""
    command = ["docker", "exec", "-i", container.name, "python", "-c", FILL, str(fraction)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout and child.stdin and child.stdout.readline() == "full\n"
        yield
        child.stdin.close()


def until_said(container: Container, *words: str) -> None:
    def said() -> bool:
        phases = container.ask("/cycles?limit=1")["cycles"][0]["phases"]
        why = next(phase["why"] for phase in phases if phase["phase"] == "knowledge")
        return all(word in why for word in words)

    container.until(said, f"a cycle that says {words}", 120)


def test_embedding_batches_are_full_below_80_percent_of_the_memory_limit(
    container: Container, models: Models
):
    _write(container, "free")
    container.until(lambda: sum(_batches(models, "free")) == TEXTS, "the texts are embedded", 120)
    assert max(_batches(models, "free")) == BATCH


def test_embedding_batches_are_smaller_while_memory_use_is_over_80_percent_of_the_limit(
    container: Container, models: Models
):
    with filled(container, (SHRINK_AT + PAUSE_AT) / 2):
        _write(container, "tight")
        container.until(lambda: sum(_batches(models, "tight")) == TEXTS, "the texts are embedded", 120)
    assert max(_batches(models, "tight")) <= BATCH // 2


def test_embedding_pauses_at_90_percent_of_the_memory_limit_and_continues_below(
    container: Container, models: Models
):
    with filled(container, PAUSE_AT + 0.02):
        _write(container, "full")
        until_said(container, "memory is at 9", "of the limit")
        assert not _batches(models, "full")
    container.until(lambda: sum(_batches(models, "full")) == TEXTS, "the texts are embedded", 120)
    assert container.probe()["oom_kills"] == 0


def _write(container: Container, name: str) -> None:
    text = "\n\n".join(f"# {name} {n}\n\nThe heron {n} is {name}." for n in range(TEXTS))
    (container.knowledge / "docs" / f"{name}.md").write_text(text)


def _batches(models: Models, name: str) -> list[int]:
    """Return the sizes of the batches with this file's texts, in order."""
    batches = (call["body"]["input"] for call in models.calls("/api/embed"))
    return [len(texts) for texts in batches if any(f"is {name}." in text for text in texts)]
