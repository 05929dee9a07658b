"""One module by its size and by the projector: time, memory, and what the cache keeps of it.

`python -m tests.benchmarks.sizes`: the table of docs/sizing.md, of this machine.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch

from app.domain.method import Method, ProjectorName
from app.storage import alignment_cache
from app.storage.alignment_cache import AlignmentCache
from tests.benchmarks.measure import MIB, peak_anonymous, seconds
from tests.benchmarks.modules import Bench, make_pair, module
from workers.checkpoints import open_pair

SIZES = ((1024, 1024), (2048, 2048), (4096, 4096), (11008, 4096))
PROJECTORS: Sequence[ProjectorName] = ("approximate", "subspace")


def main() -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    alignment_cache.RECENT_S = 0.0  # the files do not change any more
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, bf16, r = 8")
    print("| module | projector | computed and kept | from the cache | memory | kept |")
    print("|---|---|---:|---:|---:|---:|")
    for size in SIZES:
        for projector in PROJECTORS:
            print(row(size, projector), flush=True)


def row(size: tuple[int, int], projector: ProjectorName) -> str:
    """In a process that has done smaller ones before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        modules = [module("0.m", size)]
        with open_pair(*reversed(make_pair(folder, modules))) as models:
            bench = Bench(models, modules, folder, AlignmentCache(folder / "cache", 100 << 30))
            with peak_anonymous() as peak:
                before = peak[0]
                computed = min(_pass(bench, projector, fresh=True) for _ in range(2))
            cached = min(_pass(bench, projector) for _ in range(3))
        kept = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file())
    memory = (peak[0] - before) / MIB
    shown = f"{computed * 1e3:,.0f} ms | {cached * 1e3:,.1f} ms"
    size_of = f"{memory:,.0f} MiB | {kept / MIB:,.0f} MiB"
    return f"| {size[0]} x {size[1]} | `{projector}` | {shown} | {size_of} |"


def _pass(bench: Bench, projector: ProjectorName, *, fresh: bool = False) -> float:
    columns, projection = bench.columns(0), Method(projector).projection
    with closing(bench.alignments(fresh=fresh)) as alignments:
        return seconds(lambda: alignments.apply(bench.modules[0], columns, projection))


if __name__ == "__main__":
    main()
