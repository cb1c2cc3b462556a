"""What can go wrong with a model on its way to disk, as one exception told apart by its code.

ModelStoreError
├─ invalid_source             the configuration's `source` cannot be read
├─ model_not_found            no model has this name; or its folder, package or repository is not there
├─ disk_full                  there is, or would be, no room
├─ store_unwritable           the store's folder cannot be written
├─ network_unavailable        the package index or the hub cannot be reached
├─ fetch_failed               the host tool (pip, uv, the hub's library) failed in another way
├─ checksum_mismatch          the file is not the one the configuration names
├─ not_a_model                what was fetched holds no model we can read
└─ conversion_failed          a GGUF file could not be converted
"""

from __future__ import annotations


class ModelStoreError(Exception):
    """`message` is one sentence naming the culprit, `remedy` one saying what to do."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.code = code
        self.message = message
        self.remedy = remedy
