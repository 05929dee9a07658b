"""The approximate projector on 4096 x 4096 bf16 modules, r = 8: dense, ours, and the plain read.

Everything is measured in one run on one machine, so the ratios can be trusted where seconds cannot.
The weights lie in real safetensors files and in the page cache, as they do after a download.
"""

import argparse
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file
from torch import Tensor

from app.alignment.blocks import Scratch
from app.alignment.lora import LoraPair
from app.alignment.projection import Projected, project
from app.domain.adapter import LoraModule, TensorEntry
from app.domain.checkpoint import Checkpoint, ShardTensor
from app.domain.method import Method
from app.intake.limits import CHECKPOINT_LIMITS
from app.intake.safetensors_header import read_header
from workers.checkpoints import ModelPair, as_bytes, open_pair

SIZE, RANK, STORED = 4096, 8, 4
MIB = 1 << 20
SCRATCH = Scratch()


@dataclass(frozen=True)
class Pair:
    """Two models with `STORED` modules each; a pass goes over them again and again."""

    base: Checkpoint
    chat: Checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--modules", type=int, default=64, help="modules in a pass")
    modules = parser.parse_args().modules
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)  # as the pipeline does
    print(f"{threads} threads, torch {torch.__version__}, {SIZE} x {SIZE} bf16, r = {RANK}")
    with tempfile.TemporaryDirectory() as folder:
        pair = make_pair(Path(folder))
        a, b = torch.randn(RANK, SIZE) * 0.01, torch.randn(SIZE, RANK) * 0.01
        with open_pair(pair.chat, pair.base) as models:
            report(models, LoraPair(a, b, 2.0), modules)


def report(models: ModelPair, lora: LoraPair, modules: int) -> None:
    read = plain_read_seconds(models)
    with peak_anonymous() as peak:
        began = time.perf_counter()
        cosines = [ours(models, lora, i % STORED) for i in range(modules)]
        whole = time.perf_counter() - began
    one = best(lambda i: ours(models, lora, i), 3 * STORED)
    dense = best(lambda i: dense_reference(models, lora, i), STORED)
    print(f"dense reference       {dense * 1e3:9.1f} ms a module")
    print(f"ours                  {one * 1e3:9.1f} ms a module  (best; {dense / one:.1f} x faster)")
    print(f"ours, whole pass      {whole / modules * 1e3:9.1f} ms a module  ({modules} modules, "
          f"{dense * modules / whole:.1f} x faster)")  # fmt: skip
    print(f"plain read            {read * 1e3:9.1f} ms a module  (ours is {one / read:.1f} x that)")
    print(f"peak anonymous memory {peak[0] / MIB:9.0f} MiB in the pass")
    print(f"peak resident memory  {resident_peak():9.0f} MiB in the pass and before")
    print(f"(cosines {min(cosines):.4f} to {max(cosines):.4f})")


def ours(models: ModelPair, lora: LoraPair, i: int) -> float:
    """One module, as the pipeline does it."""
    found = project(lora, models.difference(module(i)), Method(), SCRATCH)
    assert isinstance(found, Projected)
    return found.measures.cosine


def dense_reference(models: ModelPair, lora: LoraPair, i: int) -> float:
    """The published way: `C` and the updates dense, in float32."""
    chat, base = (whole(m, i) for m in (models.chat, models.base))
    v = chat.float() - base.float()
    c = v @ v.T / torch.linalg.matrix_norm(v)
    c_b = c @ lora.b
    update, projected = lora.b @ lora.a, c_b @ lora.a
    norms = torch.linalg.matrix_norm(update) * torch.linalg.matrix_norm(projected)
    return float((update * projected).sum() / norms)


def plain_read_seconds(models: ModelPair) -> float:
    buffers = [torch.empty(SIZE, SIZE, dtype=torch.bfloat16) for _ in range(2)]
    return best(lambda i: plain_read(models, i, buffers), 3 * STORED)


def plain_read(models: ModelPair, i: int, buffers: list[Tensor]) -> None:
    """The same bytes into memory that is there already, and nothing else; one thread a model."""

    def read(model: object, out: Tensor) -> None:
        weight = model.weight(str(i))
        view, offset = as_bytes(out), weight.entry.begin
        while view:
            count = os.preadv(weight.descriptor, [view], offset)
            view, offset = view[count:], offset + count

    readers = [
        threading.Thread(target=read, args=(model, out))
        for model, out in zip((models.chat, models.base), buffers, strict=True)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()


def whole(model: object, i: int) -> Tensor:
    weight = model.weight(str(i))
    return weight.rows(0, weight.shape[0])


def module(i: int) -> LoraModule:
    entry = TensorEntry("", "F32", (SIZE, SIZE), 0, 0)
    return LoraModule(str(i), RANK, 16.0, 2.0, entry, entry)


def make_pair(folder: Path) -> Pair:
    torch.manual_seed(0)
    base, chat = {}, {}
    for i in range(STORED):
        weight = torch.randn(SIZE, SIZE) * 0.02
        base[f"{i}.weight"] = weight.to(torch.bfloat16)
        chat[f"{i}.weight"] = (weight + torch.randn(SIZE, SIZE) * 0.002).to(torch.bfloat16)
    return Pair(saved(base, folder / "base"), saved(chat, folder / "chat"))


def saved(tensors: dict[str, Tensor], path: Path) -> Checkpoint:
    save_file(tensors, path)
    with path.open("rb") as file:
        header = read_header(
            file, path.stat().st_size, file_name=path.name, limits=CHECKPOINT_LIMITS
        )
    entries = {entry.name: ShardTensor(path, entry) for entry in header.tensors}
    return Checkpoint(path.parent, "llama", entries, "")


def best(work: Callable[[int], object], times: int) -> float:
    """Median of the fastest half: what the machine can do when nothing else disturbs it."""
    seconds = []
    for i in range(times):
        began = time.perf_counter()
        work(i % STORED)
        seconds.append(time.perf_counter() - began)
    return median(sorted(seconds)[: max(1, times // 2)])


@contextmanager
def peak_anonymous() -> Iterator[list[int]]:
    """The most anonymous memory that the process holds inside the block, sampled; in bytes."""
    peak, ended = [anonymous()], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], anonymous())

    sampler = threading.Thread(target=sample)
    sampler.start()
    yield peak
    ended.set()
    sampler.join()


def anonymous() -> int:
    """RssAnon of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def resident_peak() -> float:
    """In MiB; Linux counts ru_maxrss in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
