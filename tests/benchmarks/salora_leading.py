"""Block Krylov iteration for `V_s` against the whole eigendecomposition of the same operator.

Prints the table of docs/salora-statistics.md. `--sizes 1024 2048` leaves 4096 out, which takes
minutes.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from app.alignment.leading import Operator, leading, orthonormal
from tests.alignment.test_leading import angle

RANK = 32
T = TypeVar("T")
HEAD = """\
| d | spectrum | columns given to the operator | to eigh | to eigh and building its matrix | angle |
|---:|---|---:|---:|---:|---:|"""


@dataclass
class Counted:
    """An operator that knows to how many columns it was applied."""

    operator: Operator
    columns: int = 0

    def __call__(self, block: Tensor) -> Tensor:
        self.columns += block.shape[1]
        return self.operator(block)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)  # the processor's time for it is then nearly the same beside others
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, r_s = {RANK}, one thread, best of {given.rounds}\n\n{HEAD}")
    for d in given.sizes:
        for title, make in SPECTRA.items():
            print(f"| {d} | {title} | {line(make(d), d, given.rounds)} |", flush=True)


def line(operator: Operator, d: int, rounds: int) -> str:
    counted, eye = Counted(operator), torch.eye(d, dtype=torch.float64)
    found, krylov = quickest(lambda: leading(counted, d, RANK), rounds)
    matrix, building = quickest(lambda: operator(eye), rounds)
    whole, eigh = quickest(lambda: torch.linalg.eigh((matrix + matrix.T) / 2), rounds)
    apart = angle(found.vectors, whole.eigenvectors[:, -RANK:])
    return (
        f"{counted.columns / rounds / d:.2f} d | {krylov / eigh:.2f} | "
        f"{krylov / (eigh + building):.2f} | {apart:.0e}"
    )


def quickest(work: Callable[[], T], rounds: int) -> tuple[T, float]:
    """What it gives, and the least of the processor's seconds that it took."""
    tried = [timed(work) for _ in range(rounds)]
    return tried[0][0], min(seconds for _, seconds in tried)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    found = work()
    return found, time.process_time() - began


def of(x: Tensor, weight: Tensor) -> Operator:
    """`W X^T X W^T`, as a sweep has it."""
    total = x.T @ x
    return lambda v: weight @ (total @ (weight.T @ v))


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


SPECTRA: dict[str, Callable[[int], Operator]] = {
    "decaying: random weights, channel k of the inputs 1/k": lambda d: of(
        random(2 * d, d) / torch.arange(1, d + 1), random(d, d)
    ),
    "flat: random weights, random inputs": lambda d: of(random(2 * d, d), random(d, d)),
    "all equal but for float32's rounding": lambda d: of(
        orthonormal(random(2 * d, d)).float().double(), orthonormal(random(d, d))
    ),
}


if __name__ == "__main__":
    main()
