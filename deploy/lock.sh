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
compile pyproject.toml --extra orchestrator --extra vision --group dev -c requirements/host.lock -o requirements/dev.lock
# Prints options that leave out what another lock has, so that a lock of an extra only adds to it.
without() { sed -n 's/^\([a-z0-9][a-z0-9._-]*\)==.*/--no-emit-package=\1/p' "requirements/$1" | sort -u; }
# Prints the requirements of an extra.
extra() {
    python3 -c 'import sys, tomllib
with open("pyproject.toml", "rb") as file:
    print("\n".join(tomllib.load(file)["project"]["optional-dependencies"][sys.argv[1]]))' "$1"
}
# What models that see need in addition to host.lock. mlx-vlm's dependencies are those in pyproject.toml, not its own
# list, so that every lock is installed with --no-deps.
# shellcheck disable=SC2046  # each line is an option
compile pyproject.toml --extra vision -c requirements/dev.lock $(without host.lock) -o requirements/vision.lock
# The container gets only the orchestrator's own dependencies, and, where traces are on, those of the extra.
extra orchestrator | compile - -c requirements/host.lock -o requirements/orchestrator.lock
# shellcheck disable=SC2046  # each line is an option
extra tracing | compile - -c requirements/dev.lock $(without orchestrator.lock) -o requirements/tracing.lock
# The peers with which the benchmarks compare Vestal, each in an environment of its own. They are pinned without hashes:
# no user installs them. What only pictures, sound and web pages need is left out.
for peer in benchmarks/peers/requirements/*.in; do
    uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-annotate --no-header \
        --override benchmarks/peers/requirements/left_out.txt "$peer" -o "${peer%.in}.txt"
done
