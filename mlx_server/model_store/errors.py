"""The one exception of the model store, and DAMAGE: what Python raises while damaged files are read.

The `code` of the exception says what happened:

ModelStoreError
├─ gated_repository           the hub gives the files only to those who have accepted the authors' terms
├─ revision_not_found         the repository has no such branch, tag or commit
├─ unauthorized               the hub refuses the token that was sent
├─ insufficient_memory        the model would not fit into this machine's memory
├─ invalid_source             the `source` in the configuration cannot be parsed
├─ model_not_found            no model has this name; or its folder, package or repository does not exist
├─ disk_full                  the disk is full, or would be
├─ store_unwritable           the store's folder cannot be written
├─ network_unavailable        the package index or the hub cannot be reached
├─ fetch_failed               pip, uv or the hub's library failed for another reason
├─ checksum_mismatch          the file does not have the sha256 that was configured or announced
├─ not_a_model                the download contains no model that can be read
├─ not_an_adapter             an adapter's files are not complete, or do not fit its base
├─ conversion_failed          a GGUF file could not be converted
├─ blob_not_found             a file that a new model needs was not uploaded
├─ invalid_digest             the digest of an uploaded file cannot be parsed
├─ name_taken                 a new model has the name of a configured model or of a folder in the user's
│                             models folder, or its folder in the store would be that of another model
└─ preset_too_large           a model's system prompt, messages and template are too long to be kept
"""

from __future__ import annotations

import struct

DAMAGE = (
    *(ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError),
    struct.error,
)
"""The errors that reading a file of any content can raise: the file is absent or unreadable, its text is not
JSON or nested too deep, or a value has another type than expected or is infinite.

Code that catches them calls `raise_if_exhausted` first. Code that reads YAML catches `yaml.YAMLError` too.
"""


class ModelStoreError(Exception):
    """A model cannot be fetched, made, installed or removed.

    `code` is one of the codes in the list at the top of this file, such as `disk_full`. `message` is a
    sentence that says what went wrong and names the model, file or folder; `remedy` is a sentence that says
    what the user can do.
    """

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(f"{message} {remedy}")
        self.code = code
        self.message = message
        self.remedy = remedy
