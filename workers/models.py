"""Wires the models of a worker and of the command line."""

from app.config import Settings
from app.storage.hub.cache import HubCache
from app.storage.hub.models import HubModels
from app.storage.hub.reader import Hub
from app.storage.models import FolderModels


def hub_models(settings: Settings) -> HubModels:
    """Folders under the model root, then the hub, where it is wanted."""
    root, allowed = settings.resolved_model_root, settings.allowed_models
    return HubModels(
        FolderModels(root, allowed, with_hub=settings.hub),
        Hub(connections=settings.hub_connections),
        HubCache(settings.resolved_hub_dir, settings.hub_cache_bytes),
    )
