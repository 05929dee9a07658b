"""Wheel and sdist: made, and looked into. `python -m tests.release.dist FOLDER`.

The wheel is built from the checkout and again from the sdist; both are the same, file by file. What
has to be in it is told by the repository, and what may not by name.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "workers")
NEVER = re.compile(
    r"(^|/)(\.venv|\.git|__pycache__|site|dist|demo-output|\.pytest_cache|node_modules|\.env)(/|$)"
    r"|\.(pyc|sqlite3|pem|key|log|safetensors)$"
)
SECRETS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bhf_[A-Za-z]{34}\b"
)


class BadDist(ValueError):
    """An archive that may not be published."""


@dataclass(frozen=True)
class Dist:
    wheel: Path
    sdist: Path


def build(folder: Path) -> Dist:
    """Raises BadDist. Takes no network: the backend is this environment's."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as other:
        _build("--sdist", "--outdir", folder, ROOT)
        (sdist,) = folder.glob("*.tar.gz")
        _build("--wheel", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        with tarfile.open(sdist) as archive:
            archive.extractall(other, filter="data")
        (source,) = Path(other).iterdir()
        _build("--wheel", "--outdir", Path(other) / "dist", source)
        (again,) = (Path(other) / "dist").glob("*.whl")
        if digests(wheel) != digests(again):
            raise BadDist("the wheel from the sdist is another than that from the checkout")
    made = Dist(wheel, sdist)
    look(made)
    return made


def _build(*arguments: object) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BadDist(done.stdout + done.stderr)


def digests(wheel: Path) -> dict[str, str]:
    """SHA-256 by name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}


def look(made: Dist) -> None:
    """Raises BadDist."""
    packed = {name for name in digests(made.wheel) if ".dist-info/" not in name}
    if packed != set(sources()):
        raise BadDist(f"the wheel differs from the packages in {sorted(packed ^ set(sources()))}")
    for name, content in _in_sdist(made.sdist):
        if NEVER.search(name):
            raise BadDist(f"{name} has no place in an sdist")
        if SECRETS.search(content):
            raise BadDist(f"{name} holds what looks like a secret")
    _tool("twine", "check", "--strict", made.wheel, made.sdist)
    _tool("check_wheel_contents", "--toplevel", ",".join(PACKAGES), made.wheel)


def sources() -> Iterator[str]:
    """Every file of the packages that git would keep."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PACKAGES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    yield from done.stdout.split()


def _in_sdist(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if member.issym() or member.islnk():
                raise BadDist(f"{member.name} is a link")
            file = archive.extractfile(member)
            if file is not None:
                yield member.name.split("/", 1)[1], file.read()


def _tool(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BadDist(done.stdout + done.stderr)


if __name__ == "__main__":
    built = build(Path(sys.argv[1]))
    sys.stdout.write(f"{built.wheel}\n{built.sdist}\n")
