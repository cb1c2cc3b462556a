"""Model names follow Ollama's: `name[:tag]`, and the tag is `latest` where none is given."""


def canonical(model: str) -> str:
    """`all-minilm` → `all-minilm:latest`; a name with a tag stays as it is.

    Only the last part of a path has a tag: `registry:5000/org/model` → `registry:5000/org/model:latest`.
    """
    name = model.strip()
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
