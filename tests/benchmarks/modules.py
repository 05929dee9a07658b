"""The approximate projector, module by module: dense, ours, from the cache, many adapters at once.

Everything is measured in one run on one machine, so the ratios can be trusted where seconds cannot.
The weights lie in real safetensors files and in the page cache, as they do after a download.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import save_file
from torch import Tensor

import app
from app.alignment.blocks import Scratch
from app.domain.adapter import LoraModule, TensorEntry
from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.method import Method
from app.intake.limits import CHECKPOINT_LIMITS
from app.intake.safetensors_header import read_header
from app.storage import alignment_cache
from app.storage.alignment_cache import AlignmentCache, Pair
from tests.benchmarks.measure import MIB, best, peak_anonymous, plain_read, total
from workers.alignments import Alignments, forms
from workers.checkpoints import ModelPair, open_pair
from workers.shelf import Shelf
from workers.warming import warm

RANK, ADAPTERS = 8, 16
PROJECTION = Method().projection
SQUARE = {"square": (4096, 4096)}
LLAMA_2_7B = {
    "q_proj": (4096, 4096),
    "k_proj": (4096, 4096),
    "v_proj": (4096, 4096),
    "o_proj": (4096, 4096),
    "gate_proj": (11008, 4096),
    "up_proj": (11008, 4096),
    "down_proj": (4096, 11008),
}


@dataclass(frozen=True)
class Bench:
    """Modules of one pair, all in files."""

    models: ModelPair
    modules: Sequence[LoraModule]
    folder: Path
    cache: AlignmentCache

    def alignments(self, *, fresh: bool = False, kept: bool = True) -> Alignments:
        """As a job has them; `fresh` with nothing in the cache."""
        if fresh:
            for path in self.folder.glob("cache/v1/*/*"):
                path.unlink()
        shelf = Shelf(self.cache.pair(Pair("b", "c", "base", "chat"))) if kept else None
        return Alignments(self.models, SCRATCH, shelf)

    def columns(self, i: int, adapters: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(i)
        return torch.randn(self.modules[i].d_out, RANK * adapters, generator=generator)


SCRATCH = Scratch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", type=int, default=64, help="modules in the long pass")
    modules = parser.parse_args().modules
    torch.set_num_threads(os.cpu_count() or 1)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, bf16, r = {RANK}")
    print(f"float32 products are {'numpy' if app.NUMPY_MULTIPLIES else 'torch'}'s here\n")
    # Files that have just been written are not known by their place; these do not change any more.
    alignment_cache.RECENT_S = 0.0
    measured(f"{modules} modules of 4096 x 4096", SQUARE, copies=4, repeat=modules // 4)
    measured("two layers of Llama-2-7B, its seven modules", LLAMA_2_7B, copies=2, repeat=1)


def measured(title: str, shapes: dict[str, tuple[int, int]], copies: int, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        modules = [module(f"{i}.{n}", s) for i in range(copies) for n, s in shapes.items()]
        base, chat = make_pair(folder, modules)
        with open_pair(chat, base) as models:
            cache = AlignmentCache(folder / "cache", 100 << 30)
            report(title, Bench(models, modules, folder, cache), repeat)


def report(title: str, bench: Bench, repeat: int) -> None:
    count = len(bench.modules)
    print(f"{title}: milliseconds a module")
    read = min(total(lambda i: read_weights(bench, i), count) for _ in range(3))
    dense = dense_seconds(bench)
    with peak_anonymous() as peak:
        computed = [pass_seconds(bench, kept=False) for _ in range(max(3, repeat))]
        found = {
            "plain read of both weights": read,
            "dense reference": dense,
            "computed, nothing kept": min(computed),
            f"the same, mean of {len(computed) * count}": fmean(computed),
            "computed and kept": min(pass_seconds(bench, fresh=True) for _ in range(3)),
            f"{ADAPTERS} adapters, computed": many_seconds(bench, kept=False),
            f"{ADAPTERS} adapters, computed and kept": many_seconds(bench, fresh=True),
        }
        show(found, count)
        cached = [from_cache("kept in passing", bench), *pre_warmed(bench)]
    conclude(found, peak[0])
    for line in cached:
        print(line)
    print()


def pre_warmed(bench: Bench) -> list[str]:
    alignments = bench.alignments()
    with closing(alignments):
        taken = total(lambda i: warm(alignments, bench.modules[i], PROJECTION), len(bench.modules))
    show({"pre-warming": taken}, len(bench.modules))
    return [from_cache("pre-warmed", bench)]


def from_cache(how: str, bench: Bench) -> str:
    """The cache as it is now: a pass over it, and the plain read of the same bytes."""
    entries = min(entries_seconds(bench) for _ in range(5))
    one = min(pass_seconds(bench) for _ in range(5))
    many = many_seconds(bench)
    named = {
        f"plain read of what is {how}": entries,
        f"from the cache, {how}": one,
        f"{ADAPTERS} adapters, {how}": many,
    }
    show(named, len(bench.modules))
    return (
        f"  from the cache, {how}: {one / entries:.1f} x the plain read; "
        f"{ADAPTERS} adapters {many / one:.1f} x one"
    )


def many_seconds(bench: Bench, *, kept: bool = True, fresh: bool = False) -> float:
    return min(pass_seconds(bench, fresh=fresh, kept=kept, adapters=ADAPTERS) for _ in range(3))


def show(found: dict[str, float], count: int) -> None:
    for name, taken in found.items():
        print(f"  {name:42} {taken / count * 1e3:9.1f}")


def conclude(found: dict[str, float], peak_bytes: int) -> None:
    read, dense, cold = (
        found[name]
        for name in ("plain read of both weights", "dense reference", "computed, nothing kept")
    )
    kept, many = found["computed and kept"], found[f"{ADAPTERS} adapters, computed"]
    many_kept = found[f"{ADAPTERS} adapters, computed and kept"]
    print(
        f"  computed: {dense / cold:.1f} x faster than dense, {cold / read:.1f} x the plain read; "
        f"{ADAPTERS} adapters {many / cold:.1f} x one\n"
        f"  computed and kept, as a worker does: {dense / kept:.1f} x faster than dense, "
        f"{kept / read:.1f} x the plain read; {ADAPTERS} adapters {many_kept / kept:.1f} x one\n"
        f"  peak anonymous memory of ours: {peak_bytes / MIB:.0f} MiB"
    )


# ------------------------------------------------------------------------------------------ timings
def pass_seconds(
    bench: Bench, *, fresh: bool = False, kept: bool = True, adapters: int = 1
) -> float:
    """Ours, over all modules."""
    columns = [bench.columns(i, adapters) for i in range(len(bench.modules))]
    alignments = bench.alignments(fresh=fresh, kept=kept)
    with closing(alignments):
        return total(
            lambda i: alignments.apply(bench.modules[i], columns[i], PROJECTION), len(columns)
        )


def dense_seconds(bench: Bench) -> float:
    """The published way, once for each shape, and as often as there are modules of it."""
    shapes = {m.lora_a.shape + m.lora_b.shape: i for i, m in enumerate(bench.modules)}
    once = {shape: best(lambda _, i=i: dense(bench, i), 1) for shape, i in shapes.items()}
    return sum(once[m.lora_a.shape + m.lora_b.shape] for m in bench.modules)


def dense(bench: Bench, i: int) -> float:
    """`C` and the updates dense, in float32, and the cosine between them."""
    module = bench.modules[i]
    chat, base = (m.weight(module.name) for m in (bench.models.chat, bench.models.base))
    v = chat.rows(0, chat.shape[0]).float() - base.rows(0, base.shape[0]).float()
    b, a = bench.columns(i), torch.randn(RANK, module.d_in)
    c = v @ v.T / torch.linalg.matrix_norm(v)
    update = b @ a
    projected = c @ update
    norms = torch.linalg.matrix_norm(update) * torch.linalg.matrix_norm(projected)
    return float((update * projected).sum() / norms)


BUFFERS = [memoryview(bytearray(128 << 20)) for _ in range(2)]


def read_weights(bench: Bench, i: int) -> None:
    name = bench.modules[i].name
    weights = (model.weight(name) for model in (bench.models.chat, bench.models.base))
    plain_read([weight.pieces[0] for weight in weights], BUFFERS)


def entries_seconds(bench: Bench) -> float:
    """The bytes that a pass takes from the cache, each half by a thread of its own."""
    shelf = Shelf(bench.cache.pair(Pair("b", "c", "base", "chat")))
    differences = [bench.models.difference(module) for module in bench.modules]
    found = [shelf.find(v, *forms(v, PROJECTION)) for v in differences]
    entries = [entry for entry in found if entry]

    def read(i: int) -> None:
        (tensor,) = entries[i].tensors.values()
        half = (tensor.begin + tensor.end) // 2
        spans = ((tensor.begin, half), (half, tensor.end))
        plain_read([(entries[i].descriptor, *span) for span in spans], BUFFERS)

    taken = total(read, len(entries))
    for entry in entries:
        entry.close()
    shelf.close()
    return taken


# ------------------------------------------------------------------------------------------- models
def module(name: str, shape: tuple[int, int]) -> LoraModule:
    a = TensorEntry("", "F32", (RANK, shape[1]), 0, 0)
    b = TensorEntry("", "F32", (shape[0], RANK), 0, 0)
    return LoraModule(name, RANK, 16.0, 2.0, a, b)


def make_pair(folder: Path, modules: Sequence[LoraModule]) -> tuple[Checkpoint, Checkpoint]:
    """The chat model a tenth away from the base."""
    torch.manual_seed(0)
    base, chat = {}, {}
    for one in modules:
        weight = torch.randn(one.d_out, one.d_in) * 0.02
        base[f"{one.name}.weight"] = weight.to(torch.bfloat16)
        change = torch.randn(one.d_out, one.d_in) * 0.002
        chat[f"{one.name}.weight"] = (weight + change).to(torch.bfloat16)
    return saved(base, folder / "base"), saved(chat, folder / "chat")


def saved(tensors: dict[str, Tensor], path: Path) -> Checkpoint:
    save_file(tensors, path)
    size = path.stat().st_size
    with path.open("rb") as file:
        header = read_header(file, size, file_name=path.name, limits=CHECKPOINT_LIMITS)
    entries = {entry.name: ShardTensor(path, entry) for entry in header.tensors}
    return Checkpoint(path.parent, "llama", entries, "")


if __name__ == "__main__":
    main()
