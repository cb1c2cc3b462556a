"""Metal is out of memory: Ollama's runner or our engine ends, and its last lines say why."""

import time
from collections.abc import Iterator

from host_agent.doctor.evidence import log_files
from host_agent.doctor.evidence.log_signs import Cause
from host_agent.doctor.finding import Finding
from host_agent.doctor.memory import metal_signs
from vestal.config import Config

NAME = "metal_out_of_memory"
CAUSES = (Cause.OUT_OF_MEMORY, Cause.TOO_MANY_BUFFERS, Cause.LIBRARY)


def look(config: Config) -> Iterator[Finding]:
    """In the last hour of our logs and of Ollama's."""
    found = [
        finding
        for log, seen in log_files.recent_signs(config, time.time())
        for finding in metal_signs.findings(NAME, CAUSES, log.name, seen)
    ]
    yield from found or [Finding(NAME, "ok", "no log of the last hour tells of Metal running out of memory")]
