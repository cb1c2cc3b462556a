"""Whether an installed job still starts something: its Python or its checkout may have moved since."""

from pathlib import Path

from host_agent.service_manager.service_manager import ServiceManager


def stale(manager: ServiceManager, name: str, checkout: Path) -> str:
    """What is wrong with an installed job's file; empty where nothing is. `checkout` is the one that asks."""
    try:
        written = manager.written(name)
    except (OSError, ValueError, KeyError) as error:
        return f"its file cannot be read ({error})"
    if not written.checkout.is_dir():
        return f"its checkout {written.checkout} is gone"
    if not written.python.exists():
        return f"its Python {written.python} is gone"
    if written.checkout.resolve() != checkout.resolve():
        return f"it runs another checkout, {written.checkout}"
    return ""
