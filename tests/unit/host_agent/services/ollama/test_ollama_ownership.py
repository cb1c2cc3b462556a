"""The owner of Ollama, from what macOS and Linux show of its process, and the plan to control it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from host_agent.service_manager.unit_lookup import (
    Job,
    parse_cgroup,
    parse_launchctl_list,
    parse_launchctl_print,
    parse_systemctl_show,
)
from host_agent.services.ollama.classify import is_runner, is_server, orphaned_runners
from host_agent.services.ollama.control_plan import Tools, make_plan
from host_agent.services.ollama.ownership import (
    Owner,
    OwnerKind,
    OwnershipEvidence,
    ollama_jobs,
    owner_of,
    owner_to_start,
)
from vestal.platform.commands import CommandResult
from vestal.platform.processes.process_snapshot import ProcessSnapshot

HOME = "/Users/ada/.vestal"
LAUNCHD = ProcessSnapshot(1, 0, "launchd", ("/sbin/launchd",), user="root")
ZSH = ProcessSnapshot(300, 290, "zsh", ("-zsh",), user="ada")
AGENT = ProcessSnapshot(400, 1, "python3.12", ("python", "-m", "host_agent.cli.main", "agent"), user="ada")
APP_PATH = "/Applications/Ollama.app/Contents/MacOS/Ollama"
APP = ProcessSnapshot(500, 1, "Ollama", (APP_PATH,), exe=APP_PATH, user="ada")
SERVE = ProcessSnapshot(900, 1, "ollama", ("/opt/homebrew/opt/ollama/bin/ollama", "serve"), user="ada")
SEEN = OwnershipEvidence(me="ada", home=HOME, holder=SERVE, ancestors=(LAUNCHD,))

# `launchctl list` on macOS: PID, last exit status, label.
LAUNCHCTL_LIST = """PID\tStatus\tLabel
900\t0\thomebrew.mxcl.ollama
-\t0\tcom.apple.SafariHistoryServiceAgent
500\t0\tapplication.com.electron.ollama.51204.51210
411\t0\tdev.ada.ollama-mcp
-\t78\torg.example.ollama
"""
# `launchctl print system/homebrew.mxcl.ollama`, whose nested parts repeat its keys deeper.
LAUNCHCTL_PRINT = """system/homebrew.mxcl.ollama = {
\tactive count = 1
\tpath = /Library/LaunchDaemons/homebrew.mxcl.ollama.plist
\ttype = LaunchDaemon
\tstate = running
\tpid = 612
\tendpoints = {
\t\tpid = 9
\t\tstate = active
\t}
}
"""


def test_ollama_server_at_another_address_is_not_started_a_second_time():
    """`manage: auto` once started a second `ollama serve` beside one of a user with OLLAMA_HOST."""
    brew = Job("homebrew.mxcl.ollama")
    seen = replace(SEEN, holder=None, elsewhere=SERVE, elsewhere_address="127.0.0.1:41434", jobs=(brew,))
    owner = owner_of(seen)
    assert (owner.kind, owner.runs, owner.pid) == (OwnerKind.ELSEWHERE, False, None)
    plan = make_plan(owner, "start", Tools())
    assert not plan.start_own
    assert "`ollama serve` of this user (PID 900) listens at 127.0.0.1:41434" in plan.refusal
    assert "set OLLAMA_BASE_URL=http://127.0.0.1:41434 to use it" in plan.refusal
    starting = make_plan(owner_of(replace(seen, elsewhere_address="")), "start", Tools())
    assert "does not listen yet" in starting.refusal


@pytest.mark.parametrize(
    ("evidence", "kind", "name"),
    [
        (replace(SEEN, own_pid=900), OwnerKind.OURS, ""),
        (replace(SEEN, jobs=(Job("homebrew.mxcl.ollama", 900),)), OwnerKind.BREW, "homebrew.mxcl.ollama"),
        (replace(SEEN, jobs=(Job("sh.brew.ollama", 900),)), OwnerKind.BREW, "sh.brew.ollama"),
        (replace(SEEN, jobs=(Job("org.example.ollama", 900),)), OwnerKind.LAUNCHD, "org.example.ollama"),
        (replace(SEEN, jobs=(Job("homebrew.mxcl.ollama", 900, True),)), OwnerKind.LAUNCHD_SYSTEM, None),
        (replace(SEEN, jobs=(Job("ollama.service", 900),)), OwnerKind.SYSTEMD_USER, "ollama.service"),
        (replace(SEEN, jobs=(Job("ollama.service", 900, True),)), OwnerKind.SYSTEMD_SYSTEM, None),
        # A unit that runs another process than the one that listens is not its owner.
        (replace(SEEN, jobs=(Job("ollama.service", 7),)), OwnerKind.ORPHAN, ""),
        (replace(SEEN, holder=replace(SERVE, ppid=500), ancestors=(APP, LAUNCHD)), OwnerKind.APP, ""),
        (replace(SEEN, holder=replace(SERVE, ppid=300), ancestors=(ZSH, LAUNCHD)), OwnerKind.TERMINAL, None),
        (SEEN, OwnerKind.ORPHAN, ""),
        (replace(SEEN, holder=replace(SERVE, user="eve")), OwnerKind.OTHER_USER, "eve"),
        (replace(SEEN, holder=None, is_holder_hidden=True), OwnerKind.OTHER_USER, None),
        (
            replace(SEEN, ancestors=(replace(AGENT, home="/tmp/b"), LAUNCHD)),
            OwnerKind.OTHER_VESTAL,
            "PID 400",
        ),
        (replace(SEEN, holder=replace(SERVE, home="/tmp/b")), OwnerKind.OTHER_VESTAL, "home /tmp/b"),
        # The agent was killed and its PID file is gone: nobody owns the server, so it may be taken over.
        (replace(SEEN, holder=replace(SERVE, home=HOME)), OwnerKind.ORPHAN, ""),
        (
            replace(SEEN, holder=ProcessSnapshot(5, 1, "docker-proxy", ("docker-proxy",), user="root")),
            OwnerKind.CONTAINER,
            "docker-proxy",
        ),
        (
            replace(SEEN, holder=ProcessSnapshot(5, 1, "OrbStack Helper", ("OrbStack Helper",), user="ada")),
            OwnerKind.CONTAINER,
            "OrbStack Helper",
        ),
        (
            replace(SEEN, holder=ProcessSnapshot(5, 1, "nginx", ("nginx",), user="ada")),
            OwnerKind.STRANGER,
            "nginx (PID 5)",
        ),
        (
            replace(SEEN, holder=ProcessSnapshot(5, 1, "node", ("node", "/opt/bin/ollama-mcp"), user="ada")),
            OwnerKind.STRANGER,
            "ollama-mcp (PID 5)",
        ),
        (replace(SEEN, holder=None), OwnerKind.NOBODY, ""),
        (replace(SEEN, holder=None, app=APP), OwnerKind.APP, ""),
        (replace(SEEN, holder=None, jobs=(Job("homebrew.mxcl.ollama"),)), OwnerKind.BREW, None),
        (replace(SEEN, address="http://10.0.0.2:11434"), OwnerKind.REMOTE, "http://10.0.0.2:11434"),
    ],
)
def test_owner_of_ollama_is_whoever_would_restart_its_server(
    evidence: OwnershipEvidence, kind: OwnerKind, name: str | None
):
    owner = owner_of(evidence)
    assert owner.kind is kind
    assert name is None or owner.name == name
    assert str(owner)


TOOLS = Tools(uid=501, brew="/opt/homebrew/bin/brew", agents_folder="/Users/ada/Library/LaunchAgents")


def owner(kind: OwnerKind, name: str = "", pid: int | None = 900) -> Owner:
    return Owner(kind, name, pid)


@pytest.mark.parametrize(
    ("kind", "name", "action", "text"),
    [
        (
            OwnerKind.BREW,
            "homebrew.mxcl.ollama",
            "restart",
            "`/opt/homebrew/bin/brew services restart ollama`",
        ),
        (OwnerKind.LAUNCHD, "org.x", "restart", "`launchctl kickstart -k gui/501/org.x`"),
        (OwnerKind.LAUNCHD, "org.x", "stop", "`launchctl bootout gui/501/org.x`"),
        (OwnerKind.LAUNCHD, "org.x", "start", "`launchctl kickstart gui/501/org.x`"),
        (OwnerKind.SYSTEMD_USER, "ollama.service", "restart", "`systemctl --user restart ollama.service`"),
        (OwnerKind.APP, "", "restart", "end PID 900"),
        (OwnerKind.APP, "", "stop", '`osascript -e quit app "Ollama"`'),
        (OwnerKind.ORPHAN, "", "restart", "end PID 900 and start `ollama serve` under Vestal"),
    ],
)
def test_plan_to_control_ollama_uses_homebrew_or_launchd_or_systemd_or_the_app_whichever_runs_it(
    kind: OwnerKind, name: str, action: str, text: str
):
    found = make_plan(owner(kind, name), action, TOOLS)
    assert (found.refusal, str(found)) == ("", text)


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        (
            OwnerKind.SYSTEMD_SYSTEM,
            "ollama.service",
            "root is needed: `sudo systemctl restart ollama.service`",
        ),
        (OwnerKind.LAUNCHD_SYSTEM, "a.b", "`sudo launchctl kickstart -k system/a.b`"),
        (OwnerKind.TERMINAL, "zsh, PID 300", "a terminal (zsh, PID 300)"),
        (OwnerKind.OTHER_USER, "eve", "another user (eve)"),
        (OwnerKind.CONTAINER, "docker-proxy", "a container (docker-proxy)"),
        (OwnerKind.OTHER_VESTAL, "PID 4", "another Vestal (PID 4)"),
        (OwnerKind.STRANGER, "nginx (PID 5)", "nginx (PID 5), which is not Ollama, holds Ollama's port"),
        (OwnerKind.REMOTE, "http://10.0.0.2", "another machine"),
    ],
)
def test_plan_to_restart_ollama_that_only_its_owner_can_restart_is_refused_naming_the_owner(
    kind: OwnerKind, name: str, words: str
):
    found = make_plan(owner(kind, name), "restart", TOOLS)
    assert words in found.refusal
    assert (found.commands, found.terminate_pid, found.start_own) == ((), None, False)


def test_plan_to_start_an_ollama_job_that_launchd_lists_does_not_load_it_again():
    """`launchctl bootstrap` fails for a loaded job, and the plan once was to run it."""
    (listed,) = ollama_jobs(parse_launchctl_list("-\t1\torg.example.ollama\n"), None)
    found = owner_of(OwnershipEvidence(me="ada", jobs=(listed,)))
    job = "gui/501/org.example.ollama"
    assert make_plan(found, "start", TOOLS).commands == (("launchctl", "kickstart", job),)
    of_system = owner_of(OwnershipEvidence(me="ada", jobs=(replace(listed, system=True),)))
    refusal = make_plan(of_system, "start", TOOLS).refusal
    assert "`sudo launchctl kickstart system/org.example.ollama`" in refusal


def test_plan_to_start_an_ollama_job_that_a_stop_by_hand_unloaded_loads_it():
    unloaded = owner_to_start(Owner(), "launchd", "org.x")
    plist = "/Users/ada/Library/LaunchAgents/org.x.plist"
    assert make_plan(unloaded, "start", TOOLS).commands == (("launchctl", "bootstrap", "gui/501", plist),)
    of_system = make_plan(owner_to_start(Owner(), "launchd_system", "org.x"), "start", TOOLS)
    assert "`sudo launchctl bootstrap system /Library/LaunchDaemons/org.x.plist`" in of_system.refusal
    loaded_at_login = owner_to_start(Owner(OwnerKind.LAUNCHD, "org.x"), "launchd", "org.x")
    assert make_plan(loaded_at_login, "start", TOOLS).commands == (
        ("launchctl", "kickstart", "gui/501/org.x"),
    )


def test_plan_to_restart_ollama_as_root_restarts_its_systemd_system_unit():
    found = make_plan(owner(OwnerKind.SYSTEMD_SYSTEM, "ollama.service"), "restart", replace(TOOLS, uid=0))
    assert found.commands == (("systemctl", "restart", "ollama.service"),)


@pytest.mark.parametrize("kind", [OwnerKind.BREW, OwnerKind.ORPHAN, OwnerKind.NOBODY, OwnerKind.APP])
def test_plan_to_restart_ollama_is_refused_with_the_command_to_run_by_hand_if_ollama_manage_is_watch(
    kind: OwnerKind,
):
    found = make_plan(owner(kind), "restart", replace(TOOLS, may_act=False))
    assert "ollama.manage is watch" in found.refusal
    assert "`" in found.refusal
    assert (found.commands, found.terminate_pid, found.start_own) == ((), None, False)


@pytest.mark.parametrize(
    ("words", "server", "runner"),
    [
        (("/usr/local/bin/ollama", "serve"), True, False),
        (("ollama", "start"), True, False),
        (("python3.12", "/opt/bin/ollama", "serve"), True, False),
        (("ollama", "run", "llama3"), False, False),
        (("ollama-mcp", "serve"), False, False),
        (("node", "/usr/local/bin/ollama-mcp"), False, False),
        (("/opt/homebrew/bin/ollama", "runner", "--model", "/m/blobs/sha256-a", "--port", "5"), False, True),
        (("/opt/homebrew/bin/ollama", "runner", "--ollama-engine", "--port", "5"), False, True),
        (("/usr/lib/ollama/llama-server", "--model", "/m/a"), False, True),
        (("llama-server", "--model", "/m/blobs/sha256-a", "--port", "5"), False, True),
        (("/home/ada/llama.cpp/llama-server", "-m", "x.gguf"), False, False),
    ],
)
def test_ollama_server_and_runner_processes_are_recognized_by_their_command_line(
    words: tuple[str, ...], server: bool, runner: bool
):
    process = ProcessSnapshot(7, 1, words[0].rsplit("/", 1)[-1], words)
    assert (is_server(process), is_runner(process)) == (server, runner)


def test_ollama_runner_whose_parent_is_init_is_orphaned():
    runner = ProcessSnapshot(10, 900, "ollama", ("ollama", "runner", "--port", "1"))
    user_systemd = ProcessSnapshot(50, 1, "systemd", ("systemd", "--user"))
    left, adopted = replace(runner, pid=11, ppid=1), replace(runner, pid=12, ppid=50)
    by_hand = replace(runner, pid=13, ppid=300)
    found = orphaned_runners((SERVE, runner, left, adopted, by_hand, user_systemd, ZSH))
    assert [process.pid for process in found] == [11, 12]


def test_ollama_launchd_jobs_include_jobs_that_run_its_server_or_bear_its_name():
    jobs = ollama_jobs(parse_launchctl_list(LAUNCHCTL_LIST), 900)
    assert jobs == (Job("homebrew.mxcl.ollama", 900), Job("org.example.ollama"))


def test_launchctl_print_of_an_ollama_job_is_read_at_its_top_level_only():
    assert parse_launchctl_print("homebrew.mxcl.ollama", CommandResult(0, LAUNCHCTL_PRINT)) == Job(
        "homebrew.mxcl.ollama", 612, system=True
    )
    assert parse_launchctl_print("a", CommandResult(113, "Could not find service")) is None


@pytest.mark.parametrize(
    ("output", "job"),
    [
        ("LoadState=loaded\nUnitFileState=enabled\nMainPID=465\n", Job("ollama.service", 465, True)),
        ("LoadState=loaded\nUnitFileState=enabled\nMainPID=0\n", Job("ollama.service", None, True)),
        ("LoadState=loaded\nUnitFileState=disabled\nMainPID=0\n", None),
        ("LoadState=not-found\nUnitFileState=\nMainPID=0\n", None),
        ("", None),
    ],
)
def test_ollama_unit_is_found_in_systemctl_show_output_only_if_the_unit_runs_or_is_enabled(
    output: str, job: Job | None
):
    assert parse_systemctl_show("ollama.service", output, system=True) == job


@pytest.mark.parametrize(
    ("text", "job"),
    [
        ("0::/system.slice/ollama.service\n", Job("ollama.service", system=True)),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service\n",
            Job("ollama.service", system=False),
        ),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/\n", None),
    ],
)
def test_cgroup_of_a_process_gives_its_systemd_unit_and_manager(text: str, job: Job | None):
    assert parse_cgroup(text) == job
