"""From a model id that a stranger sent to a folder that the operator filled."""

import re
from pathlib import Path

from app.domain.errors import InvalidField, UnknownModel

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,95})"
_MODEL_ID = re.compile(rf"{_PART}(?:/{_PART})?")
# What the Hub refuses inside a repository's name (huggingface_hub, validate_repo_id), and thereby
# every way out of the root.
_FORBIDDEN = re.compile(r"\.\.|--|[.-](?:/|$)|\.git$")


def find_model(model_id: str, root: Path, *, field: str) -> Path:
    """The folder `root/name` or `root/org/name`.

    Raises InvalidField for what is no model id, UnknownModel for one that has no folder.
    """
    if not _MODEL_ID.fullmatch(model_id) or _FORBIDDEN.search(model_id):
        reason = "a model id is name or org/name in the Hub's letters, not a path"
        raise InvalidField(field=field, reason=reason)
    folder = root / model_id
    if not folder.is_dir():
        raise UnknownModel(field=field, model=model_id)
    return folder
