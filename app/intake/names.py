"""Which names we accept, and how a name that came from a stranger is shown."""

import re
from typing import NoReturn

from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE
from app.domain.errors import PickleRefused, UnexpectedFile

MODULE_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
"""A path of named parts, as PyTorch writes it; no empty part, hence no `..`."""

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def shown(name: str) -> str:
    """The name as it may stand in a message: control characters and the like are escaped."""
    return name if name.isprintable() else ascii(name)[1:-1]


def is_pickle_name(name: str) -> bool:
    """Whether the name's ending is one that PyTorch and pickle use."""
    return name.lower().endswith(PICKLE_SUFFIXES)


def refuse_file(name: str, reason: str = "") -> NoReturn:
    """Refuse a file that is not one of an adapter's. Raises PickleRefused, UnexpectedFile."""
    if is_pickle_name(name):
        raise PickleRefused(file=shown(name))
    allowed = f"only {CONFIG_FILE}, {WEIGHTS_FILE} and {README_FILE} (optional) may be sent"
    raise UnexpectedFile(file=shown(name), reason=reason or allowed)
