"""The lock files agree, and the lock files of extras contain no more than they need."""

from __future__ import annotations

import re
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
LISTED_AND_NOT_IMPORTED = {
    "datasets",
    "opencv-python",
    "mlx-audio",
    "miniaudio",
    "gradio",
    "torch",
    "cryptography",
}
"""What mlx-vlm lists as its dependencies and no family that is served imports, and what those would bring."""


def pins(name: str) -> dict[str, set[str]]:
    """Return the versions that a lock has of each package; some have one for each version of Python."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([\w.-]+)==([^\s;]+)", (REQUIREMENTS / name).read_text(), re.MULTILINE
    ):
        found.setdefault(package, set()).add(version)
    return found


def test_lock_file_for_images_has_only_packages_that_the_host_lock_lacks():
    vision, host = pins("vision.lock"), pins("host.lock")
    assert {"mlx-vlm", "pillow"} <= set(vision)
    assert not set(vision) & set(host)
    assert not set(vision) & LISTED_AND_NOT_IMPORTED
    assert len(vision) <= 8, "text-only users install none of it, but the rest should stay light too"


def test_lock_file_for_tracing_has_only_packages_that_the_orchestrator_lock_lacks():
    tracing, image = pins("tracing.lock"), pins("orchestrator.lock")
    assert {"opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http"} <= set(tracing)
    assert not set(tracing) & set(image)


def test_development_lock_file_has_the_same_versions_as_the_lock_files_for_users():
    dev = pins("dev.lock")
    for name in ("host.lock", "vision.lock", "tracing.lock"):
        assert {package: dev.get(package) for package in pins(name)} == pins(name)


def test_every_package_in_a_lock_file_has_a_hash_and_no_lock_file_names_an_index():
    for lock in REQUIREMENTS.glob("*.lock"):
        text = lock.read_text()
        entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in entry for entry in entries), lock.name
        assert "://" not in text and "--index" not in text, lock.name
