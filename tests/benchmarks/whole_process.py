"""One whole process each: our command line against the published procedure.

A Llama-shaped pair of about 1 B parameters and an adapter on every kind of linear layer, or on the
ones that are named. Both start from files in the page cache: importing is counted, and measured
once more alone. Ours is short beside what a machine's other tenants do to it, so that it is run
again and its median taken.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.benchmarks.llama_pair import WIDTHS

RUNS = 5  # of ours
READ_BUFFER = bytearray(1 << 24)
# As installed: compiled once.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
OUR_START = (
    "from app.cli.leaving import leave\n"
    "import app.cli.patch_here\n"
    "from app.imports import lasting_imports, without_meta_kernels\n"
    "with lasting_imports(), without_meta_kernels(): import workers.output, workers.prefetch\n"
    "leave(0)"
)
THEIR_START = "import tests.benchmarks.published"
KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Used(NamedTuple):
    """By a process."""

    seconds: float
    mib: float  # resident, at its peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", choices=WIDTHS, default="wide")
    parser.add_argument("--layers", type=int, help="unset: about 1 B parameters")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    given = parser.parse_args()
    layers = given.layers or WIDTHS[given.widths].layers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = [sys.executable, "-m", "tests.benchmarks.llama_pair", name, given.widths]
        subprocess.run([*make, str(layers), *given.kinds], check=True)
        print(f"{layers * len(given.kinds)} modules of a {given.widths} Llama of {layers} layers")
        os.sync()  # because writing what was made goes on for a while beside the first runs
        ours(folder, 0)  # so that what it imports is compiled, and in the page cache too
        conclude([ours(folder, i) for i in range(1, RUNS + 1)], published(folder))


def ours(folder: Path, run: int) -> Used:
    into_page_cache(folder)
    return process(
        Path(sys.executable).parent / "adapter-safety", "patch", folder / "adapter",
        "--base-model", folder / "base", "--chat-model", folder / "chat",
        "--out", folder / f"ours-{run}",
    )  # fmt: skip


def published(folder: Path) -> Used:
    into_page_cache(folder)
    places = (folder / part for part in ("base", "chat", "adapter", "theirs"))
    return process(sys.executable, "-m", "tests.benchmarks.published", *places)


def into_page_cache(folder: Path) -> None:
    """Where the system has let go of it since."""
    for file in folder.glob("*/*.safetensors"):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(READ_BUFFER):
                pass


def conclude(ours: Sequence[Used], theirs: Used) -> None:
    mib = max(each.mib for each in ours)
    fastest, middle, slowest = (sorted(ours)[i] for i in (0, len(ours) // 2, -1))
    print(f"  published procedure    {theirs.seconds:8.2f} s {theirs.mib:9.0f} MiB at most")
    print(
        f"  adapter-safety         {middle.seconds:8.2f} s {mib:9.0f} MiB at most, the median of"
        f" {len(ours)} runs of {fastest.seconds:.2f} to {slowest.seconds:.2f} s"
    )
    print(f"  {theirs.seconds / middle.seconds:.1f} x faster, {theirs.mib / mib:.1f} x less memory")
    starts = [median(starting(code) for _ in range(RUNS)) for code in (THEIR_START, OUR_START)]
    working = (theirs.seconds - starts[0], middle.seconds - starts[1])
    print(
        f"  without starting Python and importing, {starts[0]:.2f} s and {starts[1]:.2f} s:"
        f" {working[0] / working[1]:.1f} x faster"
    )


def starting(code: str) -> float:
    return process(sys.executable, "-c", code).seconds


def process(*command: object) -> Used:
    began = time.perf_counter()
    child = os.posix_spawn(
        str(command[0]), [str(part) for part in command], ENVIRONMENT,
        file_actions=[(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)],
    )  # fmt: skip
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{command[0]} failed with {status}")
    return Used(time.perf_counter() - began, usage.ru_maxrss / 1024)  # Linux counts it in KiB


if __name__ == "__main__":
    main()
