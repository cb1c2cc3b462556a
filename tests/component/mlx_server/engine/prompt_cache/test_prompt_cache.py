"""The prompt cache across restarts of the engine: it changes no text, even with damaged files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_server.model_store.files.integrity import MANIFEST_KEY
from mlx_server.protocol import Alive, Cancel, Done, Generate, Prefill, Sampling, Token
from tests.component.mlx_server.engine.conftest import CHAT, Engine
from tests.models.small_models import TOKEN_BYTES
from tests.waiting import looks

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

PROSE = " ".join(
    f"On day {day} the keeper of the lighthouse wrote that {what} had come in with the tide."
    for day, what in enumerate(["a blue boat", "some old letters", "a bell", "three geese"] * 4, start=1)
)
BLOCK_TOKENS = 16
ORPHAN = "k"  # the start of the names of the temporary files that dead engines left
Lives = Callable[..., Engine]


def text(id: str, prompt: str, max_tokens: int = 12, **more: Any) -> Generate:
    return Generate(
        id, CHAT, "text", prompt=prompt, max_tokens=max_tokens, sampling=Sampling(temperature=0.0), **more
    )


def chat(id: str, messages: list[dict]) -> Generate:
    greedy = Sampling(temperature=0.0)
    return Generate(id, CHAT, "chat", messages=tuple(messages), max_tokens=12, sampling=greedy)


def cached(engine: Engine, id: str) -> int:
    return engine.answer(id, Done).usage.cached_tokens


def files(home: Path) -> list[Path]:
    return sorted((home / "cache" / "prompts").glob("*.safetensors"))


def logged(engine: Engine, event: str) -> list[dict]:
    return [line for line in engine.logged() if line["event"] == event]


def terminate(engine: Engine) -> None:
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(60) == 0, engine.log.read_text()


@pytest.fixture
def live(small_models_dir: Path) -> Iterator[Lives]:
    """Return a function that starts an engine in a home, with the cache of an earlier engine there."""
    engines: list[Engine] = []

    def start(home: Path, **env: str) -> Engine:
        whole = {"VESTAL_MODELS_DIR": str(small_models_dir), "MLX_PRELOAD_MODELS": CHAT, **env}
        engines.append(Engine(home, whole))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module")
def cold(small_models_dir: Path, tmp_path_factory) -> Iterator[Callable[[Generate], str]]:
    """Return the text that an engine without a cache gives."""
    off = {"VESTAL_MLX__PROMPT_CACHE_RAM": "0", "VESTAL_MLX__PROMPT_CACHE_DISK": "0"}
    env = {"VESTAL_MODELS_DIR": str(small_models_dir), "MLX_PRELOAD_MODELS": CHAT, **off}
    engine = Engine(tmp_path_factory.mktemp("cold"), env)
    texts: dict[Any, str] = {}

    def answer(op: Generate) -> str:
        asked = (op.prompt, str(op.messages), op.max_tokens)
        if asked not in texts:
            engine.send(op)
            texts[asked] = engine.text(op.id)
            assert cached(engine, op.id) == 0
        return texts[asked]

    yield answer
    engine.close()


def test_prompt_restored_from_ram_or_disk_in_whole_or_in_part_gives_the_uncached_answer(live, cold, home):
    whole = text("whole", PROSE)
    cuts = [text(f"cut{at}", f"{PROSE[:at]} Suddenly,") for at in (150, 533, 1010, 1201)]
    first = live(home)
    first.send(whole)
    assert first.text("whole") == cold(whole)
    first.send(text("again", PROSE))
    assert first.text("again") == cold(whole)
    usage = first.answer("again", Done).usage
    assert usage.prompt_tokens > 280
    assert usage.cached_tokens == usage.prompt_tokens - 1
    terminate(first)
    stage = next(s for s in logged(first, "shutdown_stage_done") if s["stage"] == "persist_caches")
    assert stage["count"] >= 0 and "error" not in stage

    second = live(home)
    second.send(whole, *cuts)  # side by side
    for op in (whole, *cuts):
        assert second.text(op.id) == cold(op)
    assert cached(second, "whole") == usage.cached_tokens
    shares = [cached(second, op.id) for op in cuts]
    assert shares == sorted(shares) and 20 < shares[0] < shares[-1]


def test_conversation_across_engine_restarts_is_answered_as_without_a_cache_and_stores_only_new_tokens(
    live, cold, home
):
    messages: list[dict] = [{"role": "user", "content": PROSE[:500] + " What came in?"}]
    tokens = 0
    for turn in range(3):
        engine = live(home)
        op = chat(f"turn{turn}", messages)
        engine.send(op)
        answer = engine.text(op.id)
        assert answer == cold(op)
        usage = engine.answer(op.id, Done).usage
        if turn:
            assert usage.cached_tokens >= tokens - BLOCK_TOKENS
        tokens = usage.prompt_tokens + usage.completion_tokens
        terminate(engine)
        messages += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"And then, on day {turn}?"},
        ]
    assert sum(path.stat().st_size for path in files(home)) <= 1.2 * tokens * TOKEN_BYTES


def test_prompt_of_a_killed_engine_is_restored_from_disk_by_the_next_engine(live, cold, home):
    first = live(home)
    first.send(text("killed", PROSE, 40))
    first.wait(lambda e: isinstance(e, Token) and e.index == 9)
    for _ in looks(60):
        if len(files(home)) >= 15:
            break
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(10)
    emitted = first.tokens("killed")[:10]  # on a busy machine, the answer may have ended before the kill
    second = live(home)  # which reads the prompt into RAM before it is asked
    second.wait(
        lambda e: isinstance(e, Alive) and e.prompt_cache.ram_bytes >= 15 * BLOCK_TOKENS * TOKEN_BYTES
    )
    second.send(text("resumed", PROSE, 40, emitted=tuple(token.token for token in emitted)))
    before = "".join(token.text for token in emitted)
    assert before + second.text("resumed") == cold(text("killed", PROSE, 40))
    assert cached(second, "resumed") >= 15 * BLOCK_TOKENS
    use = second.wait(lambda e: isinstance(e, Alive) and e.prompt_cache.hits_ram >= 15).prompt_cache
    assert use.hits_disk == 0


def test_prompt_of_a_request_cancelled_during_prefill_is_reused_by_the_same_request_again(live, cold, home):
    """Claude Code repeats a request after 300 s; earlier, each repeat began at the first token."""
    # So long that it still runs when a busy machine lets the test send the cancellation.
    prompt = " ".join([PROSE] * 8)
    engine = live(home)
    engine.send(text("leaves", prompt, 2000))
    part = engine.wait(lambda e: isinstance(e, Prefill) and e.id == "leaves")
    engine.send(Cancel("leaves"))
    assert part.done < part.total
    assert engine.answer("leaves", Done).reason == "cancelled"
    engine.send(text("again", prompt))
    assert engine.text("again") == cold(text("again", prompt))
    assert cached(engine, "again") >= part.done - BLOCK_TOKENS


def test_prompt_cache_ignores_damaged_files_and_deletes_orphaned_ones(live, cold, home):
    faults = ["truncated", "data", "header", "swapped", "emptied"]
    ops = [text(fault, f"{fault.title()} things: {PROSE[:400]}", 4) for fault in faults]
    first = live(home)
    third: dict[str, Path] = {}
    known: set[Path] = set()
    for op in ops:
        first.send(op)
        assert first.text(op.id) == cold(op)
        usage = first.answer(op.id, Done).usage
        new = _written(home, known, (usage.prompt_tokens + usage.completion_tokens - 1) // BLOCK_TOKENS)
        known.update(new)
        third[op.id] = new[2]
    terminate(first)
    for fault, path in third.items():
        _harm(path, fault, third["truncated"])
    _orphans(home, 1000)

    second = live(home)
    for op in ops:
        second.send(op)
        assert second.text(op.id) == cold(op)
        assert cached(second, op.id) == 2 * BLOCK_TOKENS, op.id
    # By key: a block that is read for a request while it is read ahead is dropped, and logged, twice.
    assert len({line["key"] for line in logged(second, "cache_block_dropped")}) == len(faults)
    assert logged(second, "cache_opened")[0]["swept"] == 1000
    # Only the orphans': the second engine may just be writing a block of its own.
    assert not list((home / "cache" / "prompts").glob(f"{ORPHAN}*.tmp"))
    terminate(second)


def _written(home: Path, known: set[Path], count: int) -> list[Path]:
    """Return the next `count` files, in the order in which they were written."""
    new: set[Path] = set()
    for _ in looks(60):
        if len(new := set(files(home)) - known) >= count:
            break
    assert len(new) >= count, f"{len(new)} of {count} files"
    followers = {path.name.partition("-")[0]: path for path in new}
    heads = {path.name.partition("-")[2][:16] for path in new}
    chain = [next(path for path in new if path.name.partition("-")[0] not in heads)]
    while (last := chain[-1].name.partition("-")[2][:16]) in followers:
        chain.append(followers[last])
    return chain


def _harm(path: Path, fault: str, other: Path) -> None:
    content = bytearray(path.read_bytes())
    (header,) = struct.unpack("<Q", content[:8])
    match fault:
        case "truncated":
            content = content[: len(content) // 2]
        case "data":
            content[header + 4000] ^= 1
        case "header":
            content[8 + header // 2] ^= 1
        case "swapped":
            content = bytearray(other.read_bytes())
        case "emptied":
            content.clear()
    path.write_bytes(content)


def _orphans(home: Path, count: int) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    for number in range(count):
        (home / "cache" / "prompts" / f"{ORPHAN}.{gone.pid}-x-{number}.tmp").write_bytes(b"half")


def test_prompt_cache_is_not_used_by_a_model_of_the_same_name_with_other_weights(
    live, home, small_models_dir, tmp_path
):
    op = text("mine", PROSE, 4)
    first = live(home)
    first.send(op)
    first.text("mine")
    terminate(first)
    assert files(home)
    shutil.copytree(small_models_dir, tmp_path / "models", copy_function=_copy)
    (weights,) = (tmp_path / "models" / "smollm2__135m").glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    _change_one_tensor(content)
    weights.unlink()
    weights.write_bytes(content)
    _forget_checksums(weights.parent / "vestal-model.json")
    second = live(home, VESTAL_MODELS_DIR=str(tmp_path / "models"))
    second.send(op)
    second.text("mine")
    assert cached(second, "mine") == 0
    assert logged(second, "cache_opened")[0]["blocks"] > 0


def _copy(source: str, target: str) -> None:
    os.link(source, target) if os.stat(source).st_size > 1 << 20 else shutil.copy2(source, target)


def _forget_checksums(manifest: Path) -> None:
    """Delete the recorded checksums, because the loader would refuse a model that was changed."""
    manifest_facts = json.loads(manifest.read_text())
    manifest.write_text(
        json.dumps({name: value for name, value in manifest_facts.items() if name != MANIFEST_KEY})
    )


def _change_one_tensor(content: bytearray) -> None:
    """Change one number of the weights, as a fine-tune would change them all."""
    (length,) = struct.unpack("<Q", content[:8])
    table = json.loads(content[8 : 8 + length])
    begin, end = next(spec["data_offsets"] for name, spec in table.items() if name != "__metadata__")
    content[8 + length + (begin + end) // 2] ^= 1


def test_prompt_cache_folder_that_cannot_be_written_is_logged_once_and_requests_succeed(live, cold, home):
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "prompts").write_text("in the way")
    op = text("blocked", PROSE, 4)
    engine = live(home)
    for id in ("blocked", "blocked again"):
        engine.send(text(id, PROSE, 4))
        assert engine.text(id) == cold(op)
    assert cached(engine, "blocked again") > 250  # from RAM
    terminate(engine)
    assert len(logged(engine, "cache_not_written")) == 1


def test_prompt_cache_on_a_full_disk_is_logged_once_and_requests_succeed(live, cold, home):
    folder = home / "cache" / "prompts"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        op = text("full", PROSE, 4)
        engine = live(home)
        for id in ("full", "full again"):
            engine.send(text(id, PROSE, 4))
            assert engine.text(id) == cold(op)
        assert cached(engine, "full again") > 250
        terminate(engine)
        assert len(logged(engine, "cache_not_written")) == 1
        assert 0 < len(files(home)) < 10
        second = live(home)
        second.send(op)
        assert second.text("full") == cold(op)
        assert cached(second, "full") >= BLOCK_TOKENS
        terminate(second)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
