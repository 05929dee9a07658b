"""Our own reading of a safetensors header, before any library opens the file.

Format (github.com/huggingface/safetensors#format): 8 bytes little-endian length N, N bytes of JSON
`{name: {dtype, shape, data_offsets}}`, then the tensors' bytes. safetensors 0.8 takes duplicate
keys, any name, extra fields and `[0, 10**15]`; we do not, and it opens whatever passes here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from app.domain.adapter import TensorEntry
from app.domain.errors import MalformedSafetensors, PickleRefused, TensorRefused
from app.intake.limits import Limits
from app.intake.names import MODULE_PATH, shown
from app.intake.strict_json import parse_json

DTYPE_BITS: Mapping[str, int] = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "C64": 64,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "BOOL": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
"""Bits of one element of every dtype that safetensors 0.8 knows."""

LENGTH_BYTES = 8
MAX_DIM = 2**40  # because no real axis is longer, and a product of 8 stays a small Python int
PICKLE_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
ZIP_MAGIC = b"PK\x03\x04"  # because torch.save writes a zip with a pickle inside
TENSOR_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


@dataclass(frozen=True)
class Header:
    """What a safetensors file says it holds; the byte ranges are checked against its size."""

    tensors: tuple[TensorEntry, ...]  # in the order of their bytes
    metadata: Mapping[str, str]
    header_bytes: int  # the length field and the JSON: where the tensors' bytes begin


def read_header(file: BinaryIO, size_bytes: int, *, file_name: str, limits: Limits) -> Header:
    """Read and check the header of an open file of `size_bytes`; no tensor byte is read.

    `TensorEntry.begin` and `.end` are bytes from the start of the file.
    Raises PickleRefused, MalformedSafetensors, TensorRefused.
    """
    try:
        table = _read_table(file, size_bytes, file_name, limits)
        header_bytes = file.tell()
        metadata = _metadata(table.pop("__metadata__", {}))
        if len(table) > limits.tensors:
            raise ValueError(f"{len(table)} tensors are over the limit of {limits.tensors}")
        tensors = [_entry(name, said, header_bytes, limits) for name, said in table.items()]
        tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
        _check_coverage(tensors, header_bytes, size_bytes)
    except ValueError as fault:
        raise MalformedSafetensors(file=file_name, reason=str(fault)) from None
    return Header(tuple(tensors), metadata, header_bytes)


def _read_table(
    file: BinaryIO, size_bytes: int, file_name: str, limits: Limits
) -> dict[str, object]:
    """The header's JSON object; the file stands at the first tensor byte afterwards."""
    start = file.read(LENGTH_BYTES + 1)
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    fault = _length_fault(start, length, size_bytes, limits)
    if fault:
        # Only now, because a sound header of 640 bytes also begins with 80 02, as a pickle does.
        if start.startswith((*PICKLE_PROTOCOLS, ZIP_MAGIC)):
            raise PickleRefused(file=file_name)
        raise ValueError(fault)
    raw = start[LENGTH_BYTES:] + file.read(length - 1)
    if len(raw) != length:
        raise ValueError("the file is cut short inside the header")
    # A root that begins with "{" and parses is an object.
    return cast(dict[str, object], parse_json(raw, depth=limits.json_depth))


def _length_fault(start: bytes, length: int, size_bytes: int, limits: Limits) -> str | None:
    if len(start) < LENGTH_BYTES:
        return f"{size_bytes} bytes are too few for a header"
    if length > limits.header_bytes:
        return f"a header of {length} bytes is over the limit of {limits.header_bytes}"
    if length > size_bytes - LENGTH_BYTES:
        return f"the header says {length} bytes, the file has {size_bytes}: it is cut short"
    if start[LENGTH_BYTES:] != b"{" or length < len("{}"):
        return "the header does not begin with {"
    return None


def _metadata(said: object) -> Mapping[str, str]:
    if not isinstance(said, dict):
        raise ValueError("__metadata__ is not an object")
    for key, value in said.items():
        if not isinstance(value, str):
            raise ValueError(f"__metadata__ {shown(key)[:100]} is not a string")
    return said


def _entry(name: str, said: object, header_bytes: int, limits: Limits) -> TensorEntry:
    _check_name(name, limits)
    label = f"tensor {shown(name)}"
    if not isinstance(said, dict) or said.keys() != TENSOR_FIELDS:
        raise ValueError(f"{label} must have dtype, shape and data_offsets, and nothing else")
    dtype = said["dtype"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise ValueError(f"{label} has the unknown dtype {shown(str(dtype))[:40]}")
    shape = _sizes(said["shape"], f"{label}, shape", limits.dims)
    offsets = _sizes(said["data_offsets"], f"{label}, data_offsets", 2)
    if len(offsets) != 2:
        raise ValueError(f"{label} must have two data_offsets")
    begin, end = offsets
    _check_size(name, dtype, shape, end - begin, limits)
    return TensorEntry(name, dtype, shape, header_bytes + begin, header_bytes + end)


def _check_name(name: str, limits: Limits) -> None:
    if len(name) > limits.name_chars:
        reason = f"its name is over the limit of {limits.name_chars} characters"
    elif limits.strict_names and name.count(".") >= limits.name_parts:
        reason = f"its name is over the limit of {limits.name_parts} parts"
    elif limits.strict_names and not MODULE_PATH.fullmatch(name):
        reason = "a name is parts of letters, digits, _ and - with one dot between them"
    else:
        return
    raise TensorRefused(tensor=shown(name), reason=reason)


def _sizes(said: object, label: str, most: int) -> tuple[int, ...]:
    """A list of at most `most` whole numbers in [0, MAX_DIM]; `true` is no number."""
    if not isinstance(said, list) or len(said) > most:
        raise ValueError(f"{label} must be a list of at most {most} numbers")
    for number in said:
        if type(number) is not int or not 0 <= number <= MAX_DIM:
            raise ValueError(f"{label} must hold whole numbers in [0, {MAX_DIM}]")
    return tuple(said)


def _check_size(
    name: str, dtype: str, shape: tuple[int, ...], size_bytes: int, limits: Limits
) -> None:
    bits = math.prod(shape) * DTYPE_BITS[dtype]
    if bits != 8 * size_bytes:
        raise ValueError(
            f"tensor {shown(name)} of shape {list(shape)} in {dtype} has {bits} bits, "
            f"its data_offsets have {size_bytes} bytes"
        )
    if bits == 0 and not limits.zero_size_tensors:
        raise TensorRefused(tensor=shown(name), reason=f"shape {list(shape)} holds no element")


def _check_coverage(tensors: list[TensorEntry], header_bytes: int, size_bytes: int) -> None:
    """Every byte after the header belongs to exactly one tensor."""
    at = header_bytes
    for tensor in tensors:
        if tensor.begin != at:
            what = "overlaps the one before it" if tensor.begin < at else "leaves a hole before it"
            raise ValueError(f"tensor {shown(tensor.name)} {what}")
        at = tensor.end
    if at > size_bytes:
        raise ValueError(f"the file is cut short: {at - size_bytes} bytes are missing at its end")
    if at < size_bytes:
        raise ValueError(f"the file is padded: {size_bytes - at} bytes at its end are no tensor's")
