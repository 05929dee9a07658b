"""A disk that a test can fill to its last byte."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BALLAST = "ballast"


class SmallDisk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, *, but_bytes: int = 0) -> None:
        """Leave only so much, in whole pages."""
        left = os.statvfs(self.folder)
        with (self.folder / BALLAST).open("wb") as ballast:
            ballast.write(bytes(max(0, left.f_bavail * left.f_frsize - but_bytes)))

    def free(self) -> None:
        (self.folder / BALLAST).unlink()


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mounted at `folder`; skips, with the reason, where that is not allowed: it takes rights that
    no server could be asked for."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
