"""The lines that `vestal up` prints: the progress of its steps, the addresses, and commands to try."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from host_agent.cli.launch.models import InstalledModel
from host_agent.cli.run import up
from host_agent.cli.run.progress import Progress
from host_agent.errors import GatewayUnreachable
from vestal.config import Config, load


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load({"HOME": str(tmp_path), "VESTAL_ORCHESTRATOR__MODE": "off"}, tmp_path)


def test_progress_line_separates_a_long_name_from_its_text(capsys: pytest.CaptureFixture[str]):
    progress = Progress()
    progress.show("agent", "started")
    progress.show("qwen2.5-coder:7b-8bit", "It is there already.")
    assert capsys.readouterr().out == (
        "agent               started\nqwen2.5-coder:7b-8bit It is there already.\n"
    )


def test_progress_that_is_redrawn_is_cut_to_the_terminal_and_the_final_line_is_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A longer text wrapped, and only its last row was erased, so each update left a row behind."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 24)))
    progress = Progress()
    progress.redraws = True
    progress.show("smollm2:135m", "45%  412 MiB of 4.1 GiB, 45.0 MiB/s, 1 min left", final=False)
    progress.show("smollm2:135m", "100%  It has been downloaded and converted.")
    first, last = capsys.readouterr().out.split("\r\x1b[K")
    assert len(first) == 39
    assert last.endswith("converted.\n")


def printed(
    config: Config,
    models: list[InstalledModel] | None,
    pid: int | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Return what `vestal up` prints at its end. `models` are those of the MLX server; None if it does not
    answer.
    """

    def installed(gateway: object) -> list[InstalledModel]:
        if models is None:
            raise GatewayUnreachable("No MLX server answers.")
        return models

    def status(path: str) -> dict[str, Any]:
        return {"services": {"orchestrator": {"state": "absent"}, "mlx_engine": {"process_pid": pid}}}

    monkeypatch.setattr(up, "installed_language_models", installed)
    up._print_addresses(config, SimpleNamespace(get=status))  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_up_suggests_a_chat_with_a_loaded_model(config, capsys, monkeypatch):
    """It named the orchestrator's model, although the orchestrator was off and another model was loaded."""
    models = [InstalledModel("big:1b", 0, False, 9), InstalledModel("it's:8b", 0, False, 5, is_loaded=True)]
    text = printed(config, models, 7, capsys, monkeypatch)
    assert """/api/chat -d '{"model": "it'"'"'s:8b", """ in text
    assert "kill -9 7 " in text
    assert "smollm2" not in text


@pytest.mark.parametrize("models", [None, []])
def test_up_suggests_neither_a_chat_without_a_model_nor_the_kill_of_an_engine_without_a_pid(
    models, config, capsys, monkeypatch
):
    text = printed(config, models, None, capsys, monkeypatch)
    assert "api/chat" not in text and "kill" not in text
    assert "/v1/models\n  make status\n" in text
