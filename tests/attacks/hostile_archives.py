"""Hostile zips and tars."""

import gzip
import pickle
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

from app.domain import errors as e
from app.domain.adapter import CONFIG_FILE, README_FILE
from tests.attacks.hostile import Hostile, torch_zip
from tests.intake.files import GOOD_FILES, tarred, zipped


def zip_info(name: str, **changes: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name  # because the constructor would cut at a NUL
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def one_zip(name: str, content: bytes = b"x", **changes: int) -> Callable[[], bytes]:
    return lambda: zipped([*GOOD_FILES.items(), (zip_info(name, **changes), content)])


def one_tar(name: str, kind: bytes = tarfile.REGTYPE, **changes: object) -> Callable[[], bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in changes.items():
        setattr(info, key, value)
    good = [(tarfile.TarInfo(name), content) for name, content in GOOD_FILES.items()]
    return lambda: tarred([*good, (info, b"")], tar_format=tarfile.GNU_FORMAT)


def patched(raw: bytes, old: bytes, new: bytes) -> bytes:
    assert old in raw
    assert len(old) == len(new)
    return raw.replace(old, new)


def flagged() -> bytes:
    """A zip whose entries say that they are encrypted, in both headers."""
    raw = bytearray(zipped(GOOD_FILES))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        begin = -1
        while (begin := raw.find(magic, begin + 1)) >= 0:
            raw[begin + at] |= 1
    return bytes(raw)


def zip_bomb() -> bytes:
    return zipped({**GOOD_FILES, README_FILE: bytes(2 << 20)})


def lying_zip() -> bytes:
    """A README of 2 MiB whose declared size is one byte: what comes out must still be sound."""
    raw = zip_bomb()
    return patched(raw, struct.pack("<L", 2 << 20), struct.pack("<L", 1))


def wide_directory() -> bytes:
    return zipped([(f"{n}.txt", b"") for n in range(3000)])


def twenty_entries() -> bytes:
    """Twenty times the root, written under twenty names that are then made one."""
    raw = zipped([(f"{chr(97 + n)}/", b"") for n in range(20)])
    for n in range(20):
        raw = patched(raw, f"{chr(97 + n)}/".encode(), b"./")
    return raw


def zip64() -> bytes:
    """A zip64 end record, well formed but for its directory of 2**60 bytes."""
    raw = zipped(GOOD_FILES)
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, 2**60, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(raw) - 22, 1)
    return raw[:-22] + record + locator + raw[-22:]


def two_entries(name: str) -> bytes:
    """The same entry twice; written as two names of equal length, then made one."""
    other = "X" + name[1:]
    raw = zipped([*GOOD_FILES.items(), (other, b"again")])
    return patched(raw, other.encode(), name.encode())


def tar_header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % (sum(block) + 8 * 32)
    return bytes(block)


def pax(record: str) -> bytes:
    body = f"{len(record) + 4:02d} {record}\n".encode()
    header = tar_header(b"pax", b"%011o\0" % len(body), b"x")
    return header + body.ljust(512, b"\0") + tarred(GOOD_FILES)


def twice() -> bytes:
    pairs = [(tarfile.TarInfo(CONFIG_FILE), b"{}"), (tarfile.TarInfo(CONFIG_FILE), b"{}")]
    return tarred(pairs)


UNSAFE = e.UnsafeArchive
ARCHIVES = [
    Hostile("no archive", lambda: b"hello" * 200, UNSAFE, "first bytes"),
    Hostile("nothing", lambda: b"", UNSAFE, "first bytes"),
    Hostile("7z, as in nullifAI", lambda: b"7z\xbc\xaf\x27\x1c" + bytes(600), UNSAFE,
            "first bytes"),
    Hostile("a pickle", lambda: pickle.dumps({"a": 1}), e.PickleRefused, "archive"),
    Hostile("a torch file", torch_zip, e.PickleRefused, "data.pkl"),
    Hostile("a pickle in a zip", one_zip("adapter_model.bin"), e.PickleRefused,
            "adapter_model.bin"),
    Hostile("a pickle in a tar", one_tar("./x.PT"), e.PickleRefused, "x.PT"),
    Hostile("a zip in a zip", one_zip("inner.zip", zipped(GOOD_FILES)), e.UnexpectedFile,
            "inner.zip"),
    Hostile("__MACOSX", one_zip("__MACOSX/._adapter_config.json"), e.UnexpectedFile, "__MACOSX"),
    Hostile("a folder in a zip", one_zip("adapter/"), e.UnexpectedFile, "adapter/"),
    Hostile("files in a folder", lambda: zipped({"a/" + n: c for n, c in GOOD_FILES.items()}),
            e.UnexpectedFile, "root"),
    Hostile("a zip that climbs", one_zip("../evil.sh"), UNSAFE, "../evil.sh"),
    Hostile("a zip that climbs late", one_zip("a/../../README.md"), UNSAFE, "a/../../README.md"),
    Hostile("an absolute name", one_zip("/README.md"), UNSAFE, "/README.md"),
    Hostile("a drive", one_zip("C:README.md"), UNSAFE, "C:README.md"),
    Hostile("a backslash", one_zip("..\\README.md"), UNSAFE, "README.md"),
    Hostile("a NUL in a zip's name", lambda: patched(
        one_zip("README.md.exe")(), b"README.md.exe", b"README.md\0exe"), UNSAFE,
            r"README.md\x00exe"),
    Hostile("a newline in a name", one_zip("README.md\n"), UNSAFE, r"README.md\n"),
    Hostile("././README.md", one_zip("././README.md"), e.UnexpectedFile, "././README.md"),
    Hostile("another case", one_zip("readme.MD"), e.UnexpectedFile, "readme.MD"),
    Hostile("a link in a zip", one_zip(README_FILE, b"/etc/passwd",
                                       external_attr=(stat.S_IFLNK | 0o777) << 16), UNSAFE, "link"),
    Hostile("a device in a zip", one_zip(README_FILE, external_attr=stat.S_IFCHR << 16),
            UNSAFE, README_FILE),
    Hostile("an encrypted zip", flagged, UNSAFE, "encrypted"),
    Hostile("bzip2 in a zip", lambda: zipped(GOOD_FILES, zipfile.ZIP_BZIP2), UNSAFE, "deflated"),
    Hostile("lzma in a zip", lambda: zipped(GOOD_FILES, zipfile.ZIP_LZMA), UNSAFE, "deflated"),
    Hostile("a name twice in a zip", lambda: two_entries(CONFIG_FILE), UNSAFE, "twice"),
    Hostile("a zip bomb", zip_bomb, e.TooLarge, README_FILE),
    Hostile("a zip that lies about its sizes", lying_zip, UNSAFE, README_FILE),
    Hostile("3,000 entries", wide_directory, UNSAFE, "directory"),
    Hostile("20 entries", twenty_entries, UNSAFE, "16 entries"),
    Hostile("a zip64 directory of 2**60 bytes", zip64, UNSAFE, "zip64"),
    Hostile("a zip cut short", lambda: zipped(GOOD_FILES)[:-1], UNSAFE, "its end"),
    Hostile("a zip with a tail", lambda: zipped(GOOD_FILES) + b"x", UNSAFE, "its end"),
    Hostile("a zip with a start of another file",
            lambda: b"PK\x03\x04" + zipped(GOOD_FILES), UNSAFE, "directory"),
    Hostile("wrong bytes in a zip", lambda: patched(
        zipped(GOOD_FILES, zipfile.ZIP_STORED), b"CAUSAL_LM", b"CAUSAL_LN"), UNSAFE, CONFIG_FILE),
    Hostile("a tar that climbs", one_tar("../evil.sh"), UNSAFE, "../evil.sh"),
    Hostile("an absolute name in a tar", one_tar("/etc/passwd"), UNSAFE, "/etc/passwd"),
    Hostile("a link in a tar", one_tar(README_FILE, tarfile.SYMTYPE, linkname="/etc/passwd"),
            UNSAFE, "link"),
    Hostile("a hard link", one_tar(README_FILE, tarfile.LNKTYPE, linkname=CONFIG_FILE),
            UNSAFE, "hard link"),
    Hostile("a device in a tar", one_tar(README_FILE, tarfile.CHRTYPE), UNSAFE, "device"),
    Hostile("a pipe in a tar", one_tar(README_FILE, tarfile.FIFOTYPE), UNSAFE, "pipe"),
    Hostile("a sparse file", one_tar(README_FILE, b"S"), UNSAFE, "sparse"),
    Hostile("a folder in a tar", one_tar("adapter", tarfile.DIRTYPE), e.UnexpectedFile, "adapter"),
    Hostile("a long name", one_tar("x" * 300), UNSAFE, "long name"),
    Hostile("an unknown kind", one_tar(README_FILE, b"Z"), UNSAFE, README_FILE),
    Hostile("a name twice in a tar", twice, UNSAFE, "twice"),
    Hostile("a NUL in a tar's name",
            lambda: tar_header(b"README.md\0.exe", b"%011o\0" % 0) + bytes(1024), UNSAFE,
            r"README.md\x00.exe"),
    Hostile("a pax header that renames", lambda: pax("path=../evil"), UNSAFE, "overrules path"),
    Hostile("a pax header that resizes", lambda: pax("size=99999999"), UNSAFE, "overrules size"),
    Hostile("a pax sparse file", lambda: pax("GNU.sparse.size=9999999"), UNSAFE, "overrules GNU"),
    Hostile("a broken pax header", lambda: pax("no equals sign"), UNSAFE, "pax header is broken"),
    Hostile("a pax header of 8 GiB",
            lambda: tar_header(b"pax", b"77777777777\0", b"x") + bytes(512), UNSAFE, "pax header"),
    Hostile("a size of base 256", lambda: tar_header(README_FILE.encode(), b"\x80" + b"\xff" * 11),
            UNSAFE, "octal"),
    Hostile("a negative size", lambda: tar_header(README_FILE.encode(), b"-0000000001\0"),
            UNSAFE, "octal"),
    Hostile("a wrong checksum", lambda: patched(
        tarred(GOOD_FILES), b"adapter_config", b"adapter_confih"),
            UNSAFE, "checksum"),
    Hostile("a tar cut short", lambda: tarred(GOOD_FILES)[:700], UNSAFE, "cut short"),
    Hostile("a tar without an end", lambda: tar_header(README_FILE.encode(), b"%011o\0" % 0),
            UNSAFE, "cut short"),
    Hostile("a tar with a tail", lambda: tarred(GOOD_FILES) + b"x", UNSAFE, "follows"),
    Hostile("endless zeros after a tar", lambda: gzip.compress(tarred(GOOD_FILES) + bytes(4 << 20)),
            UNSAFE, "follows"),
    Hostile("endless zeros for a tar", lambda: gzip.compress(bytes(64 << 20)), UNSAFE, "follows"),
    Hostile("a gzip bomb", lambda: tarred({**GOOD_FILES, README_FILE: bytes(8 << 20)}, "w:gz"),
            e.TooLarge, README_FILE),
    Hostile("a gzip cut short", lambda: tarred(GOOD_FILES, "w:gz")[:-9], UNSAFE, "gzip"),
    Hostile("a gzip with a tail", lambda: tarred(GOOD_FILES, "w:gz") + b"x", UNSAFE, "gzip"),
    Hostile("a gzip of nothing", lambda: gzip.compress(b""), UNSAFE, "cut short"),
    Hostile("a gzip in a gzip", lambda: gzip.compress(tarred(GOOD_FILES, "w:gz")), UNSAFE, ""),
    Hostile("20 folders in a tar", lambda: tar_header(b"./", b"%011o\0" % 0, b"5") * 20, UNSAFE,
            "16 entries"),
]  # fmt: skip
