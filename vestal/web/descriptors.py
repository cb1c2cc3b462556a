"""Raise the limit of open files of this process, and limit how many clients may be connected.

macOS starts a process with a soft limit of 256 descriptors, which a few hundred idle clients use up. Then the
process cannot accept a connection, open a file or start a child.
"""

from __future__ import annotations

import resource

WANTED = 8192
"""The soft limit that is asked for. It is below macOS' OPEN_MAX (10,240), above which setrlimit() refuses a
soft limit.
"""
MAX_CONNECTIONS = 2048
RESERVED = 96
"""Descriptors that are not given to clients: logs, databases, children and their pipes, outgoing connections,
and the connections that are accepted before those dropped for them are closed."""
MIN_CONNECTIONS = 16


def raise_descriptor_limit(wanted: int = WANTED) -> int:
    """Raise the soft limit of open files to `wanted`, or as far as allowed, and return the limit in force.

    A limit that is already higher stays. Child processes inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted if soft == resource.RLIM_INFINITY else soft
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    while limit > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return limit
        except (OSError, ValueError):  # a Mac whose kern.maxfilesperproc is lower
            limit //= 2
    return soft


def max_connections() -> int:
    """Return how many clients may be connected under the limit of open files that is in force now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(MIN_CONNECTIONS, min(MAX_CONNECTIONS, soft - RESERVED))
