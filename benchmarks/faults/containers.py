"""Define the faults of the orchestrator's container and of the Docker engine in which it runs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil

from benchmarks.faults.docker_engine import IMAGE, REPO, DockerEngine, lacking, own_network
from benchmarks.faults.fault import LOOK_S, Fault, Group, Made, event_of, until_dead
from benchmarks.faults.outcomes import ORCHESTRATOR
from benchmarks.faults.probing import Load, probes_by_get, tasks
from benchmarks.faults.stack import FaultStack, until

CONTAINER = "orchestrator"
SERVICES = (CONTAINER, "nightly")
UP_WITHIN_S = 240.0
OVERRUN_WITHIN_S = 60.0
OVERRUN = """
import os
for name in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{name}/cmdline") as command:
        if "orchestrator" in command.read():  # the same user may offer it to the kernel
            with open(f"/proc/{name}/oom_score_adj", "w") as score:
                score.write("1000")
blocks = []
while True:
    blocks.append(bytearray(os.urandom(1 << 20)) * 8)
"""


class ContainerStack(FaultStack):
    """A stack whose orchestrator runs in a container of `engine`, a Docker engine that the benchmark started
    for itself. `first_port` is the first of the stack's ports; 0 means free ones.
    """

    def __init__(self, engine: DockerEngine, *, first_port: int = 0) -> None:
        self.engine = engine
        own = {
            "DOCKER_HOST": engine.host,
            "VESTAL_ORCHESTRATOR_IMAGE": IMAGE,
            "VESTAL_ORCHESTRATOR__MODE": "docker",
            "VESTAL_ORCHESTRATOR__MEM_LIMIT": "512m",
            "VESTAL_ORCHESTRATOR__MAX_ANSWER_TOKENS": "16",
            "VESTAL_OLLAMA__MANAGE": "off",
        }
        super().__init__(first_port=first_port, clock=None, **own)
        self.project = ""
        notes = self.tools / "notes"
        notes.mkdir()
        self.tools.chmod(0o755)  # the containers run as another user
        (notes / "birds.md").write_text("# Birds\n\nThe heron eats fish at dawn.\n")
        self._env["VESTAL_ORCHESTRATOR__KNOWLEDGE"] = json.dumps({"notes": str(notes)})
        self.orchestrator_url = f"http://127.0.0.1:{self._env['VESTAL_ORCHESTRATOR_PORT']}"

    def up(self) -> None:
        """Start the agent unless it runs, and wait until all services serve. The agent starts the containers
        in the benchmark's Docker engine, from the image that was loaded into it. Raises RuntimeError if a
        service does not serve within UP_WITHIN_S seconds.

        `vestal up` is not used, because it would build the image, and this Docker engine has no network.
        """
        if not (self.code / "docker-compose.yml").exists():
            shutil.copy2(REPO / "docker-compose.yml", self.code)
        if not self.agent_answers():
            subprocess.Popen(
                [sys.executable, "-m", "host_agent.cli.main", "agent"],
                env=self._env,
                cwd=self.code,
                stdin=subprocess.DEVNULL,
                stdout=(self.tools / "agent.log").open("ab"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not until(self.is_whole, UP_WITHIN_S):
            raise RuntimeError(f"The stack did not come up: {self._last_words()}")
        self.project = str(self.ask_agent("/status")["services"]["docker"]["project"])

    def pid(self, name: str) -> int | None:
        """Return the PID of the main process of the container `name` (`orchestrator` or `nightly`). With
        another `name`, such as `agent` or `mlx_server`, return the PID of that process, which runs outside
        containers. Return None if the process does not run.
        """
        if name not in SERVICES:
            return super().pid(name)
        with contextlib.suppress(ValueError):
            return (
                int(self.engine.docker("inspect", "--format", "{{.State.Pid}}", self.container(name)).stdout)
                or None
            )
        return None

    def container(self, service: str) -> str:
        """Return the ID of a service's container; "" if there is none."""
        labels = (f"com.docker.compose.project={self.project}", f"com.docker.compose.service={service}")
        filters = [part for label in labels for part in ("--filter", f"label={label}")]
        return self.engine.docker("ps", "--all", "--quiet", *filters).stdout.strip()

    def loads(self, stream: str) -> list[Load]:
        """Return the requests that are sent to the orchestrator around a fault: short GETs as probes, and one
        task after the other. `stream` is not used, because all faults of this group affect the orchestrator.
        """
        token = (self.home / "token").read_text().strip()
        url, headers = f"{self.orchestrator_url}/tasks", {"Authorization": f"Bearer {token}"}
        return [probes_by_get(ORCHESTRATOR, f"{url}?limit=1", headers), tasks(ORCHESTRATOR, url, headers)]

    def _last_words(self) -> str:
        with contextlib.suppress(OSError, ValueError, KeyError):
            services = self.ask_agent("/status")["services"]
            return "; ".join(
                f"{name}: {each['state']} {each.get('detail', '')}" for name, each in services.items()
            )
        with contextlib.suppress(OSError):
            return (self.tools / "agent.log").read_text(errors="replace")[-300:]
        return "nothing answers"


@contextlib.contextmanager
def open_stack(first_port: int) -> Iterator[FaultStack]:
    """Run a separate Docker engine and a stack whose orchestrator is a container in it, and yield the stack.
    Raises RuntimeError with the reason if either does not start.

    `first_port` is the first of the stack's ports; 0 means free ones.
    """
    with own_network(), DockerEngine() as engine:
        engine.load_image()
        with ContainerStack(engine, first_port=first_port) as stack:
            yield stack


def kill_container(stack: FaultStack) -> Made:
    """Send SIGKILL to the main process of the orchestrator's container, and return the time. `docker kill` is
    not used, because Docker would not restart the container after it.
    """
    pid = stack.living_pid(CONTAINER)
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    return Made(at)


def overrun_container(stack: FaultStack) -> Made:
    """Fill the memory of the orchestrator's container until the kernel kills the orchestrator, and return the
    time of that kill. Raises RuntimeError if it does not happen in time.
    """
    assert isinstance(stack, ContainerStack)
    main = psutil.Process(stack.living_pid(CONTAINER))
    victim = next(iter(main.children()), main).pid  # with Docker's init, the orchestrator is a child
    command = [
        "docker",
        "--host",
        stack.engine.host,
        "exec",
        "--interactive",
        stack.container(CONTAINER),
        "python",
        "-",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
    ) as filling:
        assert filling.stdin is not None
        filling.stdin.write(OVERRUN)
        filling.stdin.close()
        if not until_dead(victim, OVERRUN_WITHIN_S):
            filling.kill()
            raise RuntimeError("The kernel did not kill the container's process for want of memory.")
        made = Made(time.time() - LOOK_S)
    return made


def restart_engine(stack: FaultStack) -> Made:
    """Restart the benchmark's Docker engine, as `systemctl restart docker` does. Return the time at which the
    restart began.
    """
    assert isinstance(stack, ContainerStack)
    at = time.time()
    stack.engine.stop()
    stack.engine.start()
    return Made(at)


_DIED = event_of(CONTAINER, "container_died", "container_out_of_memory", "container_unhealthy")

FAULTS = (
    Fault("container_kill", kill_container, _DIED, ORCHESTRATOR, (CONTAINER,), default_actor="Docker"),
    Fault("container_oom", overrun_container, _DIED, ORCHESTRATOR, (CONTAINER,), default_actor="Docker"),
    Fault("dockerd_restart", restart_engine, _DIED, ORCHESTRATOR, SERVICES, default_actor="Docker"),
)
GROUP = Group(FAULTS, open_stack, lambda fault: lacking())
