"""From a model id that a stranger sent to a folder that the operator filled, or to a hub's
repository."""

import re
from pathlib import Path
from typing import NamedTuple

from app.domain.errors import InvalidField, UnknownModel

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,95})"
_MODEL_ID = re.compile(rf"{_PART}(?:/{_PART})?")
# What the Hub refuses inside a repository's name (huggingface_hub, validate_repo_id), and thereby
# every way out of the root.
_FORBIDDEN = re.compile(r"\.\.|--|[.-](?:/|$)|\.git$")
# A branch, tag or commit as git allows them, in the letters that people use.
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9_])?")
_SHA = re.compile(r"[0-9a-f]{40}")


class ModelName(NamedTuple):
    """`name`, `org/name` or `org/name@revision`."""

    id: str
    revision: str | None  # a branch, tag or commit; None stands for a folder, or the main branch

    @property
    def is_of_hub(self) -> bool:
        """Whether a hub may have it."""
        return is_hub_id(self.id)


def parse_model_name(text: str, *, field: str) -> ModelName:
    """Raises InvalidField for what is no model id."""
    model_id, at, revision = text.partition("@")
    if not _is_model_id(model_id):
        reason = "a model id is name or org/name in the Hub's letters, not a path"
        raise InvalidField(field=field, reason=reason)
    if at and not (is_revision(revision) and is_hub_id(model_id)):
        reason = "what follows @ is a branch, tag or commit of a repository org/name"
        raise InvalidField(field=field, reason=reason)
    return ModelName(model_id, revision or None)


def is_hub_id(text: str) -> bool:
    """Whether it is `org/name`."""
    return "/" in text and _is_model_id(text)


def is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text and "//" not in text


def is_sha(text: str) -> bool:
    """Whether it is a whole commit id."""
    return bool(_SHA.fullmatch(text))


def _is_model_id(text: str) -> bool:
    return bool(_MODEL_ID.fullmatch(text)) and not _FORBIDDEN.search(text)


def find_model(model_id: str, root: Path, *, field: str) -> Path:
    """The folder `root/name` or `root/org/name`.

    Raises InvalidField for what is no model id, UnknownModel for one that has no folder.
    """
    name = parse_model_name(model_id, field=field)
    folder = root / name.id
    if name.revision is not None or not folder.is_dir():
        raise UnknownModel(field=field, model=model_id)
    return folder
