"""An adapter folder as multipart parts."""

from pathlib import Path

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE

Parts = dict[str, tuple[str, bytes]]


def parts(folder: Path) -> Parts:
    return {
        "config": (CONFIG_FILE, (folder / CONFIG_FILE).read_bytes()),
        "weights": (WEIGHTS_FILE, (folder / WEIGHTS_FILE).read_bytes()),
    }
