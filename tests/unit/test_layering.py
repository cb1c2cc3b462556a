"""The architecture as tests: which folder may import which, and which modules are pure."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGES = ("vestal", "host_agent", "mlx_server", "orchestrator", "benchmarks")
MOST_MODULES = 15
TABLE_ROW = re.compile(r"^\| `([\w/]+)` \|[^|]*\|(?P<may>[^|]*)\|(?P<never>[^|]*)\|$", re.MULTILINE)


def _table() -> tuple[dict[str, tuple[str, ...]], dict[str, set[str]]]:
    """Read CONTRIBUTING's table: module prefix -> prefixes it may import, and packages it never imports."""
    may_import, never_imports = {}, {}
    for row in TABLE_ROW.finditer((REPO / "CONTRIBUTING.md").read_text()):
        prefix = row[1].replace("/", ".")
        may_import[prefix] = tuple(re.findall(r"`([\w.]+)`", row["may"]))
        never_imports[prefix] = set(re.findall(r"`(\w+)`", row["never"]))
    return may_import, never_imports


ALLOWED, FOREIGN_TO = _table()

# Modules that decide and do not act: time and randomness are arguments. Each says "Pure." in its docstring.
PURE = (
    "vestal/config/model_names.py",
    "vestal/config/state_format.py",
    "mlx_server/model_store/files/image_support.py",
    "mlx_server/model_store/adapters/settings.py",
    "mlx_server/model_store/adapters/tensors.py",
    "mlx_server/engine/embeddings/batches.py",
    "mlx_server/engine/models/weights/digests.py",
    "mlx_server/model_store/files/model_kind.py",
    "mlx_server/model_store/files/sentence_modules.py",
    "mlx_server/model_store/preset.py",
    "mlx_server/gateway/images/files.py",
    "mlx_server/gateway/images/headers.py",
    "mlx_server/gateway/images/in_bodies.py",
    "mlx_server/gateway/images/public_addresses.py",
    "mlx_server/gateway/images/reader.py",
    "mlx_server/gateway/requests/model_presets.py",
    "mlx_server/gateway/requests/resumed.py",
    "mlx_server/gateway/requests/token_rate.py",
    "mlx_server/gateway/in_flight/client_names.py",
    "mlx_server/gateway/in_flight/entries.py",
    "mlx_server/gateway/kept_answers/history.py",
    "mlx_server/gateway/peers/machine_choice.py",
    "mlx_server/gateway/peers/conversation.py",
    "mlx_server/gateway/peers/mirrored.py",
    "mlx_server/gateway/peers/passed_on.py",
    "mlx_server/gateway/dialects/ollama/model_bodies.py",
    "mlx_server/model_store/ollama_store/go_syntax.py",
    "mlx_server/model_store/ollama_store/go_to_jinja.py",
    "host_agent/incidents/entry.py",
    "host_agent/incidents/events.py",
    "host_agent/incidents/failures.py",
    "host_agent/incidents/fold.py",
    "host_agent/incidents/incident.py",
    "host_agent/incidents/ledger.py",
    "host_agent/incidents/related.py",
    "host_agent/incidents/story.py",
    "host_agent/incidents/reading/agent.py",
    "host_agent/incidents/reading/children.py",
    "host_agent/incidents/reading/known.py",
    "host_agent/incidents/reading/recovery.py",
    "host_agent/incidents/reading/requests.py",
    "host_agent/installed/comparison.py",
    "host_agent/sentences.py",
    "host_agent/services/mlx/answers.py",
    "host_agent/services/service_status.py",
    "host_agent/services/status/rows.py",
    "host_agent/services/status/verdict.py",
    "host_agent/cli/launch/models.py",
    "host_agent/cli/launch/programs.py",
    "host_agent/cli/chat/answer.py",
    "host_agent/cli/chat/conversation.py",
    "host_agent/cli/chat/demo_report.py",
    "host_agent/cli/chat/word_wrap.py",
    "host_agent/cli/logs/formatting.py",
    "host_agent/cli/logs/log_line.py",
    "host_agent/cli/logs/sentences.py",
    "host_agent/cli/logs/since.py",
    "host_agent/cli/orchestrator/task_progress.py",
    "host_agent/cli/screen/units.py",
    "host_agent/cli/status/tree.py",
    "host_agent/cli/top/layout.py",
    "host_agent/watchdog/restart_plan.py",
    "host_agent/service_manager/jobs.py",
    "host_agent/service_manager/launchctl_output.py",
    "host_agent/service_manager/launchd_plist.py",
    "host_agent/service_manager/systemctl_output.py",
    "host_agent/service_manager/systemd_unit.py",
    "vestal/supervision/child_status.py",
    "vestal/supervision/handover/plan.py",
    "vestal/supervision/health/silence.py",
    "vestal/supervision/lifecycle/breaker.py",
    "vestal/supervision/lifecycle/restart_intensity.py",
    "vestal/supervision/lifecycle/transition.py",
    "vestal/supervision/lifecycle/start.py",
    "vestal/supervision/lifecycle/stop.py",
    "vestal/supervision/lifecycle/restart_strategy.py",
    "vestal/supervision/errors.py",
    "vestal/supervision/lifecycle/actions.py",
    "vestal/supervision/lifecycle/inputs.py",
    "vestal/supervision/lifecycle/process_reports.py",
    "vestal/supervision/lifecycle/requests.py",
    "vestal/supervision/lifecycle/child_state.py",
    "vestal/supervision/lifecycle/restart_policy.py",
    "vestal/supervision/lifecycle/probe.py",
    "vestal/supervision/lifecycle/saved_state.py",
    "vestal/supervision/lifecycle/states.py",
    "vestal/platform/container_ports.py",
    "vestal/platform/processes/process_snapshot.py",
    "vestal/web/connections.py",
    "vestal/web/guard.py",
    "vestal/web/origins.py",
    "vestal/web/histogram.py",
    "vestal/web/http_error.py",
    "vestal/web/json_body.py",
    "vestal/web/server_sent_events.py",
    "host_agent/history/counters.py",
    "host_agent/history/plot.py",
    "host_agent/history/sample.py",
    "host_agent/listener/commands/doctor_actions.py",
    "host_agent/listener/proxy/proxied_routes.py",
    "host_agent/recovery/facts.py",
    "host_agent/services/retry_advice.py",
    "host_agent/recovery/issues.py",
    "host_agent/recovery/remedies.py",
    "host_agent/recovery/restart_budget.py",
    "host_agent/services/ollama/answers.py",
    "host_agent/services/ollama/classify.py",
    "host_agent/services/ollama/ownership.py",
    "host_agent/services/ollama/probe_budget.py",
    "host_agent/services/ollama/runner_readings.py",
    "host_agent/services/ollama/silence.py",
    "host_agent/services/ollama/status.py",
    "host_agent/services/ollama/control_plan.py",
    "vestal/platform/memory_headroom.py",
    "host_agent/notifications/notices.py",
    "host_agent/doctor/services/early_deaths.py",
    "host_agent/doctor/evidence/log_patterns.py",
    "host_agent/doctor/ollama/processes.py",
    "host_agent/doctor/memory/oom_advice.py",
    "vestal/platform/macos/brew.py",
    "vestal/platform/macos/jetsam.py",
    "vestal/platform/kernel_log.py",
    "vestal/platform/processes/ps.py",
    "vestal/platform/macos/sysctl.py",
    "vestal/platform/macos/memory_tools.py",
    "mlx_server/model_store/gguf/byte_level.py",
    "mlx_server/model_store/gguf/config.py",
    "mlx_server/model_store/gguf/families.py",
    "mlx_server/model_store/gguf/sentencepiece_bpe.py",
    "mlx_server/model_store/gguf/tokenizer.py",
    "mlx_server/model_store/sources/source.py",
    "mlx_server/protocol/codec.py",
    "mlx_server/protocol/free_form.py",
    "mlx_server/protocol/frames.py",
    "mlx_server/protocol/vectors.py",
    "mlx_server/gateway/answer_log/file_names.py",
    "mlx_server/gateway/answer_log/index.py",
    "mlx_server/gateway/answer_log/records.py",
    "mlx_server/gateway/requests/table/admission.py",
    "mlx_server/gateway/dialects/anthropic/client_tools.py",
    "mlx_server/gateway/dialects/anthropic/messages.py",
    "mlx_server/gateway/dialects/anthropic/schema.py",
    "mlx_server/gateway/dialects/chat/content_parts.py",
    "mlx_server/gateway/dialects/chat/history.py",
    "mlx_server/gateway/dialects/chat/tool_choice.py",
    "mlx_server/gateway/dialects/anthropic/models.py",
    "mlx_server/gateway/dialects/llama_cpp/schema.py",
    "mlx_server/gateway/dialects/openai/chat_tools.py",
    "mlx_server/gateway/dialects/openai/messages.py",
    "mlx_server/gateway/dialects/openai/text_body.py",
    "mlx_server/gateway/dialects/openai/render.py",
    "mlx_server/gateway/dialects/rerank/render.py",
    "mlx_server/gateway/dialects/rerank/schema.py",
    "mlx_server/gateway/dialects/responses/events.py",
    "mlx_server/gateway/dialects/responses/input_items.py",
    "mlx_server/gateway/dialects/responses/messages.py",
    "mlx_server/gateway/dialects/responses/offered_tools.py",
    "mlx_server/gateway/dialects/responses/output_items.py",
    "mlx_server/gateway/dialects/responses/resource.py",
    "mlx_server/gateway/dialects/responses/schema.py",
    "mlx_server/gateway/dialects/sampling_fields.py",
    "mlx_server/gateway/dialects/tools.py",
    "mlx_server/gateway/dialects/validation.py",
    "mlx_server/gateway/dialects/value_limits.py",
    "mlx_server/gateway/engine_process/exit_evidence.py",
    "mlx_server/gateway/engine_process/liveness.py",
    "mlx_server/gateway/engine_process/recycle_policy.py",
    "mlx_server/gateway/requests/table/crash_policy.py",
    "mlx_server/gateway/requests/loaded_models.py",
    "mlx_server/gateway/requests/model_requests.py",
    "mlx_server/gateway/requests/table/request_lifecycle.py",
    "mlx_server/gateway/requests/early_checks.py",
    "mlx_server/gateway/requests/table/actions.py",
    "mlx_server/gateway/requests/table/request_table.py",
    "mlx_server/gateway/requests/table/engine_wait.py",
    "mlx_server/gateway/requests/sendable.py",
    "mlx_server/engine/blas_threads/thread_choice.py",
    "mlx_server/engine/generation/prefill_pace.py",
    "mlx_server/engine/kv/groups_to_join.py",
    "mlx_server/engine/layers/visible_keys.py",
    "mlx_server/engine/generation/drafting/draft_counts.py",
    "mlx_server/engine/generation/drafting/draft_length.py",
    "mlx_server/engine/generation/drafting/drafter.py",
    "mlx_server/engine/generation/drafting/prompt_lookup.py",
    "mlx_server/engine/generation/drafting/step_costs.py",
    "mlx_server/engine/generation/output_parser.py",
    "mlx_server/engine/grammar/answer_or_calls.py",
    "mlx_server/engine/grammar/closed_objects.py",
    "mlx_server/engine/grammar/constraint.py",
    "mlx_server/engine/grammar/javascript_patterns.py",
    "mlx_server/engine/grammar/json_schema.py",
    "mlx_server/engine/grammar/keyword_values.py",
    "mlx_server/engine/grammar/schema_recursion.py",
    "mlx_server/engine/grammar/schema_references.py",
    "mlx_server/memory_forecast/kv_quantization.py",
    "mlx_server/engine/generation/call_formats.py",
    "mlx_server/engine/generation/call_texts.py",
    "mlx_server/engine/generation/harmony.py",
    "mlx_server/engine/generation/harmony_tokens.py",
    "mlx_server/engine/generation/prompts/call_shapes.py",
    "mlx_server/engine/generation/prompts/conversation.py",
    "mlx_server/engine/generation/prompts/length_check.py",
    "mlx_server/engine/generation/prompts/messages.py",
    "mlx_server/engine/generation/prompts/template_probe.py",
    "mlx_server/engine/generation/prompts/templates/limits.py",
    "mlx_server/engine/generation/prompts/token_ids.py",
    "mlx_server/memory_forecast/fit.py",
    "mlx_server/memory_forecast/forecast.py",
    "mlx_server/memory_forecast/text_config.py",
    "mlx_server/memory_forecast/tower.py",
    "mlx_server/engine/memory/forecasts.py",
    "mlx_server/engine/memory/guard.py",
    "mlx_server/memory_forecast/kv.py",
    "mlx_server/engine/memory/ledger.py",
    "mlx_server/engine/memory/wait_policy.py",
    "mlx_server/memory_forecast/weights.py",
    "mlx_server/engine/memory/refusals.py",
    "mlx_server/engine/memory/reservations.py",
    "mlx_server/engine/prompt_cache/blob.py",
    "mlx_server/engine/prompt_cache/block.py",
    "mlx_server/engine/prompt_cache/entry.py",
    "mlx_server/engine/prompt_cache/prefix_match.py",
    "mlx_server/engine/prompt_cache/preload_order.py",
    "mlx_server/engine/prompt_cache/ram_tier.py",
    "mlx_server/engine/prompt_cache/ready_caches.py",
    "mlx_server/engine/prompt_cache/keys.py",
    "mlx_server/engine/prompt_cache/lru.py",
    "mlx_server/engine/prompt_cache/snapshot.py",
    "mlx_server/engine/reranking/pairs.py",
    "mlx_server/engine/generation/detokenizer.py",
    "mlx_server/engine/generation/tool_calls.py",
    "mlx_server/engine/generation/prompts/tool_prompt.py",
    "orchestrator/llm/breaker.py",
    "orchestrator/tasks/budget.py",
    "orchestrator/llm/chat_stream.py",
    "orchestrator/cycles/plan.py",
    "orchestrator/llm/backend.py",
    "orchestrator/llm/hosts.py",
    "orchestrator/llm/presence.py",
    "orchestrator/llm/refusals.py",
    "orchestrator/llm/liveness.py",
    "orchestrator/tasks/prompts.py",
    "orchestrator/tasks/plan.py",
    "orchestrator/tasks/view.py",
    "orchestrator/cycles/schedule.py",
    "orchestrator/tasks/step_retry.py",
    "orchestrator/recovery_webhook/policy.py",
    "orchestrator/workers/watch.py",
    "orchestrator/storage/postgres_errors.py",
    "orchestrator/storage/postgres_schema.py",
    "orchestrator/storage/sqlite_schema.py",
    "orchestrator/knowledge/folders/chunks.py",
    "orchestrator/knowledge/digest.py",
    "orchestrator/knowledge/search/fusion.py",
    "orchestrator/knowledge/search/keywords.py",
    "orchestrator/knowledge/search/scope.py",
    "host_agent/listener/rate_limit.py",
    "host_agent/services/docker/container_activity.py",
    "host_agent/services/docker/container_deaths.py",
    "host_agent/services/docker/container_status.py",
    "host_agent/services/docker/exit_cause.py",
    "mlx_server/engine/generation/generation.py",
    "mlx_server/engine/generation/prompts/infilling.py",
    "mlx_server/engine/generation/prompts/shortening.py",
    "mlx_server/engine/models/residency.py",
    "mlx_server/engine/scheduling/memory_queue.py",
    "mlx_server/engine/scheduling/request.py",
    "mlx_server/engine/scheduling/request_table.py",
    "mlx_server/engine/vision/families.py",
    "mlx_server/engine/vision/pictures.py",
    "mlx_server/engine/vision/positions.py",
    "mlx_server/gateway/dialects/answer_parts.py",
    "mlx_server/gateway/dialects/anthropic/render.py",
    "mlx_server/gateway/dialects/ollama/go_template.py",
    "mlx_server/gateway/dialects/ollama/messages.py",
    "mlx_server/gateway/dialects/ollama/options.py",
    "mlx_server/gateway/dialects/ollama/schema.py",
    "mlx_server/gateway/dialects/openai/schema.py",
    "orchestrator/unicode.py",
    "benchmarks/chaos/histogram.py",
    "benchmarks/chaos/pauses.py",
    "benchmarks/chaos/table.py",
    "benchmarks/chaos/tally.py",
    "benchmarks/chaos/verdict.py",
    "benchmarks/client/frames.py",
    "benchmarks/client/reading.py",
    "benchmarks/faults/outcomes.py",
    "benchmarks/faults/table.py",
    "benchmarks/report/bars.py",
    "benchmarks/report/markdown.py",
    "benchmarks/report/plots.py",
    "benchmarks/report/summary.py",
    "benchmarks/scale/svg.py",
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


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def _rule(module: str, rules: dict) -> str | None:
    matching = [prefix for prefix in rules if _within(module, prefix)]
    return max(matching, key=len) if matching else None


SOURCES = sorted(path for package in PACKAGES for path in (REPO / package).rglob("*.py"))


def _faults_of(path: Path) -> Iterator[str]:
    module = _module_of(path)
    rule = _rule(module, ALLOWED)
    if rule is None:
        yield f"{module} stands in no row of CONTRIBUTING's table"
        return
    allowed = (rule, *ALLOWED[rule])
    for imported in _imports(path):
        top = imported.split(".")[0]
        if top not in PACKAGES:
            if top in FOREIGN_TO[rule]:
                yield f"{module} imports {imported}, which {rule} never does"
        # `from package import name` yields both package and package.name: a parent of an allowed one is fine.
        elif not any(_within(imported, prefix) or _within(prefix, imported) for prefix in allowed):
            yield f"{module} imports {imported}; {rule} may import {allowed}"


def test_import_rules_in_contributing_name_existing_folders():
    assert ALLOWED
    missing = [prefix for prefix in ALLOWED if not list(REPO.glob(prefix.replace(".", "/") + "*"))]
    assert not missing


def test_every_module_imports_only_what_the_rules_in_contributing_allow():
    assert not [fault for path in SOURCES for fault in _faults_of(path)]


def test_folders_and_files_import_each_other_in_one_direction_only():
    """In every folder, its files and subfolders do not import each other in a cycle."""
    modules = {_module_of(path): path for path in SOURCES}
    edges: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for module, path in modules.items():
        for imported in _imports(path) & modules.keys():
            ours, theirs = module.split("."), imported.split(".")
            pairs = enumerate(zip(ours, theirs, strict=False))
            floor = next((depth for depth, (our, their) in pairs if our != their), None)
            if floor is not None:
                edges[".".join(ours[:floor])][ours[floor]].add(theirs[floor])
    circles = {}
    for folder, graph in edges.items():
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circles[folder or "the root"] = error.args[1]
    assert not circles


def test_no_source_folder_has_more_than_fifteen_modules():
    tests = [path for path in (REPO / "tests").rglob("*.py") if "children" not in path.parts]
    counted = (*SOURCES, *tests)
    crowds = Counter(str(path.parent.relative_to(REPO)) for path in counted if path.name != "__init__.py")
    assert not {folder: count for folder, count in crowds.items() if count > MOST_MODULES}


def test_modules_called_pure_in_their_docstring_are_exactly_those_listed_as_pure():
    called_pure = {
        str(path.relative_to(REPO))
        for path in SOURCES
        if path.name != "__init__.py" and re.search(r"\bPure\b", _docstring(path))
    }
    assert called_pure == set(PURE)


def test_pure_modules_import_no_io_and_no_clock():
    touched = {name: {i.split(".")[0] for i in _imports(REPO / name)} & IMPURE for name in PURE}
    assert not {name: acts for name, acts in touched.items() if acts}


def test_import_of_the_gateway_does_not_load_mlx():
    program = (
        "import sys, mlx_server.gateway.app; "
        "print([m for m in ('mlx', 'mlx_lm', 'numpy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, capture_output=True, text=True, timeout=110
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_tracked_files_name_no_development_machine_and_no_package_index():
    """No tracked file contains a path of one particular machine or the address of a package index."""
    files = subprocess.run(
        ["git", "ls-files"], cwd=REPO, capture_output=True, text=True, timeout=110
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
