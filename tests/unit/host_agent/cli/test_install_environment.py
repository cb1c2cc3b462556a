"""What units tell: settings, full paths, and no secret."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from host_agent.cli.install import daemon
from host_agent.cli.install.environment import is_secret, search_path, settings
from host_agent.cli.install.notes import is_private
from host_agent.service_manager import launchd, launchd_by_root
from host_agent.service_manager.launchd import Launchd
from host_agent.service_manager.systemd import Systemd
from host_agent.service_manager.unit import ALL, WITH_AGENT, JobSettings
from vestal.config import ensure_token, load
from vestal.platform.commands import Commands

SECRETS = {
    "VESTAL_TOKEN": "secret-1",
    "VESTAL_MLX__API_KEY": "secret-2",
    "VESTAL_DATABASE_URL": "postgresql://u:secret-3@db/x",
    "VESTAL_ORCHESTRATOR__DATABASE_URL": "secret-4",
    "HF_TOKEN": "secret-5",
    "OPENAI_API_KEY": "secret-6",
    "AWS_SECRET_ACCESS_KEY": "secret-7",
    "OLLAMA_BASE_URL": "http://ada:secret-8@box:11434",
    "PASSWORD": "secret-9",
    "VESTAL_NOTIFICATIONS__WEBHOOK_URL": "https://hooks.example/secret-10",
}
PLAIN = {
    "VESTAL_MLX_PORT": "1234",
    "VESTAL_MLX__KEEP_ALIVE_S": "60",
    "MAC_LLM_URL": "http://127.0.0.1:11435",
    "ORCHESTRATOR_CYCLE_INTERVAL": "60",
    "DOCKER_CONTEXT": "colima",
    "MLX_PRELOAD_MODELS": "a,b",
    "VESTAL_ORCHESTRATOR__CONTEXT_TOKENS": "4096",
    "RECOVERY_WEBHOOK_URL": "http://127.0.0.1:9099/recover",
}


def test_settings_of_every_name_are_told_and_secrets_are_named_but_not_told():
    told, secret = settings({**PLAIN, **SECRETS, "EDITOR": "ed", "VESTAL_HOME": "relative"})
    assert told == PLAIN
    assert secret == [
        "OLLAMA_BASE_URL",
        "VESTAL_DATABASE_URL",
        "VESTAL_MLX__API_KEY",
        "VESTAL_NOTIFICATIONS__WEBHOOK_URL",
        "VESTAL_ORCHESTRATOR__DATABASE_URL",
        "VESTAL_TOKEN",
    ]


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_secret_is_known_by_its_name_or_its_address(name: str):
    assert is_secret(name, SECRETS[name])


def test_no_unit_has_a_secret_of_the_environment_or_the_token(tmp_path: Path):
    config = load({"HOME": str(tmp_path)}, tmp_path)
    token = ensure_token(config.home)
    environment, _ = settings({**PLAIN, **SECRETS})
    told = JobSettings(environment, tmp_path, "/p/python", 120, 300)
    managers = (
        Launchd(config.home, Commands(), launchd.agents(tmp_path, 501)),
        Launchd(config.home, Commands(), launchd.daemons("ada", 501)),
        Systemd(config.home, Commands(), tmp_path),
    )
    for manager in managers:
        for unit in manager.units(ALL, told):
            assert "1234" in unit.text or unit.path.suffix == ".timer"
            assert "secret-" not in unit.text and token not in unit.text


def test_search_path_has_the_shells_folders_first_and_no_relative_one():
    found = search_path({"PATH": "/mine:.::bin:/usr/bin"}, ("/opt/homebrew/bin", "/mine"))
    assert found.split(":") == ["/mine", "/usr/bin", "/opt/homebrew/bin", "/bin", "/usr/sbin", "/sbin"]


def test_checkout_in_a_folder_that_macos_guards_is_known():
    assert is_private(Path("/Users/ada/Documents/vestal"), Path("/Users/ada"))
    assert not is_private(Path("/Users/ada/vestal"), Path("/Users/ada"))


def test_commands_for_root_are_quoted_and_in_order():
    pair = (Path("/Users/a b/x.plist"), Path("/Library/LaunchDaemons/dev.vestal.agent.plist"))
    assert launchd_by_root.install_commands([pair]) == [
        "sudo install -o root -g wheel -m 644 '/Users/a b/x.plist' "
        "/Library/LaunchDaemons/dev.vestal.agent.plist",
        "sudo launchctl enable system/dev.vestal.agent",
        "sudo launchctl bootstrap system /Library/LaunchDaemons/dev.vestal.agent.plist",
    ]
    assert launchd_by_root.uninstall_commands([pair[1]]) == [
        "sudo launchctl bootout system/dev.vestal.agent",
        "sudo rm /Library/LaunchDaemons/dev.vestal.agent.plist",
    ]


def test_daemon_without_root_lies_ready_and_its_commands_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    config = load({"HOME": str(tmp_path)}, tmp_path)
    own = Launchd(config.home, Commands(), launchd.agents(tmp_path, 501))
    system = Launchd(config.home, Commands(), launchd.daemons("ada", 501))
    assert system.needs_root and not own.needs_root
    units = system.units(WITH_AGENT, JobSettings({}, tmp_path, "/p/python", 120, 300))
    assert daemon.run(Namespace(dry_run=False), config, own, units) == 77
    ready = config.home.root / "launchd" / "dev.vestal.agent.plist"
    assert ready.stat().st_mode & 0o777 == 0o600
    said = capsys.readouterr().out
    assert f"sudo install -o root -g wheel -m 644 {ready} /Library/LaunchDaemons/{ready.name}" in said
    assert said.count("sudo launchctl bootstrap system ") == len(WITH_AGENT)
