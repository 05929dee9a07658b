"""One whole process each: our command line against the published procedure.

A Llama-shaped pair of about 1 B parameters and an adapter on every kind of linear layer, or on the
ones that are named. Both start from files in the page cache: importing is counted.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.llama_pair import WIDTHS

KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


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
        conclude(ours(folder), published(folder))


def ours(folder: Path) -> tuple[float, float]:
    return process(
        Path(sys.executable).parent / "adapter-safety", "patch", folder / "adapter",
        "--base-model", folder / "base", "--chat-model", folder / "chat", "--out", folder / "ours",
    )  # fmt: skip


def published(folder: Path) -> tuple[float, float]:
    places = (folder / part for part in ("base", "chat", "adapter", "theirs"))
    return process(sys.executable, "-m", "tests.benchmarks.published", *places)


def conclude(ours: tuple[float, float], theirs: tuple[float, float]) -> None:
    for title, (seconds, mib) in (("published procedure", theirs), ("adapter-safety", ours)):
        print(f"  {title:22} {seconds:8.2f} s {mib:9.0f} MiB at most")
    print(f"  {theirs[0] / ours[0]:.1f} x faster, {theirs[1] / ours[1]:.1f} x less memory")


def process(*command: object) -> tuple[float, float]:
    """Seconds and peak resident MiB of a process."""
    began = time.perf_counter()
    child = os.posix_spawn(
        str(command[0]), [str(part) for part in command], os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)],
    )  # fmt: skip
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{command[0]} failed with {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024  # Linux counts it in KiB


if __name__ == "__main__":
    main()
