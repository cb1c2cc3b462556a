"""Is a file of the prompt cache whole, and what its name says? For `vestal cache verify` and the doctor."""

from pathlib import Path

from mlx_server.engine.prompt_cache.blob import Corrupt, decode

PROMPTS = "prompts"


def files(folder: Path) -> list[Path]:
    """Every block's file below the cache's folder, by name."""
    return sorted((folder / PROMPTS).glob("*.safetensors"))


def fault(path: Path) -> str:
    """Empty for a file that is whole, and what its name says. Raises OSError for one that cannot be read."""
    try:
        facts, _ = decode(path.read_bytes())
    except Corrupt as error:
        return str(error)
    return "" if facts.get("key") == path.stem else "it is another block's"
