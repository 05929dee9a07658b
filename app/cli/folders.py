"""Models and output folders as the commands take them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE
from app.domain.checkpoint import Checkpoint
from app.domain.errors import InvalidField
from app.intake.checkpoint import read_checkpoint
from app.intake.manifest import read_manifest
from app.intake.opened import OpenedAdapter, open_adapter


def open_checkpoint(name: str, field: str) -> Checkpoint:
    """A folder as given, else a model id under the model root, else on the hub."""
    if Path(name).is_dir():
        return read_checkpoint(Path(name), field=field, model=name)
    if name.startswith((".", "/", "~")):
        raise InvalidField(field=field, reason=f"there is no folder {name}")
    from app.cli.hub import models  # here, because a hub's client takes 0.3 s to import

    return models().checkpoint(name, field=field)


def check_new(out: Path) -> None:
    """Before any work: nothing of the caller's is written over. Raises InvalidField."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidField(field="out", reason=f"{out} is there already and is not an empty folder")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out`, which becomes `out` at the end: so `out` is whole or not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        work.replace(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def open_trained(adapter: Path) -> Iterator[OpenedAdapter]:
    """As `open_adapter`, but of a folder that a training has left only the adapter's own files
    are taken. Raises what `open_adapter` raises."""
    if not (adapter / WEIGHTS_FILE).is_file():
        with open_adapter(adapter) as opened:  # an archive, or a folder that the gate says more of
            yield opened
        return
    with tempfile.TemporaryDirectory(prefix="adapter-safety-") as name:
        folder = Path(name)
        for file in (CONFIG_FILE, WEIGHTS_FILE, README_FILE):
            if (adapter / file).is_file():
                shutil.copyfile(adapter / file, folder / file)
        yield OpenedAdapter(folder, read_manifest(folder))
