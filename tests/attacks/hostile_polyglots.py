"""Files that are two things at once, archives in archives, and names that collide."""

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable

from app.domain import errors as e
from app.domain.adapter import CONFIG_FILE, README_FILE, WEIGHTS_FILE
from tests.attacks.hostile import Hostile, torch_zip
from tests.attacks.hostile_archives import one_tar, one_zip, patched, tar_header
from tests.attacks.hostile_weights import LORA, A, B, raw_header, tensors
from tests.intake.files import (
    GOOD_FILES,
    GOOD_WEIGHTS,
    config_bytes,
    field,
    frame,
    pair,
    tarred,
    weights,
    zipped,
)

MALFORMED, UNSAFE, UNEXPECTED = e.MalformedSafetensors, e.UnsafeArchive, e.UnexpectedFile
TENSOR, KIND = e.TensorRefused, e.UnsupportedAdapter
MIB = 1 << 20


def renamed(old: str, new: str) -> Callable[[], bytes]:
    """The sound weights with a part of each name changed."""
    return lambda: weights([(name.replace(old, new), shape) for name, shape in pair()])


def beside(name: str, shape: list[int] | None = None) -> Callable[[], bytes]:
    """The sound weights and one tensor more."""
    return lambda: weights([*pair(), (name, shape or [2, 6])])


def swapped_directory() -> bytes:
    """A zip whose directory and local header call the same entry differently."""
    raw = zipped({**GOOD_FILES, "README.mx": b"x"})
    at = raw.rindex(b"README.mx")
    return raw[:at] + b"README.md" + raw[at + 9 :]


def overlapping_entries() -> bytes:
    """A zip whose two directory records point at one local header."""
    raw = bytearray(zipped([*GOOD_FILES.items(), (README_FILE, b"x")], zipfile.ZIP_STORED))
    last = raw.rindex(b"PK\x01\x02")
    raw[last + 42 : last + 46] = struct.pack("<L", 0)
    return bytes(raw)


def many_members() -> bytes:
    return b"".join(gzip.compress(part) for part in (tarred(GOOD_FILES), bytes(512)))


def gzip_named_like_a_path() -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile("../../etc/passwd", "wb", fileobj=out) as packed:
        packed.write(b"no tar at all" * 100)
    return out.getvalue()


def times_deep(count: int, wrap: Callable[[bytes], bytes], inner: bytes) -> bytes:
    for _ in range(count):
        inner = wrap(inner)
    return inner


def archive_of(name: str, content: bytes) -> bytes:
    return zipped({**GOOD_FILES, name: content})


