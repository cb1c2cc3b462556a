"""Check the machine before `vestal up` starts anything, and report all faults at once.

The checks are those of `vestal doctor`, run in parallel. A fault prevents the start; a note does not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from host_agent.cli.run.progress import Progress
from host_agent.doctor import runner
from host_agent.doctor.finding import Diagnosis, Finding
from host_agent.doctor.installation import configuration, disk_full, home_folder, port_in_use, python_build
from host_agent.doctor.memory import docker_share, wired_memory
from host_agent.doctor.models import hub, missing_model
from host_agent.doctor.ollama import another_user, not_running
from host_agent.errors import HostAgentError
from host_agent.services import ollama
from host_agent.services.orchestrator import agents_file, knowledge_mounts, mode
from vestal.config import Config

TIMEOUT_S = 6.0
EXIT_CODES = {  # sysexits.h: EX_CONFIG, EX_IOERR, EX_TEMPFAIL
    configuration.NAME: 78,
    missing_model.NAME: 78,
    home_folder.NAME: 74,
    port_in_use.NAME: 75,
}
UNAVAILABLE = 69  # EX_UNAVAILABLE, for all other faults
PRECEDENCE = (78, 74, UNAVAILABLE, 75)


class NotStarted(HostAgentError):
    """Something on this machine prevents the start. The message lists every fault with its remedy.

    Each fault gives an exit code: the one that EXIT_CODES has for the check that found the fault, or
    UNAVAILABLE if it has none. The command exits with whichever of these codes comes first in PRECEDENCE.
    """

    code = "not_started"

    def __init__(self, faults: Sequence[Finding]) -> None:
        texts = [_text(fault) for fault in faults]
        if len(texts) == 1:
            super().__init__(f"Nothing was started: {texts[0]}")
        else:
            lines = "".join(f"\n  - {text}" for text in texts)
            super().__init__(f"Nothing was started; {len(texts)} things are wrong:{lines}")
        codes = {EXIT_CODES.get(fault.name, UNAVAILABLE) for fault in faults}
        self.exit_code = next(code for code in PRECEDENCE if code in codes)


def check(config: Config, progress: Progress, agent_runs: bool) -> None:
    """Run the checks and print their notes. Raises NotStarted if a check finds a fault.

    If an agent runs, only the settings, the models and the hub are checked, because its services already use
    ports and memory.
    """
    findings = [finding for found in runner.run(_checks(agent_runs), config) for finding in found]
    findings = [_as_note(finding) if _has_no_result(finding) else finding for finding in findings]
    if faults := [finding for finding in findings if finding.level == "fault"]:
        raise NotStarted(faults)
    for finding in findings:
        if finding.level == "note":
            progress.show("note", _text(finding))


def _checks(agent_runs: bool) -> list[Diagnosis]:
    always = [
        Diagnosis(configuration.NAME, _agents_file),
        Diagnosis(missing_model.NAME, missing_model.unobtainable),
        hub.DIAGNOSIS,
    ]
    before_start = [
        Diagnosis(home_folder.NAME, home_folder.check_folders),
        Diagnosis(disk_full.NAME, disk_full.check_disks),
        python_build.DIAGNOSIS,
        wired_memory.DIAGNOSIS,
        docker_share.DIAGNOSIS,
        port_in_use.DIAGNOSIS,
        Diagnosis(not_running.NAME, check_ollama),
    ]
    wanted = always if agent_runs else [*always, *before_start]
    # The check of the agents' file runs as a program of its own, with its own time limit.
    return [replace(each, timeout_s=TIMEOUT_S) for each in wanted[1:]] + wanted[:1]


def _agents_file(config: Config) -> Iterator[Finding]:
    if mistake := agents_file.find_mistake(config):
        yield Finding(configuration.NAME, "fault", mistake)
    if config.orchestrator.mode == "docker" or mode.has_containers(config):
        for name, path in knowledge_mounts.missing_folders(config):
            sentence = f"orchestrator.knowledge: {path} (of {name}) is not a folder."
            yield Finding(configuration.NAME, "fault", sentence, "Make it, mount its disk, or name another.")


def check_ollama(config: Config) -> Iterator[Finding]:
    """Yield a finding for each reason why this user's Ollama cannot be used: another program or another
    user's process holds its port, or it does not show this user's models.

    The findings are faults if `ollama.manage` is `always`, else notes. With `always`, a missing Ollama is a
    fault too.
    """
    required = config.ollama.manage == "always"
    if required and not ollama.installed():
        remedy = "Install it (https://ollama.com/download), or set VESTAL_OLLAMA__MANAGE=auto."
        yield Finding(
            not_running.NAME, "fault", "Ollama is not installed, and ollama.manage is always.", remedy
        )
    strangers = [each for each in not_running.check_owner_of_port(config) if each.level != "ok"]
    for finding in strangers:
        yield replace(finding, level="fault" if required else "note")
    if strangers:
        return  # a foreign program cannot answer Ollama's requests
    for finding in another_user.diagnose(config):
        if finding.level != "ok":
            yield finding if required else _as_note(finding)


def _has_no_result(finding: Finding) -> bool:
    """Return whether the finding says that a check gave no result, which does not prevent the start."""
    return finding.sentence.startswith(runner.NO_RESULT)


def _as_note(finding: Finding) -> Finding:
    return replace(finding, level="note")


def _text(finding: Finding) -> str:
    return f"{finding.sentence} {finding.remedy}".rstrip()
