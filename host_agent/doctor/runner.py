"""Run diagnoses in parallel, each with a timeout. A diagnosis that hangs is reported as a fault and
abandoned.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from host_agent.doctor.finding import Diagnosis, Finding
from vestal.config import Config

POLL_S = 0.1
NO_RESULT = "This could not be checked"
OnWait = Callable[[Sequence[str]], None]
"""A function that is called with the names of the diagnoses that are still running."""


def run(
    diagnoses: Sequence[Diagnosis], config: Config, on_wait: OnWait = lambda names: None
) -> Iterator[list[Finding]]:
    """Run all diagnoses in parallel, and yield the list of findings of each, in the order of `diagnoses`.

    While diagnoses run, call `on_wait` every POLL_S seconds with the names of those still running.
    """
    running = [_RunningDiagnosis(diagnosis, config) for diagnosis in diagnoses]
    for current in running:
        while not current.is_over:
            on_wait([each.diagnosis.name for each in running if not each.is_over])
            current.wait()
        yield current.findings()


class _RunningDiagnosis:
    """Runs one diagnosis in a daemon thread, so that a diagnosis that hangs does not keep the program
    running.
    """

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
        """Wait for the end of the diagnosis, but at most POLL_S seconds."""
        self._thread.join(POLL_S)

    def findings(self) -> list[Finding]:
        """Return the diagnosis's findings or, if it has not ended in time, a fault that says so."""
        if not self._thread.is_alive():
            return self._findings
        sentence = f"{NO_RESULT}: no result within {self.diagnosis.timeout_s:g} s."
        remedy = "Something that it asks hangs; run `vestal doctor` again later."
        return [Finding(self.diagnosis.name, "fault", sentence, remedy)]

    def _run(self) -> None:
        """Collect the findings. If the diagnosis raises an exception, report that as a fault instead."""
        findings: list[Finding] = []
        try:
            findings.extend(self.diagnosis.diagnose(self._config))
        except Exception as error:
            sentence = f"{NO_RESULT}: {error!r}."
            findings.append(Finding(self.diagnosis.name, "fault", sentence))
        self._findings = findings
