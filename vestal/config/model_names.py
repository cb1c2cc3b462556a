"""Model names as Ollama has them: `name[:tag]`, where the tag is `latest` by default."""


def canonical(model: str) -> str:
    """Return the name with its tag: `all-minilm` → `all-minilm:latest`.

    Only the last part of a path can have a tag: `registry:5000/org/model` → `registry:5000/org/model:latest`.
    """
    name = model.strip()
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
