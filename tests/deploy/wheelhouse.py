"""Wheels of what is installed here, so that an image's steps run without a package index."""

import re
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import parse_tag, sys_tags

OF_THIS_PLACE = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}


def make_wheelhouse(folder: Path, requirements: list[str]) -> None:
    """Of these, and of all that they need."""
    for found in _closure(requirements).values():
        _repack(found, folder)


def _closure(requirements: list[str]) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        wanted, extra = waiting.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        found.setdefault(name, distribution(wanted.name))
        for each in {"", *wanted.extras}:
            if (name, each) not in seen:
                seen.add((name, each))
                waiting += [(Requirement(line), each) for line in found[name].requires or ()]
    return found


def _repack(found: Distribution, folder: Path) -> None:
    name = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    path = folder / f"{name}-{found.version}-{_tag(found)}.whl"
    about = f"{name}-{found.version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        kept = []
        for source, inside in _files(found, about):
            wheel.write(source, inside)
            kept.append(f"{inside},,")
        wheel.writestr(f"{about}/RECORD", "\n".join([*kept, f"{about}/RECORD,,\n"]))


def _files(found: Distribution, about: str) -> Iterator[tuple[Path, str]]:
    """What lay in the wheel: scripts are made anew from their entry points."""
    for file in found.files or ():
        inside = file.as_posix()
        if inside.startswith("..") or "__pycache__" in inside:
            continue
        if file.parent.name.endswith(".dist-info") and file.name in OF_THIS_PLACE:
            continue
        inside = re.sub(r"^[^/]+\.dist-info/", f"{about}/", inside)
        yield Path(str(found.locate_file(file))), inside


def _tag(found: Distribution) -> str:
    """One of the tags that it was made with and that this machine takes."""
    said = re.findall(r"^Tag: (\S+)", found.read_text("WHEEL") or "", re.MULTILINE)
    given = {tag for each in said for tag in parse_tag(each)}
    return str(next(tag for tag in sys_tags() if tag in given))
