"""A gateway imports at its start only what every gateway needs, because it runs for a long time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

NOT_AT_START = {
    "aiohttp": "images from the web, peers, a handover (9 MB)",
    "yarl": "addresses of images",
    "jinja2": "templates that a client sends",
    "PIL": "the engine's work",
    "numpy": "the engine's work",
    "mlx": "the engine's work",
    "tokenizers": "the engine's work",
    "transformers": "the engine's work",
    "huggingface_hub": "downloads of models",
    "safetensors": "the files of adapters",
    "requests": "downloads of models",
    "httpx": "downloads of models",
    "mlx_server.gateway.images.fetch": "images from the web",
    "mlx_server.gateway.images.public_addresses": "images from the web",
}
"""The modules that a gateway imports late or never, each with what needs it. aiohttp came with the images of
the web, which few gateways fetch: a gateway at rest took 73.7 MB and not 68.9.
"""


def test_gateway_start_imports_no_rarely_needed_module(repo: Path):
    program = (
        "import json, sys\n"
        "import mlx_server.gateway.main, mlx_server.gateway.serving\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repo, capture_output=True, text=True, timeout=110, check=True
    )
    assert sorted(NOT_AT_START.keys() & set(json.loads(done.stdout))) == []
