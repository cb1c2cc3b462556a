from __future__ import annotations

import pytest

from mlx_server.engine.prompt_cache.disk.folder import BlockFolder
from mlx_server.engine.prompt_cache.store import BlockStore
from tests.prompt_cache_model import MANY, Clock


@pytest.fixture
def open_store(tmp_path):
    """Return a function that opens a store in the test's folder. All stores are closed at the end."""
    stores = []

    def opened(ram=MANY, on_disk=MANY, folder=None, clock=Clock()):  # noqa: B008
        stores.append(BlockStore(folder or BlockFolder(tmp_path / "prompts"), ram, on_disk, clock))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()
