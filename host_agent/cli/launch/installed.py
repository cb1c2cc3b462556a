"""Ask the MLX server for its language models."""

from __future__ import annotations

from host_agent.cli.gateway import GatewayClient
from host_agent.cli.launch.models import InstalledModel, language_models


def installed_language_models(gateway: GatewayClient) -> list[InstalledModel]:
    """Return the language models that are installed on the MLX server.

    Raises GatewayUnreachable if the MLX server does not answer as expected.
    """
    tags, loaded = gateway.get("/api/tags"), gateway.get("/api/ps")
    try:
        return language_models(tags, loaded)
    except (KeyError, TypeError, ValueError) as error:
        raise gateway.unreachable(error) from error
