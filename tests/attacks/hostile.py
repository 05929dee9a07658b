"""One hostile file: what it is, how it is made, and what the refusal must say."""

import io
from collections.abc import Callable
from typing import NamedTuple

from app.domain.errors import Refused


class Hostile(NamedTuple):
    name: str
    make: Callable[[], bytes]
    error: type[Refused]
    culprit: str  # what the message must name


def torch_zip() -> bytes:
    """As torch.save writes it. Imported here, because the corpus is also used without torch."""
    import torch

    out = io.BytesIO()
    torch.save({"a": torch.ones(2, 6)}, out)
    return out.getvalue()
