"""The ids of what lies in folders, as a server that made the same would give them."""

import hashlib
import json
from pathlib import Path

from app.domain.adapter import REPORT_FILE
from app.domain.errors import InvalidField

KIT_CONFIG = "salora_config.json"


def file_id(path: Path) -> str:
    """A data set's: the SHA-256 of its file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def module_id(folder: Path) -> str:
    return _named(folder, REPORT_FILE, "part", "module")


def kit_id(folder: Path) -> str:
    return _named(folder, KIT_CONFIG, "id", "kit")


def _named(folder: Path, file: str, key: str, field: str) -> str:
    """Raises InvalidField."""
    try:
        return str(json.loads((folder / file).read_bytes())[key])
    except (OSError, ValueError, KeyError, TypeError):
        reason = f"{folder} has no {file} that names it"
        raise InvalidField(field=field, reason=reason) from None
