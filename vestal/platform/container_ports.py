"""The names of the programs that listen on a port of this machine for a container. Pure."""

NAMES = frozenset(
    {
        "rootlesskit",  # rootless Docker
        "rootlessport",  # rootless Podman, as are the next three
        "slirp4netns",
        "pasta",
        "pasta.avx2",
        "gvproxy",  # Podman in a virtual machine
        "limactl",  # Colima, Lima and Rancher Desktop
        "ssh",  # the same, with older versions of Lima
        "OrbStack",
        "OrbStack Helper",
    }
)
"""Names of such programs beside Docker's own, such as `docker-proxy` and `com.docker.backend`."""


def listens_for_containers(program: str) -> bool:
    """Return whether `program` is the name of a program that listens on ports of this machine on behalf of
    containers. The answer is also True for `ssh`, which older versions of Lima use for this, but which may as
    well be a tunnel that has nothing to do with containers.
    """
    return program in NAMES or "docker" in program
