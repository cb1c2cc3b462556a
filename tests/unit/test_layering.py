"""The architecture, held: who may import whom, and which modules decide without touching the world."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("supervision", "host_agent", "mlx_server", "orchestrator")

# package (or part of one) -> what else of ours it may import; the longest matching prefix counts
ALLOWED = {
    "supervision": (),
    "host_agent.config": (),
    "host_agent.host": ("host_agent.config",),
    "host_agent": ("host_agent", "supervision", "mlx_server.model_store"),
    "host_agent.cache_check": ("mlx_server.engine.prompt_cache.blob",),
    "host_agent.cli.cache": (
        "host_agent.config",
        "host_agent.cache_check",
        "host_agent.cli.cache_use",
        "mlx_server.engine.prompt_cache.blob",
    ),
    "mlx_server.protocol": ("mlx_server.protocol_codec",),
    "mlx_server.protocol_codec": (),
    "mlx_server.engine_environment": (),
    "mlx_server.model_store": ("mlx_server.engine_environment", "host_agent.config", "host_agent.host"),
    "mlx_server.model_store.convert": ("mlx_server.model_store", "mlx_server.engine.blas"),  # its own process
    "mlx_server.gateway": (
        "mlx_server.VERSION",
        "mlx_server.protocol",
        "mlx_server.engine_environment",
        "mlx_server.model_store",
        "supervision",
        "host_agent.config",
        "host_agent.host",
    ),
    "mlx_server.engine": (
        "mlx_server.VERSION",
        "mlx_server.protocol",
        "mlx_server.engine_environment",
        "mlx_server.model_store",
        "host_agent.config",
        "host_agent.host",
    ),
    "mlx_server": (),
    "orchestrator": (),
}
FOREIGN_TO = {
    "supervision": {"aiohttp", "fastapi", "psutil", "pydantic", "yaml", "mlx", "mlx_lm", "numpy"},
    "mlx_server.gateway": {"mlx", "mlx_lm", "numpy", "transformers", "tokenizers"},
    "mlx_server.engine": {"fastapi", "uvicorn", "aiohttp", "starlette"},
    "orchestrator": {"fastapi", "uvicorn", "mlx", "mlx_lm", "psutil", "docker"},
}

# These decide; a shell beside them acts. Time and randomness reach them as arguments.
PURE = (
    "host_agent/cli/task_progress.py",
    "host_agent/host/done.py",
    "host_agent/host/job_state.py",
    "host_agent/host/launchctl_answers.py",
    "host_agent/host/launchd_by_root.py",
    "host_agent/host/launchd_plist.py",
    "host_agent/host/systemctl_answers.py",
    "host_agent/host/systemd_unit.py",
    "host_agent/host/unit.py",
    "supervision/backoff.py",
    "supervision/breaker.py",
    "supervision/intensity.py",
    "supervision/lifecycle.py",
    "supervision/coming_up.py",
    "supervision/going_down.py",
    "supervision/strategy.py",
    "supervision/errors.py",
    "supervision/messages.py",
    "supervision/model.py",
    "supervision/policy.py",
    "supervision/probe.py",
    "supervision/record.py",
    "supervision/states.py",
    "host_agent/host/process_seen.py",
    "host_agent/recovery/facts.py",
    "host_agent/recovery/outlook.py",
    "host_agent/recovery/plan.py",
    "host_agent/services/ollama/answers.py",
    "host_agent/services/ollama/kinds.py",
    "host_agent/services/ollama/ownership.py",
    "host_agent/services/ollama/patience.py",
    "host_agent/services/ollama/rows.py",
    "host_agent/services/ollama/ways.py",
    "host_agent/host/headroom.py",
    "host_agent/notifications/notices.py",
    "host_agent/doctor/early_deaths.py",
    "host_agent/doctor/log_signs.py",
    "host_agent/doctor/metal_signs.py",
    "host_agent/doctor/ollama_processes.py",
    "host_agent/doctor/oom_advice.py",
    "host_agent/host/brew.py",
    "host_agent/host/jetsam.py",
    "host_agent/host/kernel_log.py",
    "host_agent/host/memory_pressure.py",
    "host_agent/host/ps.py",
    "host_agent/host/sysctl.py",
    "host_agent/host/vm_stat.py",
    "mlx_server/gateway/admission.py",
    "mlx_server/gateway/anthropic_schema.py",
    "mlx_server/gateway/openai_wording.py",
    "mlx_server/gateway/tools.py",
    "mlx_server/gateway/wrong_fields.py",
    "mlx_server/gateway/recycling.py",
    "mlx_server/gateway/request_lifecycle.py",
    "mlx_server/engine/answer_reader.py",
    "mlx_server/engine/constraint.py",
    "mlx_server/engine/json_schema.py",
    "mlx_server/engine/kv_quantisation.py",
    "mlx_server/engine/long_text.py",
    "mlx_server/engine/memory/forecast.py",
    "mlx_server/engine/memory/guard.py",
    "mlx_server/engine/memory/kv.py",
    "mlx_server/engine/memory/ledger.py",
    "mlx_server/engine/memory/patience.py",
    "mlx_server/engine/memory/weights.py",
    "mlx_server/engine/memory/refusals.py",
    "mlx_server/engine/prompt_cache/blob.py",
    "mlx_server/engine/prompt_cache/block.py",
    "mlx_server/engine/prompt_cache/entry.py",
    "mlx_server/engine/prompt_cache/find.py",
    "mlx_server/engine/prompt_cache/keys.py",
    "mlx_server/engine/prompt_cache/lru.py",
    "mlx_server/engine/prompt_cache/snapshot.py",
    "mlx_server/engine/text_stream.py",
    "mlx_server/engine/tool_calls.py",
    "mlx_server/engine/tool_prompt.py",
    "orchestrator/llm/breaker.py",
    "orchestrator/tasks/budget.py",
    "orchestrator/llm/chat_stream.py",
    "orchestrator/cycle.py",
    "orchestrator/llm/hosts.py",
    "orchestrator/llm/liveness.py",
    "orchestrator/tasks/prompts.py",
    "orchestrator/tasks/plan.py",
    "orchestrator/tasks/view.py",
    "orchestrator/schedule.py",
    "orchestrator/tasks/patience.py",
    "orchestrator/webhook_policy.py",
    "orchestrator/workers/watch.py",
    "orchestrator/storage/postgres_errors.py",
    "orchestrator/storage/postgres_schema.py",
    "orchestrator/storage/sqlite_schema.py",
    "orchestrator/knowledge/chunks.py",
    "orchestrator/knowledge/digest.py",
    "orchestrator/knowledge/fusion.py",
    "orchestrator/knowledge/keywords.py",
    "orchestrator/knowledge/scope.py",
)
IMPURE = {
    *("asyncio", "time", "random", "os", "subprocess", "socket", "threading", "secrets", "sqlite3"),
    *("aiohttp", "fastapi", "uvicorn", "mlx", "mlx_lm", "psutil", "docker", "dbos"),
}


def _module_of(path: Path) -> str:
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> set[str]:
    package = _module_of(path) if path.name == "__init__.py" else _module_of(path).rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*anchor, *([node.module] if node.module else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names if base.split(".")[0] in PACKAGES)
    return found


def _within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def _rule(module: str, rules: dict) -> str | None:
    matching = [prefix for prefix in rules if _within(module, prefix)]
    return max(matching, key=len) if matching else None


SOURCES = sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_module_imports_only_what_its_layer_may(path: Path):
    module = _module_of(path)
    rule = _rule(module, ALLOWED)
    assert rule is not None, f"{module} stands in no layer"
    for imported in _imports(path):
        if imported.split(".")[0] not in PACKAGES:
            foreign = FOREIGN_TO.get(_rule(module, FOREIGN_TO) or "", set())
            assert imported.split(".")[0] not in foreign, f"{module} imports {imported}"
            continue
        allowed = (rule, *ALLOWED[rule])
        # `from package import name` yields both package and package.name: a parent of an allowed one is fine.
        fits = any(_within(imported, prefix) or _within(prefix, imported) for prefix in allowed)
        assert fits, f"{module} imports {imported}; its layer {rule} may import {allowed}"


@pytest.mark.parametrize("name", PURE)
def test_deciding_module_imports_nothing_that_acts(name: str):
    touched = {imported.split(".")[0] for imported in _imports(REPO / name)} & IMPURE
    assert not touched, f"{name} imports {sorted(touched)}"


def test_gateway_when_imported_has_not_loaded_mlx():
    program = (
        "import sys, mlx_server.gateway.app; "
        "print([m for m in ('mlx', 'mlx_lm', 'numpy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_text_of_the_project_names_no_machine_and_no_index():
    """No path of one machine and no address of a package index in any tracked file."""
    files = subprocess.run(
        ["git", "ls-files"], cwd=REPO, capture_output=True, text=True, timeout=60
    ).stdout.split()
    needles = ["/ro" + "ot/", "/wo" + "rk/", "pypi." + "org", "files.python" + "hosted"]
    hits = [
        f"{name}: {needle}"
        for name in files
        if (REPO / name).is_file()
        for needle in needles
        if needle in (REPO / name).read_text(errors="ignore")
    ]
    assert not hits
