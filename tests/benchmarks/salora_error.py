"""How far `SecondMoment` and `Sketch` are from the whole SVD of all outputs, in float64, for
several spectra of these. Prints the table of docs/salora-statistics.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from app.alignment.leading import orthonormal
from app.alignment.moments import Moments, SecondMoment, Sketch, sketch_width
from tests.alignment.test_leading import angle

D, TOKENS, BATCH, RANKS = 1024, 4096, 512, [16, 32]
EQUAL = 1e-4  # singular values this close are no gap: no subspace is then the right one
CPU = torch.device("cpu")
SPECTRA: dict[str, Callable[[Tensor, int], Tensor]] = {
    "fast, 0.8^k": lambda k, _: 0.8**k,
    "slow, 1/k": lambda k, _: 1 / k,
    "slower, 1/sqrt(k)": lambda k, _: k.rsqrt(),
    "flat": lambda k, _: torch.ones_like(k),
    "1 to r_s, then 1/2": lambda k, rank: torch.where(k <= rank, 1.0, 0.5),
    "1 to r_s, then 1/10": lambda k, rank: torch.where(k <= rank, 1.0, 0.1),
}
METHODS = f"of inputs | of outputs | sketch, {sketch_width(max(RANKS))} columns"
HEAD = f"""\
| singular values | r_s | next | energy | {METHODS} |
|---|---:|---:|---:|---:|---:|---:|"""


@dataclass(frozen=True)
class World:
    """Inputs of one module, with the spectrum that was asked for in its outputs."""

    x: Tensor  # (TOKENS, D) float32
    weight: Tensor  # (D, D) float32

    def right(self) -> tuple[Tensor, Tensor]:
        """Singular values of the outputs, and the right singular vectors as rows."""
        y = self.x.double() @ self.weight.double().T
        _, values, right = torch.linalg.svd(y, full_matrices=False)
        return values, right


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    left, right, turned = (orthonormal(torch.randn(n, D).double()) for n in (TOKENS, D, D))
    print(HEAD)
    for title, spectrum in SPECTRA.items():
        for rank in RANKS:
            values = spectrum(torch.arange(1, D + 1).double(), rank)
            x = (left * values) @ right.T @ turned
            print(
                f"| {title} | {rank} | {line(World(x.float(), turned.float()), rank)} |", flush=True
            )


def line(world: World, rank: int) -> str:
    values, right = world.right()
    squares = values.square()
    gap, energy = values[rank] / values[rank - 1], float(squares[:rank].sum() / squares.sum())
    cells = []
    for moment in moments(world.weight, rank):
        for part in world.x.split(BATCH):
            moment.add(part)
        found = moment.subspace(world.weight, rank)
        of_values = float((found.values.double() / values[:rank] - 1).abs().max())
        apart = f"{angle(found.basis, right[:rank].T):.0e}" if gap < 1 - EQUAL else "any"
        cells.append(f"{of_values:.0e}, {abs(found.energy - energy):.0e}, {apart}")
    return f"{gap:.3f} | {energy:.3f} | {' | '.join(cells)}"


def moments(weight: Tensor, rank: int) -> Iterator[Moments]:
    yield SecondMoment(D, CPU)
    yield SecondMoment(D, CPU, weight)
    yield Sketch("module", weight, rank)


if __name__ == "__main__":
    main()
