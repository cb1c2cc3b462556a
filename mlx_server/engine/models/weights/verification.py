"""Verify the weights of loaded models in a background thread, after the models' first answers: compare the
sha256 of each file with the one that was recorded when the file was installed or read before. If none was
recorded, record it. If the two differ, the scheduler unloads the models that use the file.

The thread has the lowest priority and rests after each chunk, so that it uses at most a quarter of a core.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from mlx_server.engine.log import log_event
from mlx_server.engine.models.weights.checks import UsedFile, changed_content, read_again
from mlx_server.engine.models.weights.digest_file import DigestFile
from mlx_server.engine.models.weights.digests import FileDigest

BEGINS_AFTER_S = 2.0
"""How long the thread rests before the first file. The first answer of an engine is often followed by the
next turn of a conversation, which waited while the engine was replaced."""

REST_PER_WORK = 3.0
"""After each chunk, the thread rests for this many times as long as the chunk took."""

_LOWEST_NICENESS = 19
_DARWIN_THREAD, _DARWIN_BACKGROUND = 3, 0x1000  # of setpriority(2) on macOS


class Verification:
    """Verifies the files of loaded models in a separate thread, which reads them completely and compares
    their digests with the recorded ones.

    `digests` stores the results in a file; with None, they are only held in memory. The thread calls `wake`
    when a file is damaged. Before the first file, and after each chunk that it has read, it calls `rest` with
    the number of seconds to wait.
    """

    def __init__(
        self,
        digests: DigestFile | None = None,
        wake: Callable[[], None] = lambda: None,
        rest: Callable[[float], None] = time.sleep,
    ) -> None:
        self.digests = digests or DigestFile()
        self._wake, self._rest = wake, rest
        self._lock = threading.Lock()
        self._unserved: dict[str, Sequence[UsedFile]] = {}  # by model: loaded, without an answer yet
        self._files: dict[str, Sequence[UsedFile]] = {}  # by model: all of a loaded model
        self._queue: deque[UsedFile] = deque()
        self._verified: set[UsedFile] = set()
        self._damaged: list[tuple[str, str]] = []
        self._thread: threading.Thread | None = None

    def loaded(self, model: str, files: Sequence[UsedFile]) -> None:
        """Register the files of a model that has just been loaded. Their verification begins when `served` is
        called for this model, or when `served_all` is called.
        """
        with self._lock:
            self._unserved[model] = self._files[model] = files
            self._verified.update(file for file in files if file.was_read)

    def unloaded(self, model: str) -> None:
        """Remove a model. Its files no longer wait to be verified, unless another model uses them. A file
        that is being read is read to its end.
        """
        with self._lock:
            self._unserved.pop(model, None)
            self._files.pop(model, None)
            in_use = {file for files in self._files.values() for file in files}
            self._queue = deque(file for file in self._queue if file in in_use)

    def served(self, model: str) -> None:
        """Begin to verify a model, which has just answered. Further calls for the same model do nothing."""
        if model not in self._unserved:
            return
        with self._lock:
            self._queue.extend(self._unserved.pop(model, ()))
            if self._queue and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="verification", daemon=True)
                self._thread.start()

    def served_all(self) -> None:
        """Begin to verify the files of all loaded models, including models that have not answered a request
        yet. Models whose verification has already begun are skipped.
        """
        for model in list(self._unserved):
            self.served(model)

    def take_damaged(self) -> list[tuple[str, str]]:
        """Return the models that were found damaged since the last call, as pairs of a name and a sentence
        about the damage.
        """
        if not self._damaged:
            return []
        with self._lock:
            found, self._damaged = self._damaged, []
            return found

    def wait(self, timeout_s: float) -> None:
        """Wait until nothing is left to verify, but at most `timeout_s` seconds."""
        if (thread := self._thread) is not None:
            thread.join(timeout_s)

    def _run(self) -> None:
        _take_lowest_priority()
        self._rest(BEGINS_AFTER_S)
        while True:
            with self._lock:
                file = self._queue.popleft() if self._queue else None
                if file is None:
                    self._thread = None
                    return
            if file not in self._verified:
                try:
                    self._verify(file)
                except Exception as error:  # the other files must be verified nevertheless
                    cause = f"{type(error).__name__}: {error}"
                    log_event("weights_verification_failed", cause=cause, file=str(file.path))

    def _verify(self, file: UsedFile) -> None:
        started_s, found = time.monotonic(), None
        chunk_s = started_s
        for step in read_again(file):
            if isinstance(step, str):
                found = step
            else:
                self._rest(REST_PER_WORK * (time.monotonic() - chunk_s))
                chunk_s = time.monotonic()
        if found is None:
            log_event("weights_not_verified", cause="the file has changed since", file=str(file.path))
        elif file.sha256 in (None, found):
            self._verified.add(file)
            self.digests.put(file.path, FileDigest(file.stamp, found), keeps_damage=True)
            seconds = round(time.monotonic() - started_s, 1)
            log_event("weights_verified", file=str(file.path), first=file.sha256 is None, seconds=seconds)
        else:
            self._report_damage(file, found, str(file.sha256))

    def _report_damage(self, file: UsedFile, found: str, recorded: str) -> None:
        """Record the file as damaged, because its sha256 is `found` instead of `recorded`. Unless the file is
        replaced, its next load will read the whole file and compare its sha256 with the recorded one before
        using it. Add all models that use the file to those that `take_damaged` returns, and wake the
        scheduler, which unloads them.

        Several models may use the file, because models with adapters use their base model's files.
        """
        try:
            # First, because the scheduler may load the model again as soon as it is woken.
            self.digests.put(file.path, FileDigest(file.stamp, recorded, is_damaged=True))
        finally:
            sentence = changed_content(file.path, found, recorded)
            with self._lock:
                self._damaged += [(model, sentence) for model, files in self._files.items() if file in files]
            self._wake()


def _take_lowest_priority() -> None:
    """Give the calling thread the lowest priority for the processor and, on macOS, for the disk."""
    with contextlib.suppress(OSError):
        if sys.platform == "darwin":
            os.setpriority(_DARWIN_THREAD, 0, _DARWIN_BACKGROUND)
        else:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_NICENESS)
