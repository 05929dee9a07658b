"""Data sets as clients send them."""

import json
from collections.abc import Sequence
from pathlib import Path

from app.domain.dataset import Row


def as_jsonl(rows: Sequence[Row]) -> bytes:
    """Of one prompt and one response each."""
    lines = []
    for row in rows:
        prompt, response = (message.content for message in row.messages)
        lines.append(json.dumps({"prompt": prompt, "response": response}))
    return ("\n".join(lines) + "\n").encode()


def write_jsonl(path: Path, rows: Sequence[Row]) -> Path:
    path.write_bytes(as_jsonl(rows))
    return path
