"""Check that the prompt cache returns no wrong value and keeps its limits under any use and fault."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mlx_server.engine.prompt_cache.block import BlockRun
from mlx_server.engine.prompt_cache.disk.folder import SUFFIX, BlockFolder
from mlx_server.engine.prompt_cache.keys import length_of
from mlx_server.engine.prompt_cache.ready_caches import ReadyCache
from mlx_server.engine.prompt_cache.store import BlockStore
from tests.prompt_cache_model import BLOCK_BYTES, SIZE, Model, is_right, values_of

RAM_BYTES = 6 * BLOCK_BYTES
DISK_BYTES = 12 * 600
TOKENS = st.lists(st.integers(0, 1), max_size=24)
ANY = st.integers(0, 10**6)
ENGINE = st.integers(0, 1)
MODEL = st.sampled_from(["model", "other"])


class RecordingFolder(BlockFolder):
    """Take a key out of `spoiled` when its file is written again; put the files it removes into `removed`."""

    def __init__(self, path: Path, spoiled: dict[str, bytes], removed: dict[str, bytes]) -> None:
        super().__init__(path)
        self.spoiled, self.removed = spoiled, removed

    def write(self, key: str, parts: Sequence[bytes | memoryview]) -> None:
        super().write(key, parts)
        self.spoiled.pop(key, None)

    def remove(self, key: str) -> None:
        self.removed.setdefault(key, self.read(key))
        super().remove(key)


class AnyUse(RuleBasedStateMachine):
    """Use a store in any order: two engines share a folder, two models have one shape, files are damaged."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.path = self.home / "prompts"
        # The keys whose files are not as engine 0 left them: harmed, or removed by engine 1 for its limit.
        # Engine 0 cannot know this of a block that it has in RAM, so after its restart that block is a miss.
        # By key, the bytes that the file had.
        self.spoiled: dict[str, bytes] = {}
        self.stores = [self.opened(0), self.opened(1)]
        self.ended: list[tuple[int, str, list[int]]] = []
        self.known: dict[str, set[tuple[int, ...]]] = {"model": set(), "other": set()}

    def opened(self, engine: int) -> BlockStore:
        removed = dict[str, bytes]() if engine == 0 else self.spoiled
        return BlockStore(RecordingFolder(self.path, self.spoiled, removed), RAM_BYTES, DISK_BYTES)

    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.safetensors"))

    def model(self, engine: int, name: str) -> Model:
        return Model(self.stores[engine], name)

    @rule(engine=ENGINE, name=MODEL, tokens=TOKENS)
    def a_prompt_is_kept(self, engine: int, name: str, tokens: list[int]) -> None:
        new = self.model(engine, name).keep(tokens)
        assert new <= len(tokens) // SIZE
        self.known[name] |= {tuple(tokens[:end]) for end in range(len(tokens) + 1)}

    @rule(engine=ENGINE, tokens=TOKENS.filter(bool))
    def a_snapshot_is_kept(self, engine: int, tokens: list[int]) -> None:
        self.model(engine, "model").keep_snapshot(tokens)
        self.known["model"].add(tuple(tokens))

    @rule(engine=ENGINE, name=MODEL, tokens=TOKENS)
    def a_prompt_is_asked_for(self, engine: int, name: str, tokens: list[int]) -> None:
        got = self.model(engine, name).get(tokens)  # which checks every value
        assert got == 0 or tuple(tokens[:got]) in self.known[name]

    @rule(engine=ENGINE, name=MODEL, tokens=TOKENS)
    def what_was_kept_is_found_at_once(self, engine: int, name: str, tokens: list[int]) -> None:
        model = self.model(engine, name)
        model.get(tokens)  # as every request does first: a folder that was cleared is noticed here
        model.keep(tokens)
        self.known[name] |= {tuple(tokens[:end]) for end in range(len(tokens) + 1)}
        longest_in_ram = (RAM_BYTES - model.store.ready_bytes) // BLOCK_BYTES * SIZE
        if not any(map(length_of, model.store._group(model.keys.snapshots))):
            assert model.get(tokens) >= min(len(tokens) // SIZE * SIZE, longest_in_ram)

    @rule(engine=ENGINE, name=MODEL, tokens=TOKENS.filter(lambda tokens: 0 < len(tokens) <= 12))
    def an_answer_ends(self, engine: int, name: str, tokens: list[int]) -> None:
        self.ended.append((engine, name, tokens))
        model = self.model(engine, name)
        model.keep(tokens)
        self.known[name] |= {tuple(tokens[:end]) for end in range(len(tokens) + 1)}
        values = values_of(tokens, name)
        model.store.keep_ready(ReadyCache(name, tuple(tokens), [values], values.nbytes))

    @precondition(lambda self: self.ended)
    @rule(pick=ANY, dropped=st.integers(0, 6), more=TOKENS)
    def an_answer_is_continued(self, pick: int, dropped: int, more: list[int]) -> None:
        engine, name, ended = self.ended[-1 - pick % min(len(self.ended), 3)]
        tokens, store = ended[: max(len(ended) - dropped, 1)] + more, self.stores[engine]
        find = store.find(self.model(engine, name).keys, tokens, {"identity": name})
        before = store.ready_bytes
        if find is None or (taken := store.take_ready(find, name)) is None:
            return
        ready, count = taken
        assert count >= len(find.keys) * SIZE
        assert store.ready_bytes == before - ready.nbytes
        (values,) = ready.caches
        assert is_right(BlockRun((values.head(count),)), tokens, name)

    @rule(engine=ENGINE)
    def an_engine_is_killed_and_started(self, engine: int) -> None:
        self.stores[engine]._disk.flush(60.0)  # threads of the dead do not write on
        self.stores[engine].close()
        self.stores[engine] = self.opened(engine)

    @rule(tokens=TOKENS)
    def an_engine_persists_and_the_next_is_warm(self, tokens: list[int]) -> None:
        for store in self.stores:
            store.persist(60.0)
        model = self.model(0, "other")
        model.get(tokens)
        model.keep(tokens)
        self.known["other"] |= {tuple(tokens[:end]) for end in range(len(tokens) + 1)}
        model.store.persist(60.0)
        keys = model.keys.of_blocks(tokens)
        well = list(takewhile(lambda key: key not in self.spoiled, keys))
        self.an_engine_is_killed_and_started(0)
        model = self.model(0, "other")
        assert model.get(tokens) >= min(len(well), DISK_BYTES // 1000) * SIZE
        model.keep(tokens)
        model.store.persist(60.0)
        assert not self.spoiled.keys() & set(keys[: len(well) + 1]), (
            "a spoiled block is missed once, then written again"
        )

    @rule(pick=ANY, at=ANY, fault=st.sampled_from(["flip", "cut", "remove", "swap"]))
    def a_file_is_harmed(self, pick: int, at: int, fault: str) -> None:
        for store in self.stores:
            store.persist(60.0)
        if not (files := [path for path in self.files() if path.stat().st_size]):
            return
        path = files[pick % len(files)]
        key = path.name.removesuffix(SUFFIX)
        right = self.spoiled.setdefault(key, path.read_bytes())
        content = bytearray(path.read_bytes())
        match fault:
            case "flip":
                at %= len(content) * 8
                content[at // 8] ^= 1 << at % 8
                path.write_bytes(content)
            case "cut":
                path.write_bytes(content[: at % len(content)])
            case "remove":
                path.unlink()
            case "swap":
                path.write_bytes(files[at % len(files)].read_bytes())
        if path.exists() and path.read_bytes() == right:
            del self.spoiled[key]

    @rule()
    def the_folder_is_cleared(self) -> None:
        for store in self.stores:
            store.persist(60.0)
        shutil.rmtree(self.path, ignore_errors=True)

    @rule(engine=ENGINE, size=st.integers(0, RAM_BYTES))
    def memory_is_asked_back(self, engine: int, size: int) -> None:
        store = self.stores[engine]
        before = store.ram_bytes + store.ready_bytes
        store.free_ram(size)
        assert store.ram_bytes + store.ready_bytes <= before - min(size, before)

    @invariant()
    def bytes_are_within_the_limits(self) -> None:
        for store in self.stores:
            assert store.ram_bytes + store.ready_bytes <= RAM_BYTES
            assert store.disk_bytes <= DISK_BYTES

    @invariant()
    def all_that_is_in_ram_is_counted(self) -> None:
        for store in self.stores:
            assert sum(entry.nbytes for entry in store._ram._entries.values()) == store.ram_bytes

    def teardown(self) -> None:
        for store in self.stores:
            store.persist(60.0)
            store.close()
        shutil.rmtree(self.home, ignore_errors=True)


TestAnyUse = AnyUse.TestCase
TestAnyUse.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
