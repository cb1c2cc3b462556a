"""The files of a service manager's, on disk."""

import os

from host_agent.service_manager.unit import Unit


def is_written(unit: Unit) -> bool:
    """Whether it stands there already, to the letter."""
    try:
        return unit.path.read_text() == unit.text
    except OSError:
        return False


def write(unit: Unit, mode: int) -> None:
    """The file appears whole, and never with looser rights."""
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unit.path.with_name(f".{unit.path.name}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(unit.text)
    temporary.replace(unit.path)
    print(f"wrote {unit.path}")
