"""Adapters, checkpoints and archives made by hand, byte by byte, for the tests of intake."""

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from app.domain.adapter import CONFIG_FILE, WEIGHTS_FILE
from app.intake.safetensors_header import DTYPE_BITS

Q_PROJ = "model.layers.0.self_attn.q_proj"

CONFIG: Mapping[str, object] = {
    "base_model_name_or_path": "org/base",
    "bias": "none",
    "lora_alpha": 16,
    "peft_type": "LORA",
    "r": 2,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
}


def config_bytes(**changes: object) -> bytes:
    return json.dumps({**CONFIG, **changes}).encode()


def frame(header: object, data: bytes = b"") -> bytes:
    """A safetensors file of a header (JSON text, or what becomes it) and the tensors' bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def field(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def weights(
    shapes: Iterable[tuple[str, list[int]]], dtype: str = "F32", metadata: object = None
) -> bytes:
    """A sound safetensors file with tensors of these names and shapes, all bytes 1."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, shape in shapes:
        size = DTYPE_BITS[dtype] // 8
        for dim in shape:
            size *= dim
        header[name] = field(dtype, shape, at, at + size)
        at += size
    return frame(header, b"\x01" * at)


def pair(
    module: str = Q_PROJ, rank: int = 2, d_in: int = 6, d_out: int = 4
) -> list[tuple[str, list[int]]]:
    prefix = f"base_model.model.{module}"
    return [(f"{prefix}.lora_A.weight", [rank, d_in]), (f"{prefix}.lora_B.weight", [d_out, rank])]


GOOD_WEIGHTS = weights(pair())


def adapter(
    folder: Path,
    config: bytes | None = None,
    weights: bytes = GOOD_WEIGHTS,
    **others: bytes,
) -> Path:
    """An adapter in `folder`, sound unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_bytes(config_bytes() if config is None else config)
    (folder / WEIGHTS_FILE).write_bytes(weights)
    for name, content in others.items():
        (folder / name).write_bytes(content)
    return folder


GOOD_FILES: Mapping[str, bytes] = {CONFIG_FILE: config_bytes(), WEIGHTS_FILE: GOOD_WEIGHTS}


def zipped(
    entries: Mapping[str, bytes] | Iterable[tuple[str | zipfile.ZipInfo, bytes]],
    method: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    listed = entries.items() if isinstance(entries, Mapping) else entries
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in listed:
            archive.writestr(name, content)
    return out.getvalue()


def tarred(
    entries: Mapping[str, bytes] | Iterable[tuple[tarfile.TarInfo, bytes]],
    mode: str = "w",
    tar_format: int = tarfile.PAX_FORMAT,
) -> bytes:
    listed = (
        [(tarfile.TarInfo(name), content) for name, content in entries.items()]
        if isinstance(entries, Mapping)
        else entries
    )
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tar_format) as archive:
        for info, content in listed:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def checkpoint(
    folder: Path,
    shapes: Iterable[tuple[str, list[int]]],
    *,
    model_type: str | None = "llama",
    dtype: str = "BF16",
) -> Path:
    """A checkpoint of one file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "model.safetensors").write_bytes(weights(shapes, dtype))
    return folder
