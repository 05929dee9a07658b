"""The models that jobs may name: folders under one root."""

from pathlib import Path

from app.domain.checkpoint import Checkpoint
from app.intake.checkpoint import read_checkpoint
from app.intake.model_ids import find_model


class FolderModels:
    """`Models` in a folder: model `org/name` is the checkpoint in `root/org/name`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def checkpoint(self, model_id: str, *, field: str) -> Checkpoint:
        """Raises InvalidField, UnknownModel or CheckpointRefused, each naming `field`."""
        folder = find_model(model_id, self._root, field=field)
        return read_checkpoint(folder, field=field, model=model_id)