WEIGHT_ROWS = [
    Hostile("safetensors, then a tar", lambda: GOOD_WEIGHTS + tarred(GOOD_FILES), MALFORMED,
            "padded"),
    Hostile("safetensors, then safetensors", lambda: GOOD_WEIGHTS * 2, MALFORMED, "padded"),
    Hostile("safetensors, then a torch file", lambda: GOOD_WEIGHTS + torch_zip(), MALFORMED,
            "padded"),
    Hostile("safetensors after a zip", lambda: zipped(GOOD_FILES) + GOOD_WEIGHTS, e.PickleRefused,
            WEIGHTS_FILE),
    Hostile("safetensors in gzip", lambda: gzip.compress(GOOD_WEIGHTS), MALFORMED, "limit"),
    Hostile("a GGUF file", lambda: b"GGUF" + struct.pack("<LQQ", 3, 1, 1), MALFORMED, "limit"),
    Hostile("an ELF file", lambda: b"\x7fELF\2\1\1" + bytes(57), MALFORMED, "limit"),
    Hostile("an HDF5 file", lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), MALFORMED, "limit"),
    Hostile("a NumPy file", lambda: b"\x93NUMPY\1\0v\0{'descr': '|O'}", MALFORMED, "limit"),
    Hostile("a script", lambda: b"#!/bin/sh\nrm -rf ~\n", MALFORMED, "limit"),
    Hostile("a length of big endian", lambda: struct.pack(">Q", 2) + b"{}", MALFORMED, "limit"),
    Hostile("a length of 2**63", lambda: struct.pack("<Q", 2**63) + b"{}", MALFORMED, "limit"),
    Hostile("a length one too short",
            lambda: struct.pack("<Q", len(json.dumps(LORA)) - 1) + json.dumps(LORA).encode(),
            MALFORMED, "delimiter"),
    Hostile("a header of spaces", lambda: frame(b"{" + b" " * 100_000), MALFORMED, "Expecting"),
    Hostile("a header that ends in NULs", lambda: raw_header(json.dumps(LORA) + "\0" * 8),
            MALFORMED, "Extra data"),
    Hostile("a name twice, once escaped", lambda: raw_header('{"a":1,"\\u0061":2}'), MALFORMED,
            "duplicate key a"),
    Hostile("offsets twice", lambda: raw_header(
        json.dumps(LORA).replace('"data_offsets"', '"data_offsets": [0, 0], "data_offsets"')),
            MALFORMED, "duplicate key data_offsets"),
    Hostile("offsets below zero", lambda: tensors(data_offsets=[-32, 0]), MALFORMED, B),
    Hostile("offsets of 2**64 - 1", lambda: tensors(data_offsets=[2**64 - 32, 2**64 - 1]),
            MALFORMED, B),
    Hostile("offsets that wrap to their place",
            lambda: tensors(data_offsets=[2**64 + 48, 2**64 + 80]), MALFORMED, B),
    Hostile("offsets of floats", lambda: tensors(data_offsets=[48.0, 80.0]), MALFORMED, B),
    Hostile("nested offsets", lambda: tensors(data_offsets=[[48], [80]]), MALFORMED, B),
    Hostile("null offsets", lambda: tensors(data_offsets=None), MALFORMED, B),
    Hostile("a product that wraps to the size",
            lambda: tensors(shape=[2**33, 2**31 + 1, 4, 2]), MALFORMED, B),
    Hostile("a product of 2**320", lambda: tensors(shape=[2**40] * 8), MALFORMED, B),
    Hostile("a thousand dimensions", lambda: tensors(shape=[1] * 1000), MALFORMED, B),
    Hostile("a shape of minus zero", lambda: raw_header(
        json.dumps(LORA).replace("[4, 2]", "[-0, 2]")), MALFORMED, "-0"),
    Hostile("a shape that is an object", lambda: tensors(shape={"0": 4}), MALFORMED, B),
    Hostile("a null dtype", lambda: tensors(dtype=None), MALFORMED, B),
    Hostile("a dtype in small letters", lambda: tensors(dtype="f32"), MALFORMED, "f32"),
    Hostile("a dtype with a NUL", lambda: tensors(dtype="F32\0"), MALFORMED, "F32"),
    Hostile("a dtype of half a byte", lambda: tensors(dtype="F4"), MALFORMED, B),
    Hostile("bits that are no whole bytes", lambda: tensors(dtype="F4", shape=[3, 21]), MALFORMED,
            B),
    Hostile("factors of two dtypes, one of them whole numbers", lambda: frame(
        {A: LORA[A], B: field("I32", [4, 2], 48, 80)}, bytes(80)), KIND, "I32"),
    Hostile("complex factors", lambda: weights(pair(), "C64"), KIND, "C64"),
    Hostile("a tensor of no axis and no byte", lambda: frame({A: field("F32", [], 0, 0)}),
            MALFORMED, A),
    Hostile("an axis of nothing", lambda: weights([(A, [0, 6]), (B, [4, 0])]), TENSOR,
            "no element"),
    Hostile("metadata as a list", lambda: frame({**LORA, "__metadata__": []}, bytes(80)),
            MALFORMED, "__metadata__"),
    Hostile("metadata as a tensor", lambda: frame({"__metadata__": LORA[A]}, bytes(48)),
            MALFORMED, "__metadata__"),
    Hostile("metadata with a lone surrogate",
            lambda: raw_header('{"__metadata__":{"a":"\\udc00"}}', 0), MALFORMED, "surrogate"),
    Hostile("metadata in other letters", beside("__Metadata__"), TENSOR, "__Metadata__"),
    Hostile("a name in other letters", renamed("lora_A", "LORA_A"), TENSOR,
            "other LoRA factor"),
    Hostile("a name with letters of full width", renamed("lora_A", "\uff4cora_A"), TENSOR, "name"),
    Hostile("a name with a mark on a letter", renamed("q_proj", "q\u0301_proj"), TENSOR, "name"),
    Hostile("a name with a space that is not seen", renamed("q_proj", "q_\u200bproj"), TENSOR,
            r"\u200b"),
    Hostile("a name with a Greek o", renamed("lora_A", "l\u03bfra_A"), TENSOR, "name"),
    Hostile("a name with a NUL", renamed("q_proj", "q_proj\0"), TENSOR, r"\x00"),
    Hostile("a name with a slash", renamed("self_attn.q", "self_attn/q"), TENSOR, "name"),
    Hostile("a name of 33 parts", lambda: weights(pair("a." * 28 + "q")), TENSOR, "32 parts"),
    Hostile("a second module in other letters, half",
            beside("base_model.model.model.layers.0.self_attn.Q_PROJ.lora_A.weight"), TENSOR,
            "other LoRA factor"),
    Hostile("a factor twice, once with the adapter's name",
            beside(A.replace(".weight", ".default.weight")), KIND, "adapter's name"),
    Hostile("a key of kohya's beside sound ones", beside("lora_unet_x.lora_up.weight"), KIND,
            "kohya"),
    Hostile("an alpha in a tensor", beside("base_model.model.q.alpha", [1]), KIND, "kohya"),
    Hostile("a buffer", beside("base_model.model.model.rotary_emb.inv_freq", [4]), TENSOR,
            "inv_freq"),
]  # fmt: skip
ARCHIVE_ROWS = [
    Hostile("a torch file as the weights",
            lambda: zipped({CONFIG_FILE: config_bytes(), WEIGHTS_FILE: torch_zip()}),
            e.PickleRefused, WEIGHTS_FILE),
    Hostile("a zip as the weights",
            lambda: zipped({CONFIG_FILE: config_bytes(), WEIGHTS_FILE: zipped(GOOD_FILES)}),
            e.PickleRefused, WEIGHTS_FILE),
    Hostile("the weights as the configuration",
            lambda: zipped({CONFIG_FILE: GOOD_WEIGHTS, WEIGHTS_FILE: GOOD_WEIGHTS}),
            e.ConfigRefused, "JSON"),
    Hostile("the configuration as the weights",
            lambda: zipped({CONFIG_FILE: config_bytes(), WEIGHTS_FILE: config_bytes()}), MALFORMED,
            "limit"),
    Hostile("a README of NULs", lambda: archive_of(README_FILE, b"# x\0"), UNEXPECTED, "NUL"),
    Hostile("a README that is no text", lambda: archive_of(README_FILE, b"\xff\xfe\x00"),
            UNEXPECTED, "UTF-8"),
    Hostile("a README of a megabyte and more", lambda: archive_of(README_FILE, b"x" * (MIB + 1)),
            e.TooLarge, README_FILE),
    Hostile("no weights", lambda: zipped({CONFIG_FILE: config_bytes()}), e.MissingFile,
            WEIGHTS_FILE),
    Hostile("no configuration", lambda: tarred({WEIGHTS_FILE: GOOD_WEIGHTS}), e.MissingFile,
            CONFIG_FILE),
    Hostile("a zip of nothing", lambda: zipped({}), e.MissingFile, CONFIG_FILE),
    Hostile("a tar of nothing", lambda: tarred({}), UNSAFE, "first bytes"),
    Hostile("a zip after safetensors", lambda: GOOD_WEIGHTS + zipped(GOOD_FILES), UNSAFE,
            "first bytes"),
    Hostile("a zip after a script", lambda: b"#!/bin/sh\n" + zipped(GOOD_FILES), UNSAFE,
            "first bytes"),
    Hostile("a zip after a picture", lambda: b"GIF89a" + bytes(300) + zipped(GOOD_FILES), UNSAFE,
            "first bytes"),
    Hostile("a zip, then a zip", lambda: zipped(GOOD_FILES) * 2, UNSAFE, "directory"),
    Hostile("a zip, then a tar", lambda: zipped(GOOD_FILES) + tarred(GOOD_FILES), UNSAFE,
            "its end"),
    Hostile("a tar, then a tar", lambda: tarred(GOOD_FILES) * 2, UNSAFE, "follows"),
    Hostile("a tar, then a zip", lambda: tarred(GOOD_FILES) + zipped(GOOD_FILES), UNSAFE,
            "follows"),
    Hostile("a zip in gzip", lambda: gzip.compress(zipped(GOOD_FILES)), UNSAFE, ""),
    Hostile("a tar in gzip, five times",
            lambda: times_deep(5, gzip.compress, tarred(GOOD_FILES)), UNSAFE, ""),
    Hostile("a zip in a zip, five times",
            lambda: times_deep(5, lambda raw: zipped({"a.zip": raw}), zipped(GOOD_FILES)),
            UNEXPECTED, "a.zip"),
    Hostile("a tar in a tar", lambda: tarred({"inner.tar": tarred(GOOD_FILES)}), UNEXPECTED,
            "inner.tar"),
    Hostile("gzip in a zip", one_zip("x.tar.gz", tarred(GOOD_FILES, "w:gz")), UNEXPECTED,
            "x.tar.gz"),
    Hostile("a tar in bzip2", lambda: bz2.compress(tarred(GOOD_FILES)), UNSAFE, "first bytes"),
    Hostile("a tar in xz", lambda: lzma.compress(tarred(GOOD_FILES)), UNSAFE, "first bytes"),
    Hostile("a RAR", lambda: b"Rar!\x1a\x07\x01\x00" + bytes(600), UNSAFE, "first bytes"),
    Hostile("Zstandard", lambda: b"\x28\xb5\x2f\xfd" + bytes(600), UNSAFE, "first bytes"),
    Hostile("a gzip of several members", many_members, UNSAFE, "gzip"),
    Hostile("a gzip named like a path", gzip_named_like_a_path, UNSAFE, ""),
    Hostile("a gzip with a wrong checksum",
            lambda: tarred(GOOD_FILES, "w:gz")[:-8] + bytes(8), UNSAFE, "gzip"),
    Hostile("a gzip of 16 MiB of zeros in a file",
            lambda: tarred({**GOOD_FILES, CONFIG_FILE: bytes(16 * MIB)}, "w:gz"), e.TooLarge,
            CONFIG_FILE),
    Hostile("weights of 64 MiB in 64 KiB",
            lambda: zipped({CONFIG_FILE: config_bytes(), WEIGHTS_FILE: bytes(64 * MIB)}), UNSAFE,
            "200 times"),
    Hostile("two names for one entry", swapped_directory, UNSAFE, "broken"),
    Hostile("two entries in one place", overlapping_entries, UNSAFE, "broken"),
    Hostile("a name in other letters", one_zip("ADAPTER_CONFIG.JSON"), UNEXPECTED, "ADAPTER"),
    Hostile("a name with a mark on a letter", one_zip("README\u0301.md"), UNEXPECTED, "README"),
    Hostile("a name of full width", one_zip("\uff32EADME.md"), UNEXPECTED, "EADME"),
    Hostile("a name written from right to left", one_zip("\u202edm.EMDAER"), UNSAFE, r"\u202e"),
    Hostile("a name with a space after it", one_zip("README.md "), UNEXPECTED, "README.md "),
    Hostile("a name with a dot after it", one_zip("README.md."), UNEXPECTED, "README.md."),
    Hostile("a stream of a file", one_zip("README.md:x"), UNEXPECTED, "README.md:x"),
    Hostile("a device of another system", one_zip("CON"), UNEXPECTED, "CON"),
    Hostile("a share of another system", one_zip("\\\\host\\share\\README.md"), UNSAFE, "host"),
    Hostile("a name of dots", one_zip(".."), UNSAFE, ".."),
    Hostile("a name of nothing", one_zip(""), UNEXPECTED, ""),
    Hostile("a name of 60,000 letters", one_zip("x" * 60_000), UNEXPECTED, "xxx"),
    Hostile("a folder that climbs", one_zip("../"), UNSAFE, "../"),
    Hostile("code", one_zip("modeling_evil.py"), UNEXPECTED, "modeling_evil.py"),
    Hostile("a hidden file", one_zip(".bashrc"), UNEXPECTED, ".bashrc"),
    *(Hostile(f"a {suffix} in a zip", one_zip(f"optimizer{suffix}"), e.PickleRefused, suffix)
      for suffix in (".pt", ".PTH", ".ckpt", ".pkl", ".pickle")),
    Hostile("a link to a link", one_tar(CONFIG_FILE, tarfile.SYMTYPE, linkname=WEIGHTS_FILE),
            UNSAFE, "link"),
    Hostile("a long link", one_tar(README_FILE, b"K"), UNSAFE, "long link"),
    Hostile("a volume label", one_tar("x", b"V"), UNSAFE, "x"),
    Hostile("the rest of another volume", one_tar(README_FILE, b"M"), UNSAFE, README_FILE),
    Hostile("a folder with content",
            lambda: tar_header(b"./", b"%011o\0" % 512, b"5") + bytes(2048), UNSAFE, "plain file"),
    Hostile("a file larger than the tar", lambda: tar_header(WEIGHTS_FILE.encode(),
            b"%011o\0" % (1 << 30)) + bytes(1024), UNSAFE, "cut short"),
    Hostile("a tar's name with another case", one_tar("Readme.md"), UNEXPECTED, "Readme.md"),
    Hostile("a tar's name that is not UTF-8",
            lambda: tar_header(b"README\xff.md", b"%011o\0" % 0) + bytes(1024), UNSAFE, "README"),
    Hostile("wrong content in a zip's checksum", lambda: patched(
        zipped(GOOD_FILES, zipfile.ZIP_STORED), b'"r": 2', b'"r": 9'), UNSAFE, CONFIG_FILE),
]  # fmt: skip
