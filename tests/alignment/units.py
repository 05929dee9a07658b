"""A stand-in for a processor's bfloat16 units, so that what is built on them is tested anywhere."""

import pytest
from torch import Tensor

from app.alignment import matrix_units


def gemm(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    product = a.float() @ b.float()  # exact products, sums in float32
    out.copy_(out + product if add else product)


def use(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`float32`, `stand-in`, or the `processor`'s own where it has units."""
    if how == "processor" and matrix_units.bf16_gemm() is None:
        pytest.skip("this processor, or this torch, has no bfloat16 units to use")
    if how != "processor":
        found = {"float32": None, "stand-in": gemm}[how]
        monkeypatch.setattr("app.alignment.matrix_units.bf16_gemm", lambda: found)


WAYS = ["float32", "stand-in", "processor"]
