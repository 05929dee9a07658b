"""The patched adapter as a PEFT folder, and as a zip whose bytes depend only on its content."""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.domain.adapter import (
    CONFIG_FILE,
    PATCHED_FILES,
    README_FILE,
    REPORT_FILE,
    FileEntry,
)
from app.domain.report import Report
from app.jobs.render import as_json, as_markdown
from workers.pipeline import OnModule, PatchInput, Shelves, patch

NO_FULL_WEIGHTS = {"modules_to_save": None, "trainable_token_indices": None, "bias": "none"}
README_HEADING = "## Safety patch"
FRONT_MATTER = re.compile(r"---[ \t]*\r?\n.*?\n---[ \t]*\r?\n", re.DOTALL)
ZIP_EPOCH = (
    1980,
    1,
    1,
    0,
    0,
    0,
)  # the format's earliest time, so that equal content is equal bytes
CHUNK_BYTES = 1 << 20


def write_patched_adapter(
    given: PatchInput,
    out: Path,
    *,
    threads: int,
    on_module: OnModule,
    shelves: Shelves | None = None,
) -> Report:
    """Patch into the existing folder `out`: weights, configuration, report and README.

    Raises what `patch` raises; `out` may hold a part of the files then.
    """
    report = patch(given, out, threads=threads, on_module=on_module, shelves=shelves)
    write_beside_weights(given, report, out)
    return report


def write_beside_weights(given: PatchInput, report: Report, out: Path) -> None:
    """What a patched adapter has besides its weights: configuration, report and README."""
    write_config(given, out)
    write_report(report, out)
    _write(out / README_FILE, _readme(given, report))


def write_config(given: PatchInput, out: Path) -> None:
    _write(out / CONFIG_FILE, json.dumps(_config(given), indent=2))


def write_report(report: Report, out: Path) -> None:
    _write(out / REPORT_FILE, as_json(report.as_json()))


def _config(given: PatchInput) -> Mapping[str, object]:
    """The adapter's own configuration; where full weights were dropped it asks for none."""
    config = given.manifest.config
    if given.method.full_weights != "drop":
        return config
    return {**config, **{key: value for key, value in NO_FULL_WEIGHTS.items() if key in config}}


def _write(path: Path, text: str) -> None:
    """As UTF-8 and with the line ends it has, whatever the machine's locale says."""
    path.write_bytes(text.encode())


def _readme(given: PatchInput, report: Report) -> str:
    """Our section, then the adapter's own README if it has one.

    Ours stands first (after the card's metadata): text from a stranger could swallow what follows
    it, by an open comment or code fence.
    """
    section = f"{README_HEADING}\n\n{as_markdown(report.as_json())}"
    if README_FILE not in given.manifest.files:
        return section
    own = (given.folder / README_FILE).read_bytes().decode()
    front = FRONT_MATTER.match(own)
    metadata = front[0] if front else ""
    return f"{metadata}{section}\n{own[len(metadata) :]}"


def zip_adapter(folder: Path, archive: Path) -> None:
    """Pack the output files of a patched adapter."""
    zip_files(folder, PATCHED_FILES, archive)


def zip_files(folder: Path, names: Sequence[str], archive: Path) -> None:
    """Pack files stored (weights do not compress), in the given order."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for name in names:
            size = (folder / name).stat().st_size
            info = zipfile.ZipInfo(name, ZIP_EPOCH)
            info.external_attr = 0o644 << 16
            info.file_size = size
            with (folder / name).open("rb") as source, packed.open(info, "w") as target:
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)


def file_entry(path: Path) -> FileEntry:
    """Digest and size of a local file."""
    with path.open("rb") as file:
        return FileEntry(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
