"""Install and start the peers with which Vestal is compared.

`python -m benchmarks.peers install NAME …` installs them; `python -m benchmarks.peers` lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.process import Peer


def every_peer() -> tuple[Peer, ...]:
    """Return all programs that Vestal is compared with, installed or not, in the order in which tables show
    them.
    """
    from benchmarks.peers.serving import SERVING_PEERS
    from benchmarks.peers.supervisors import SUPERVISOR_PEERS

    return (*SERVING_PEERS, *SUPERVISOR_PEERS)


def installed_versions() -> dict[str, str]:
    """Return the versions of the peers that can run on this machine, by name."""
    return {peer.name: peer.version() for peer in every_peer() if peer.available() is None}
