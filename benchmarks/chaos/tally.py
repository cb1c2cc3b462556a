"""Count the results of a run, in a bounded amount of memory. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.chaos.histogram import Histogram
from benchmarks.chaos.verdict import TextVerdict
from benchmarks.client.returning import Comebacks

MAX_SAMPLES = 20
SAMPLE_CHARS = 600


@dataclass
class CauseTally:
    """The effects of one cause, such as an engine's SIGKILL or an upgrade.

    `count` is how often the kill or upgrade was due. `without_effect` counts the failures among these: kills
    from which the stack did not recover in time, upgrades that replaced nothing, and kills and upgrades that
    were left out because the stack did not serve. `refused` and `busy` count attempts of clients that ended
    with a refused connection or a 503 while this was the latest cause; each of these requests was sent again.
    `pauses` counts the pauses of streams by their length in seconds.
    """

    count: int = 0
    without_effect: int = 0
    refused: int = 0
    busy: int = 0
    pauses: Histogram = field(default_factory=Histogram)


class Tally:
    """The counts of a chaos run: answers by verdict, kills and upgrades with their effects, and how often
    clients came back after a cut-off. A resumed run continues with the stored counts of its earlier parts.
    """

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.verdicts: Counter[str] = Counter()
        self.comebacks = Comebacks()
        self.causes: dict[str, CauseTally] = {}
        self.samples: list[str] = []
        """The first answers that were not equal, in words."""

    def of(self, cause: str) -> CauseTally:
        """Return the counts of one cause."""
        return self.causes.setdefault(cause, CauseTally())

    @property
    def sent(self) -> int:
        return self.verdicts.total()

    @property
    def done(self) -> int:
        """Return how many kills and upgrades have been done."""
        return sum(cause.count for cause in self.causes.values())

    @property
    def equal_share(self) -> float:
        return self.verdicts[TextVerdict.EQUAL] / self.sent if self.sent else 0.0

    def judged(self, verdict: TextVerdict, sample: str) -> None:
        """Count an answer by its verdict, which compares it with the answer to the same request without
        kills. Unless the two are equal, also store `sample`, a description of the answer; at most MAX_SAMPLES
        are stored.
        """
        self.verdicts[verdict] += 1
        if verdict is not TextVerdict.EQUAL and len(self.samples) < MAX_SAMPLES:
            self.samples.append(f"{verdict}: {sample}"[:SAMPLE_CHARS])

    def failures(self, least_equal: float) -> Iterator[str]:
        """Yield the reasons why the run failed; none if it succeeded. `least_equal` is the share (0 to 1) of
        all answers that must equal the answers to the same requests without kills.
        """
        for verdict in (TextVerdict.LOST, TextVerdict.DOUBLED):
            if self.verdicts[verdict]:
                yield f"{self.verdicts[verdict]} {verdict}"
        for name, cause in self.causes.items():
            if cause.without_effect:
                yield f"{cause.without_effect} of {cause.count} ({name}) without a new process that serves"
        if self.equal_share < least_equal:
            yield f"{self.equal_share:.2%} equal, less than {least_equal:.1%}"

    def to_json(self) -> dict[str, Any]:
        """Return the tally as a dictionary that `from_json` reads."""
        return {
            "elapsed_s": self.elapsed_s,
            "verdicts": dict(self.verdicts),
            "comebacks": asdict(self.comebacks),
            "causes": {
                name: {**vars(cause), "pauses": cause.pauses.to_json()} for name, cause in self.causes.items()
            },
            "samples": self.samples,
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Tally:
        """Return the tally that `to_json` wrote. Raises LookupError, TypeError or ValueError if `kept` is not
        one.
        """
        tally = cls()
        tally.elapsed_s = float(kept["elapsed_s"])
        tally.verdicts = Counter(kept["verdicts"])
        tally.comebacks = Comebacks(**kept["comebacks"])
        tally.causes = {
            name: CauseTally(**{**cause, "pauses": Histogram.from_json(cause["pauses"])})
            for name, cause in kept["causes"].items()
        }
        tally.samples = list(kept["samples"])
        return tally
