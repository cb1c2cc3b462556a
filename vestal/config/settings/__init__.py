"""The settings: one module for each section of the configuration file, with types and defaults."""

from vestal.config.settings.field_types import Conflict
from vestal.config.settings.models import ModelAdapter, ModelSource
from vestal.config.settings.notifications import NotificationsSection
from vestal.config.settings.ollama import OllamaSection
from vestal.config.settings.root import Config, Settings
from vestal.config.settings.supervision import SupervisionSection

__all__ = [
    "Config",
    "Conflict",
    "ModelAdapter",
    "ModelSource",
    "NotificationsSection",
    "OllamaSection",
    "Settings",
    "SupervisionSection",
]
