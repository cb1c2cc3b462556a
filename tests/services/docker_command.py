"""The `docker` command of this machine, for tests that need a real Docker engine."""

from __future__ import annotations

import os
import subprocess

import pytest


def docker(*arguments: str, check: bool = True) -> str:
    """Return what `docker` prints. Raises OSError, subprocess.SubprocessError."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60, check=check)
    return done.stdout


def python_image() -> str:
    """Return an image with Python of this Docker engine; skip if there is no engine or no such image."""
    try:
        images = docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    except (OSError, subprocess.SubprocessError):
        assert "VESTAL_TEST_REQUIRE_DOCKER" not in os.environ, "a Docker engine is required here"
        pytest.skip("no Docker engine answers")
    image = os.environ.get("VESTAL_PYTHON_IMAGE") or next((name for name in images if "python" in name), "")
    if not image:
        pytest.skip("the Docker engine has no image with Python")
    return image
