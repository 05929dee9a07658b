"""A folder of untrusted files -> an `AdapterManifest`. No tensor value is read here."""

import hashlib
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType

from app.domain.adapter import (
    CONFIG_FILE,
    README_FILE,
    WEIGHTS_FILE,
    AdapterManifest,
    FileEntry,
)
from app.domain.errors import MissingFile, TooLarge, UnexpectedFile
from app.intake.limits import UPLOAD_LIMITS, Limits
from app.intake.lora_config import parse_config
from app.intake.modules import read_modules
from app.intake.names import is_pickle_name, refuse_file
from app.intake.safetensors_header import Header, read_header


def read_manifest(
    folder: Path,
    limits: Limits = UPLOAD_LIMITS,
    known: Mapping[str, FileEntry] = MappingProxyType({}),
) -> AdapterManifest:
    """Check a folder with `adapter_config.json`, `adapter_model.safetensors`, perhaps `README.md`.

    A `safety_report.json` of ours is passed over: it describes the patch before, and is made anew.
    Each file is opened once; links are not followed. `known` may hold the weights file's digest
    where the caller computed it while it wrote the file, so that the bytes are not read again.
    Raises MissingFile, UnexpectedFile, PickleRefused, TooLarge, MalformedSafetensors,
    TensorRefused, EmptyAdapter, ConfigRefused, RankMismatch, UnsupportedAdapter.
    """
    names = _check_names(folder)
    raw_config, config_file = _read_small(folder, CONFIG_FILE, limits)
    config = parse_config(raw_config, limits)
    files = {CONFIG_FILE: config_file}
    if README_FILE in names:
        files[README_FILE] = _read_readme(folder, limits)
    header, files[WEIGHTS_FILE] = _read_weights(folder, limits, known.get(WEIGHTS_FILE))
    modules, full_weights = read_modules(header, config)
    return AdapterManifest(
        files=files,
        config=config.clean,
        dropped_keys=config.dropped_keys,
        modules=modules,
        base_model_name=config.base_model_name,
        full_weights=full_weights,
    )


# -------------------------------------------------------------------------------------------- files
def _check_names(folder: Path) -> set[str]:
    """Pickles are named first, because that is what a sender without safetensors must hear."""
    names = sorted(os.listdir(folder))  # noqa: PTH208  # because Path.iterdir gives paths to names
    strangers = [name for name in names if name not in UPLOAD_LIMITS.file_bytes]
    for name in sorted(strangers, key=lambda name: not is_pickle_name(name)):
        refuse_file(name)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in names:
            raise MissingFile(file=name)
    return set(names)


def _open(folder: Path, name: str, limits: Limits) -> BufferedReader:
    """Open a plain file of allowed size. The caller closes it."""
    try:  # non-blocking, because opening a FIFO would wait for a writer
        fd = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise UnexpectedFile(file=name, reason="it is a link or cannot be opened") from None
    file = os.fdopen(fd, "rb") if stat.S_ISREG(os.fstat(fd).st_mode) else None
    if file is None:
        os.close(fd)
        raise UnexpectedFile(file=name, reason="it is not a plain file")
    if _size_bytes(file) > limits.file_bytes[name]:
        file.close()
        raise TooLarge(what=name, limit_bytes=limits.file_bytes[name])
    return file


def _size_bytes(file: BufferedReader) -> int:
    return os.fstat(file.fileno()).st_size


def _read_small(folder: Path, name: str, limits: Limits) -> tuple[bytes, FileEntry]:
    with _open(folder, name, limits) as file:
        raw = file.read(limits.file_bytes[name])
    return raw, FileEntry(hashlib.sha256(raw).hexdigest(), len(raw))


def _read_readme(folder: Path, limits: Limits) -> FileEntry:
    raw, entry = _read_small(folder, README_FILE, limits)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UnexpectedFile(file=README_FILE, reason="it is not UTF-8 text") from None
    if "\0" in text:
        raise UnexpectedFile(file=README_FILE, reason="text holds no NUL")
    return entry


def _read_weights(
    folder: Path, limits: Limits, known: FileEntry | None
) -> tuple[Header, FileEntry]:
    with _open(folder, WEIGHTS_FILE, limits) as file:
        size_bytes = _size_bytes(file)
        header = read_header(file, size_bytes, file_name=WEIGHTS_FILE, limits=limits)
        if known and known.size_bytes == size_bytes:
            return header, known
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return header, FileEntry(sha256, size_bytes)
