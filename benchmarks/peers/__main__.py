"""Install, remove and list the peers, which are the programs with which the benchmarks compare Vestal.

    python -m benchmarks.peers                        list them, and why one cannot run here
    python -m benchmarks.peers install NAME … | all
    python -m benchmarks.peers remove NAME … | all

A peer is installed into `.cache/peers/NAME`, or into the folder that BENCH_PEERS names.
`benchmarks/peers/ollama.md` says how to build Ollama.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.peers import every_peer
from benchmarks.peers.environments import ENVIRONMENTS, InstallError

ALL = "all"


def install(names: list[str]) -> int:
    """Install the named programs that Vestal is compared with. Return how many failed."""
    failed = []
    for number, name in enumerate(names, 1):
        print(f"{name} ({number} of {len(names)}) …", flush=True)
        began = time.monotonic()
        try:
            ENVIRONMENTS[name].install(lambda line: print(f"  {line}", flush=True))
        except InstallError as error:
            failed.append(name)
            print(f"{name} is not installed. {error}", file=sys.stderr, flush=True)
        else:
            version, took = ENVIRONMENTS[name].version(), time.monotonic() - began
            print(f"{name} {version} is installed after {took:.0f} s.", flush=True)
    return len(failed)


def show() -> None:
    """Print each peer with its version, or with the reason why it cannot run here."""
    for peer in every_peer():
        print(f"{peer.name:<22} {peer.available() or peer.version()}")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Install, remove or list peers."
    )
    parser.add_argument("action", nargs="?", choices=["list", "install", "remove"], default="list")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ENVIRONMENTS)}, or {ALL}")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - {*ENVIRONMENTS, ALL})
    if unknown or (given.action != "list" and not given.names):
        names = ", ".join(ENVIRONMENTS)
        parser.error(f"{'Unknown: ' + ', '.join(unknown) + '. ' if unknown else ''}Name {names}, or {ALL}.")
    chosen: list[str] = list(ENVIRONMENTS) if ALL in given.names else given.names
    if given.action == "install":
        return 1 if install(chosen) else 0
    if given.action == "remove":
        for name in chosen:
            ENVIRONMENTS[name].remove()
        return 0
    show()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
