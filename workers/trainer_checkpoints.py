"""The Trainer's checkpoint folders as single files, so that another worker can go on from one."""

import tarfile
from pathlib import Path

from app.domain.errors import ArtifactCorrupt
from workers.training import CHECKPOINTS

NAME = "checkpoint-{step}"


def pack(folder: Path, tar: Path) -> None:
    """Plain files, without times and owners: a tar holds more than that, and we need none of it."""
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as out:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                info = tarfile.TarInfo(path.relative_to(folder).as_posix())
                info.size = path.stat().st_size
                with path.open("rb") as file:
                    out.addfile(info, file)


def unpack(tar: Path, work: Path, step: int) -> None:
    """Into the place where `train` looks. Raises ArtifactCorrupt for a file that is no tar."""
    folder = work / CHECKPOINTS / NAME.format(step=step)
    folder.mkdir(parents=True)
    try:
        with tarfile.open(tar) as packed:
            packed.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise ArtifactCorrupt(what="checkpoint of a training") from error
