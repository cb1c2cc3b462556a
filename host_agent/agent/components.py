"""The agent's composition root: build every component and connect them. Nothing is started here."""

from dataclasses import dataclass
from functools import partial

import aiohttp

from host_agent.agent.handed_over import HandedOver
from host_agent.history.history import History
from host_agent.history.store import HistoryStore
from host_agent.incidents import Incidents
from host_agent.journal import Journal
from host_agent.listener.context import ListenerContext
from host_agent.listener.proxy.routes import Upstreams
from host_agent.listener.server import Listener
from host_agent.listener.sessions import Sessions
from host_agent.notifications.channels import channels, not_possible
from host_agent.notifications.notifier import Notifier
from host_agent.recovery.apply_remedies import HostRemedies
from host_agent.recovery.checks import HostChecks
from host_agent.recovery.ollama_checks import OllamaChecks
from host_agent.recovery.ollama_remedies import OllamaRemedies
from host_agent.recovery.passes import Passes
from host_agent.recovery.restart_budget import RestartBudget
from host_agent.service_manager import service_manager
from host_agent.services import MLX_SERVER, ORCHESTRATOR
from host_agent.services.configured_restart_policy import restart_policy
from host_agent.services.disk_report import DiskReport
from host_agent.services.docker.compose import Compose
from host_agent.services.docker.containers import Containers
from host_agent.services.docker.docker_api import DockerApi
from host_agent.services.docker.docker_engine import DockerEngineMonitor
from host_agent.services.mlx.engine_events import EngineEvents
from host_agent.services.mlx.service import MlxService
from host_agent.services.ollama import OllamaService
from host_agent.services.orchestrator import mode, native
from host_agent.services.orchestrator.agents_file import AgentsFileCheck
from host_agent.services.orchestrator.mode import Mode, ModeDecision
from host_agent.services.orchestrator.probe import OrchestratorProbe
from host_agent.services.service_control import ServiceControl
from host_agent.services.status.last_failures import LastFailures
from host_agent.services.status_report import StatusReport
from host_agent.upgrade.upgrades import Upgrades
from host_agent.watchdog.child import AgentRestarter, AgentWatchdog
from vestal.config import Config
from vestal.supervision import Event, HealthCheck, JsonStateStore, SleepDetector, Supervisor, SystemClock


@dataclass(frozen=True)
class Components:
    """The components that the agent starts, runs and stops."""

    watchdog: AgentWatchdog  # starts the agent again if the agent dies
    mode_decision: ModeDecision  # where the orchestrator runs
    supervisor: Supervisor  # of the gateway, and of the orchestrator if that runs natively
    ollama: OllamaService
    containers: Containers
    engine_events: EngineEvents
    checks: HostChecks
    restart_budget: RestartBudget
    passes: Passes
    notifier: Notifier
    sleep_detector: SleepDetector
    disk: DiskReport
    listener_context: ListenerContext  # what the listener's routes show and act on
    listener: Listener
    upgrades: Upgrades
    mlx: MlxService
    history: History


async def build(
    config: Config,
    token: str,
    journal: Journal,
    session: aiohttp.ClientSession,
    docker: DockerApi,
    gateway: tuple[str, ...],
    restarter: AgentRestarter,
    handed_over: HandedOver,
) -> Components:
    """Decide where the orchestrator runs, then build the components. `token` is the bearer token that clients
    of the agent must send. `gateway` is the command that starts the gateway, and `restarter` says what
    restarts the agent if it dies.

    `handed_over` has the sockets, lock and upgrade report of the program that this agent replaced in the same
    process; it is empty after an ordinary start.
    """
    incidents = Incidents(journal)
    store = JsonStateStore(config.home.root / "supervision.json")
    sleep_detector = SleepDetector()
    compose = Compose(config)
    mode_decision = await mode.decide(config, docker, compose)

    # The services. Ollama requests recovery passes, which are built below because they need the services.
    sockets = handed_over.sockets()
    history = History(journal, HistoryStore(journal), config.supervision.health_interval_s)
    watchdog = AgentWatchdog(config, restarter, service_manager.managers(config.home)[0].name, journal.append)
    mlx = MlxService(config, session, gateway, sockets, history.on_health, watchdog.keep_sockets)

    def on_child_event(event: Event) -> None:
        journal.append(event)
        if event.component == MLX_SERVER:
            mlx.sockets.on_event(event)

    native_specs = native.specs(config, session) if mode_decision.mode is Mode.NATIVE else ()
    child_specs = (mlx.spec(), *native_specs)
    supervisor = Supervisor(child_specs, on_event=on_child_event, store=store, name="agent")
    containers = Containers(docker, compose, journal, store)

    def request_pass(reason: str) -> None:
        passes.request(reason)

    ollama = OllamaService(config, session, store, journal.append, request_pass)
    disk = DiskReport(config.home, lambda: mlx.write_failures, mlx.engine_status, journal)
    status_report = StatusReport(
        watchdog,
        supervisor,
        mlx,
        ollama,
        DockerEngineMonitor(docker),
        containers,
        mode_decision,
        compose.project,
        sleep_detector,
        disk,
        AgentsFileCheck(config),
        LastFailures(journal),
    )
    control = ServiceControl(supervisor, containers, mlx, ollama, mode_decision, journal)

    # Recovery: what a recovery pass checks and does.
    budget, stop_s = RestartBudget(), config.supervision.stop_s
    checks = HostChecks(
        config,
        supervisor,
        child_specs,
        containers,
        status_report,
        store,
        HealthCheck(
            OrchestratorProbe(session, config.orchestrator.port).answers,
            partial(containers.activity, ORCHESTRATOR),
            restart_policy(config.supervision).probe,
            SystemClock(),
        ),
        OllamaChecks(ollama),
        budget,
        lambda: control.is_replacing_gateway,
    )
    remedies = HostRemedies(supervisor, containers, OllamaRemedies(ollama, stop_s), budget, stop_s)
    passes = Passes(
        checks, remedies, journal, config.home.recovery_lock, records_all=lambda: incidents.any_open
    )

    # The interfaces to people: the listener and the notifications.
    upgrades = Upgrades(config, supervisor, watchdog, mlx, journal, restarter, handed_over.report)

    def on_gateway_event(event: Event) -> None:
        mlx.on_gateway_event(event)
        upgrades.on_gateway_event(event)

    listener_context = ListenerContext(
        status_report=status_report,
        passes=passes,
        restart_budget=budget,
        journal=journal,
        service_control=control,
        sessions=Sessions(token),
        upgrades=upgrades,
        upstreams=Upstreams.of(config, session, token),
        incidents=incidents,
        history=history,
    )
    return Components(
        watchdog=watchdog,
        mode_decision=mode_decision,
        supervisor=supervisor,
        ollama=ollama,
        containers=containers,
        engine_events=EngineEvents(session, config.mlx.port, journal, on_gateway_event),
        checks=checks,
        restart_budget=budget,
        passes=passes,
        notifier=Notifier(
            journal,
            incidents,
            channels(config.notifications, session),
            not_possible=not_possible(config.notifications),
        ),
        sleep_detector=sleep_detector,
        disk=disk,
        listener_context=listener_context,
        listener=Listener(config, token, listener_context, journal, sockets),
        upgrades=upgrades,
        mlx=mlx,
        history=history,
    )
