#!/bin/sh
# Writes requirements/*.lock from pyproject.toml: one resolution for macOS and Linux, a hash for every file, and no
# index address, so that pip and uv install the same files from the index that the machine is set to. Needs uv.
set -eu
cd "$(dirname "$0")/.."
compile() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --no-header "$@"
}
compile pyproject.toml --extra orchestrator -o requirements/host.lock
compile pyproject.toml --extra orchestrator --group dev -c requirements/host.lock -o requirements/dev.lock
# The container gets only the orchestrator's own dependencies.
python3 - <<'EOF' | compile - -c requirements/host.lock -o requirements/orchestrator.lock
import tomllib
print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["orchestrator"]))
EOF
# The supervisors with which benchmarks/supervision compares ours.
printf '%s\n' supervisor circus 'setuptools<81' | compile - -o requirements/peers.lock
