"""Which bytes an alignment comes from: where they lie, and what they are."""

import os
from typing import NamedTuple

from app.alignment.difference import Difference
from app.storage.alignment_cache import AlignmentCache, is_settled
from workers.checkpoints import FileWeight, as_bytes


class Source(NamedTuple):
    """The bytes of one difference by where they lie; the same as long as the files are."""

    files: tuple[tuple[int, ...], ...]  # of each piece: device, inode, size, times, begin, end
    shape: tuple[int, int]
    transposed: bool
    dtypes: str
    settled: bool  # False where a file changed so recently that it may again, unseen


def source_of(v: Difference) -> Source:
    files, settled = [], True
    for weight in _weights(v):
        for descriptor, begin, end in weight.pieces:
            stat = os.fstat(descriptor)
            times = (stat.st_mtime_ns, stat.st_ctime_ns)
            files.append((stat.st_dev, stat.st_ino, stat.st_size, *times, begin, end))
            settled = settled and is_settled(max(times))
    return Source(tuple(files), v.chat.shape, v.transposed, _dtypes(v), settled)


def content_digest(v: Difference, cache: AlignmentCache) -> str:
    """Over the very bytes of the two weights."""
    said = f"{v.chat.shape} {v.transposed} {_dtypes(v)}"
    return cache.digest([said.encode(), *(_digest(w, v, cache) for w in _weights(v))])


def content_name(content: str, form: str, cache: AlignmentCache) -> str:
    """An entry's name: what it was made from, and what was made of that."""
    return cache.digest([form.encode(), content.encode()])


def source_name(source: Source, form: str, cache: AlignmentCache) -> str:
    """The name under which the cache remembers a source's entry."""
    return cache.digest([form.encode(), repr(source[:-1]).encode()])


def _digest(weight: FileWeight, v: Difference, cache: AlignmentCache) -> bytes:
    hasher = cache.hasher()
    for rows in v.blocks():
        hasher.update(as_bytes(weight.rows(rows.start, rows.stop)))
    return hasher.digest()


def _weights(v: Difference) -> tuple[FileWeight, FileWeight]:
    if isinstance(v.chat, FileWeight) and isinstance(v.base, FileWeight):
        return v.chat, v.base
    raise TypeError("only weights in files have a source")


def _dtypes(v: Difference) -> str:
    return f"{v.chat.dtype} {v.base.dtype}"
