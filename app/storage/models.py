"""The models that jobs may name: folders under one root."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from app.domain.checkpoint import Checkpoint
from app.domain.errors import ModelNotAllowed
from app.intake.checkpoint import read_checkpoint
from app.intake.model_ids import find_model


class FolderModels:
    """`Models` in a folder: model `org/name` is the checkpoint in `root/org/name`."""

    def __init__(self, root: Path, allowed: Sequence[str] = ("*",)) -> None:
        self._root, self._allowed = root, allowed  # shell-style patterns of model ids

    def checkpoint(self, model_id: str, *, field: str) -> Checkpoint:
        """Raises InvalidField, ModelNotAllowed, UnknownModel or CheckpointRefused, each naming
        `field`."""
        if not any(fnmatchcase(model_id, pattern) for pattern in self._allowed):
            raise ModelNotAllowed(field=field, model=model_id)
        folder = find_model(model_id, self._root, field=field)
        return read_checkpoint(folder, field=field, model=model_id)
