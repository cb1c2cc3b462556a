"""Runs diagnoses side by side, each with its time; one that hangs is named, not waited for."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config

LOOK_EACH_S = 0.1
Waiting = Callable[[Sequence[str]], None]


class _Visit:
    """One diagnosis under way, in a thread that does not hold the program up."""

    def __init__(self, diagnosis: Diagnosis, config: Config) -> None:
        self.diagnosis = diagnosis
        self._config = config
        self._found: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=diagnosis.name, daemon=True)
        self._until = time.monotonic() + diagnosis.within_s
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive() or time.monotonic() > self._until

    def findings(self) -> list[Finding]:
        """What it found; a diagnosis that could not be made is not called well."""
        if not self._thread.is_alive():
            return self._found
        within_s = self.diagnosis.within_s
        sentence = f"could not be looked at: no end within {within_s:g} s"
        remedy = "something that it asks hangs; look again later"
        return [Finding(self.diagnosis.name, "fault", sentence, remedy)]

    def wait(self) -> None:
        self._thread.join(LOOK_EACH_S)

    def _run(self) -> None:
        found: list[Finding] = []
        try:
            found.extend(self.diagnosis.look(self._config))
        except Exception as error:
            # The others must not be silenced by it.
            found.append(Finding(self.diagnosis.name, "fault", f"could not be looked at: {error!r}"))
        self._found = found


def go(
    diagnoses: Sequence[Diagnosis], config: Config, on_wait: Waiting = lambda names: None
) -> Iterator[list[Finding]]:
    """The findings of each, in order, once they are there. `on_wait` gets the names still at work."""
    visits = [_Visit(diagnosis, config) for diagnosis in diagnoses]
    for visit in visits:
        while not visit.over:
            on_wait([each.diagnosis.name for each in visits if not each.over])
            visit.wait()
        yield visit.findings()
