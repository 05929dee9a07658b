"""A folder of untrusted files -> an `AdapterManifest`. No tensor value is read here."""

import hashlib
import math
import os
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType

from app.domain.adapter import (
    CONFIG_FILE,
    DTYPE_BYTES,
    README_FILE,
    WEIGHTS_FILE,
    AdapterManifest,
    FileEntry,
    LoraModule,
    TensorEntry,
    module_order,
)
from app.domain.errors import (
    EmptyAdapter,
    MissingFile,
    RankMismatch,
    TensorRefused,
    TooLarge,
    UnexpectedFile,
    UnsupportedAdapter,
)
from app.intake.limits import UPLOAD_LIMITS, Limits
from app.intake.lora_config import LoraConfig, parse_config
from app.intake.names import is_pickle_name, refuse_file
from app.intake.patterns import Patterns
from app.intake.safetensors_header import Header, read_header
from app.intake.tensor_keys import Side, TensorKey, check_spelling, parse_key


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
    return AdapterManifest(
        files=files,
        config=config.clean,
        dropped_keys=config.dropped_keys,
        modules=_modules(header, config),
        base_model_name=config.base_model_name,
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


# ------------------------------------------------------------------------------------------ modules
def _modules(header: Header, config: LoraConfig) -> tuple[LoraModule, ...]:
    """The tensors joined to modules by their names, in module order."""
    pairs = _pairs(header)
    if not pairs:
        raise EmptyAdapter(file=WEIGHTS_FILE)
    ranks = Patterns(config.rank_pattern, "rank_pattern")
    alphas = Patterns(config.alpha_pattern, "alpha_pattern")
    return tuple(
        _module(
            name,
            pairs[name],
            rank=ranks.resolve(name, config.r),
            alpha=alphas.resolve(name, config.lora_alpha),
            use_rslora=config.use_rslora,
        )
        for name in sorted(pairs, key=module_order)
    )


def _pairs(header: Header) -> dict[str, dict[Side, TensorEntry]]:
    """By module: its tensors by side. In one spelling, two names never give one place."""
    pairs: dict[str, dict[Side, TensorEntry]] = {}
    first: TensorKey | None = None
    for tensor in header.tensors:
        key = parse_key(tensor.name)
        first = first or key
        check_spelling(tensor.name, key, first)
        _check_matrix(tensor)
        pairs.setdefault(key.module, {})[key.side] = tensor
    return pairs


def _check_matrix(tensor: TensorEntry) -> None:
    if tensor.dtype not in DTYPE_BYTES:
        raise UnsupportedAdapter(
            feature=f"the dtype {tensor.dtype}",
            where=f"{WEIGHTS_FILE}, tensor {tensor.name}",
            hint=f"save it as one of {', '.join(DTYPE_BYTES)}",
        )
    if len(tensor.shape) != 2:
        reason = f"a LoRA factor of a linear module has 2 axes, this has shape {list(tensor.shape)}"
        raise TensorRefused(tensor=tensor.name, reason=reason)


def _module(
    name: str, pair: Mapping[Side, TensorEntry], *, rank: int, alpha: float, use_rslora: bool
) -> LoraModule:
    if len(pair) != 2:
        (alone,) = pair.values()
        raise TensorRefused(tensor=alone.name, reason=f"module {name} lacks its other LoRA factor")
    lora_a, lora_b = pair["A"], pair["B"]  # (r, d_in), (d_out, r)
    for tensor, found in ((lora_a, lora_a.shape[0]), (lora_b, lora_b.shape[1])):
        if found != rank:
            raise RankMismatch(module=name, tensor=tensor.name, expected=rank, found=found)
    scaling = alpha / (math.sqrt(rank) if use_rslora else rank)
    return LoraModule(name, rank, alpha, scaling, lora_a, lora_b)
