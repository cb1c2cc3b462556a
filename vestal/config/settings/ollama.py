"""The section `ollama`: the address of the Ollama server, and whether Vestal manages that server."""

from typing import Annotated, Literal

from vestal.config.settings.field_types import ApiUrl, Seconds, Section, YamlOff


class OllamaSection(Section):
    """The address of the Ollama server, and how Vestal manages and probes it.

    `base_url`           the server's address; without it OLLAMA_HOST, Ollama's own variable, names it
    `manage`             auto: Vestal starts it if it is installed and this user runs no other
                         always: as auto, but even if another server runs; a missing Ollama is a fault
                         watch: Vestal only reports its state
                         off: Vestal ignores it
    `probe_model`        the model that is asked for a token or a vector; None: the smallest loaded one
    `probe_interval_s`   the time between two such probes
    `no_progress_s`      a runner that uses CPU without progress for this long counts as hung
    """

    base_url: ApiUrl = "http://127.0.0.1:11434"
    manage: Annotated[Literal["auto", "always", "watch", "off"], YamlOff] = "auto"
    probe_model: str | None = None
    probe_interval_s: Seconds = 30.0
    no_progress_s: Seconds = 300.0
