"""The models that jobs may name: folders under one root, and a hub's where they are wanted."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from app.domain.checkpoint import Checkpoint
from app.domain.errors import ModelNotAllowed
from app.intake.checkpoint import read_checkpoint
from app.intake.model_ids import ModelName, find_model, parse_model_name


class FolderModels:
    """`Models` in a folder: model `org/name` is the checkpoint in `root/org/name`."""

    def __init__(
        self, root: Path, allowed: Sequence[str] = ("*",), *, with_hub: bool = False
    ) -> None:
        self._root, self._allowed = root, allowed  # shell-style patterns of model ids
        self._with_hub = with_hub

    def is_remote(self, model_id: str, *, field: str) -> bool:
        """Whether the model would come from the hub: there is no such folder, or a revision is
        named. Raises InvalidField, ModelNotAllowed."""
        name = self._checked(model_id, field)
        of_hub = self._with_hub and name.is_of_hub
        return of_hub and (name.revision is not None or not (self._root / name.id).is_dir())

    def checkpoint(self, model_id: str, *, field: str) -> Checkpoint:
        """Raises InvalidField, ModelNotAllowed, UnknownModel or CheckpointRefused, each naming
        `field`."""
        self._checked(model_id, field)
        folder = find_model(model_id, self._root, field=field)
        return read_checkpoint(folder, field=field, model=model_id)

    def check_allowed(self, model_id: str, *, field: str) -> None:
        """By the id alone, without a revision. Raises ModelNotAllowed."""
        if not any(fnmatchcase(model_id, pattern) for pattern in self._allowed):
            raise ModelNotAllowed(field=field, model=model_id)

    def _checked(self, model_id: str, field: str) -> ModelName:
        name = parse_model_name(model_id, field=field)
        self.check_allowed(name.id, field=field)
        return name
