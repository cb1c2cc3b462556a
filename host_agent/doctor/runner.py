"""Run diagnoses in parallel, each with a timeout. A diagnosis that hangs is reported and abandoned."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config

POLL_S = 0.1
NO_RESULT = "This could not be checked"
OnWait = Callable[[Sequence[str]], None]
"""Called with the names of the diagnoses that are still running."""


def run(
    diagnoses: Sequence[Diagnosis], config: Config, on_wait: OnWait = lambda names: None
) -> Iterator[list[Finding]]:
    """Yield the findings of each diagnosis, in the order of `diagnoses`, as soon as it has ended."""
    running = [_RunningDiagnosis(diagnosis, config) for diagnosis in diagnoses]
    for current in running:
        while not current.is_over:
            on_wait([each.diagnosis.name for each in running if not each.is_over])
            current.wait()
        yield current.findings()


class _RunningDiagnosis:
    """One diagnosis in a daemon thread, so that a hung one does not keep the program running."""

    def __init__(self, diagnosis: Diagnosis, config: Config) -> None:
        self.diagnosis = diagnosis
        self._config = config
        self._findings: list[Finding] = []
        self._thread = threading.Thread(target=self._run, name=diagnosis.name, daemon=True)
        self._deadline = time.monotonic() + diagnosis.timeout_s
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive() or time.monotonic() > self._deadline

    def wait(self) -> None:
        """Wait a moment for the end of the diagnosis."""
        self._thread.join(POLL_S)

    def findings(self) -> list[Finding]:
        """Return the findings of the diagnosis; if it has not ended, a fault that says so."""
        if not self._thread.is_alive():
            return self._findings
        sentence = f"{NO_RESULT}: no result within {self.diagnosis.timeout_s:g} s."
        remedy = "Something that it asks hangs; run `vestal doctor` again later."
        return [Finding(self.diagnosis.name, "fault", sentence, remedy)]

    def _run(self) -> None:
        """Collect the findings. An exception becomes a fault, so that the other diagnoses are still shown."""
        findings: list[Finding] = []
        try:
            findings.extend(self.diagnosis.diagnose(self._config))
        except Exception as error:
            sentence = f"{NO_RESULT}: {error!r}."
            findings.append(Finding(self.diagnosis.name, "fault", sentence))
        self._findings = findings
