"""SaLoRA's statistics: our one sweep against the published way, a sweep for each layer.

Each side of each cell is a process of its own. Both give their `V_s` to be compared with the whole
SVD of the outputs in float64. Prints the table of docs/salora-statistics.md.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.alignment.test_leading import angle
from tests.benchmarks.measure import MIB
from tests.benchmarks.salora_side import BATCH_TOKENS, RANK
from tests.benchmarks.salora_world import HIDDEN, INNER, LAYERS, LINEAR, RESPONSE

ROWS = [64, 256]
KINDS = {"q_proj, v_proj": ["q_proj", "v_proj"], "all seven": LINEAR}
GAP = 0.99  # of the first singular value left out to the last one taken: above, there is none
HEAD = """\
| modules | rows | forward passes | time | peak memory | compared | angle | energy lost |
|---|---:|---:|---:|---:|---:|---:|---:|"""


@dataclass(frozen=True)
class Side:
    passes: int
    bytes: int
    seconds: float
    bases: Mapping[str, Tensor]  # full name -> V_s (d_out, r_s)


@dataclass(frozen=True)
class Whole:
    """The SVD `U S Z^T` of one module's outputs."""

    scaled: Tensor  # S Z^T, (d_out, d_out) float64, or fewer rows

    @property
    def values(self) -> Tensor:
        return torch.linalg.vector_norm(self.scaled, dim=1)

    @property
    def has_gap(self) -> bool:
        return bool(self.values[RANK] <= GAP * self.values[RANK - 1])

    def angle(self, basis: Tensor) -> float:
        """Its sine."""
        return angle(basis, (self.scaled[:RANK] / self.values[:RANK, None]).T)

    def lost(self, basis: Tensor) -> float:
        """Share of the energy of the best directions that these do not hold."""
        held = (self.scaled @ basis.double()).square().sum()
        return max(0.0, 1 - float(held / self.values[:RANK].square().sum()))


def main() -> None:
    print(
        f"torch {torch.__version__}, one thread; {LAYERS} layers, hidden {HIDDEN}, inner {INNER}; "
        f"{RESPONSE} response tokens a row, batches of {BATCH_TOKENS} tokens, r_s = {RANK}.\n"
        "Published : ours, or how many times more the published way takes.\n"
    )
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            measured(rows, Path(folder) / "found")


def measured(rows: int, out: Path) -> None:
    child("reference", rows, LINEAR, out)
    wholes = {name: Whole(scaled) for name, scaled in load_file(out).items()}
    for title, kinds in KINDS.items():
        sides = [side(name, rows, kinds, out) for name in ("published", "ours")]
        print(f"| {title} | {rows} | {line(*sides, wholes)} |", flush=True)


def side(name: str, rows: int, kinds: list[str], out: Path) -> Side:
    return Side(**json.loads(child(name, rows, kinds, out)), bases=load_file(out))


def child(name: str, rows: int, kinds: list[str], out: Path) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.salora_side", name, str(rows)]
    command += [",".join(kinds), str(out)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def line(theirs: Side, ours: Side, wholes: Mapping[str, Whole]) -> str:
    both = {name: whole for name, whole in wholes.items() if name in ours.bases}
    sharp = {name: whole for name, whole in both.items() if whole.has_gap}
    angles = [max(w.angle(s.bases[n]) for n, w in sharp.items()) for s in (theirs, ours)]
    lost = [max(w.lost(s.bases[n]) for n, w in both.items()) for s in (theirs, ours)]
    return (
        f"{theirs.passes} : {ours.passes} | {theirs.seconds / ours.seconds:.1f} x | "
        f"{theirs.bytes / ours.bytes:.1f} x ({theirs.bytes / MIB:.0f} : {ours.bytes / MIB:.0f} MiB)"
        f" | {len(sharp)} of {len(both)} | {angles[0]:.0e} : {angles[1]:.0e} | "
        f"{lost[0]:.0e} : {lost[1]:.0e}"
    )


if __name__ == "__main__":
    main()
